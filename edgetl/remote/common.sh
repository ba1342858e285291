# What every script begins with. POSIX sh, with coreutils or busybox; nothing else is needed.
# Arguments: the directory, the name in it, a token that no other connection has.
# Whatever begins with the name and a dot is hidden beside it, so that every rename stays in one file system.
LC_ALL=C
export LC_ALL
parent=$1 name=$2 token=$3
shift 3
versions=./.$name.versions # one directory per version: <its hash>.<token of the push>; <version>.files lists it
parts=./.$name.parts       # files that have arrived, named by their hashes
mark=$parts/mark.$token    # as long as it is there, no other push has swept what this one brought
aside=./.$name.$token
lock=

hex4='[0-9a-f][0-9a-f][0-9a-f][0-9a-f]'
hex16=$hex4$hex4$hex4$hex4 # a token
hex64=$hex16$hex16$hex16$hex16
newline='
'

say() { printf 'edgetl: %s\n' "$*"; }

fail() {
  say "fail $*"
  exit 1
}

leave() {
  rm -f "$aside" "$parts/"*".$token"
  [ -z "$lock" ] || rmdir "$lock"
}
trap leave EXIT
trap 'exit 1' HUP INT TERM PIPE

need() {
  for tool in "$@"; do
    command -v "$tool" >/dev/null || fail tool "$tool"
  done
}

# holds FILE HASH: whether the file is there and has that SHA-256.
# Read from stdin, because sha256sum escapes names that hold a line break.
holds() { [ -f "$1" ] && sum=$(sha256sum <"$1") && [ "${sum%% *}" = "$2" ]; }

# keep FILE COPY: a second name for the same content; where there are no hard links, a copy.
keep() {
  # mv refuses, or does nothing, between two names of one file; -ef is in dash, bash and busybox, and in POSIX 2024
  [ ! "$1" -ef "$2" ] || return 0
  ln "$1" "$2" 2>/dev/null && return 0
  if ! { { ln "$1" "$aside" 2>/dev/null || cp "$1" "$aside"; } && mv -f "$aside" "$2"; }; then
    [ "$1" -ef "$2" ] || return 1
  fi
  # if it is still there, it is one more name of that file, and nothing may be copied over it
  rm -f "$aside"
}

# strays VERSION: print the first file in it that no push has brought, with the reason; nothing if there is none.
# The list is words as a shell reads them, because names may hold line breaks: the kind, then each hash and path.
strays() {
  [ -f "$versions/$1.files" ] || return 0 # of an edgetl that kept no lists
  words=$(cat "$versions/$1.files") || fail read
  cd "$versions/$1" || fail enter
  eval "set -- $words"
  stray_below '' "$@"
}

# stray_below PREFIX KIND HASH PATH...: of the files in a directory, whose path is empty or ends in a slash.
stray_below() (
  prefix=$1 kind=$2
  shift 2
  for entry in "$prefix"* "$prefix".[!.]* "$prefix"..?*; do
    case ${entry##*/} in
      .lock | .edgetl-*.partial) continue ;; # a run has them while it is used, or since it was killed
    esac
    [ -e "./$entry" ] || [ -L "./$entry" ] || continue
    if listed_with "$entry" "$@"; then
      if [ "$kind" = run ] && ! holds "./$entry" "$listed"; then
        printf 'changed %s' "${entry%%"$newline"*}"
        exit
      fi
    elif [ -d "./$entry" ] && [ ! -L "./$entry" ] && leads_to "$entry" "$@"; then
      found=$(stray_below "$entry/" "$kind" "$@")
      [ -z "$found" ] || { printf '%s' "$found"; exit; }
    else
      printf 'stray %s' "${entry%%"$newline"*}"
      exit
    fi
  done
)

# listed_with PATH HASH PATH...: whether it is one of these; sets listed to its hash.
listed_with() {
  wanted_path=$1
  shift
  while [ $# -gt 0 ]; do
    listed=$1
    [ "$2" != "$wanted_path" ] || return 0
    shift 2
  done
  return 1
}

# leads_to DIRECTORY HASH PATH...: whether one of these lies in it.
leads_to() {
  above=$1
  shift
  while [ $# -gt 0 ]; do
    case $2 in
      "$above"/*) return 0 ;;
    esac
    shift 2
  done
  return 1
}

# Nothing that push has not brought may be hidden with the version that the name means.
unmixed() {
  [ -n "$old" ] || return 0
  stray=$(strays "$old")
  [ -z "$stray" ] || fail "$stray"
}

# point VERSION: let the name mean it, in one step.
point() { ln -s ".$name.versions/$1" "$aside" && mv -f -T "$aside" "./$name"; }

# Set old, the version that the name means, and before, the one before it; empty where there is none.
current() {
  old='' before=''
  if [ -L "./$name" ]; then
    old=$(readlink "./$name")
    case $old in
      ".$name.versions/"*) old=${old##*/} ;;
      *) fail foreign ;;
    esac
    [ -d "$versions/$old" ] || old=''
  elif [ -e "./$name" ]; then
    fail foreign
  fi
  if [ -n "$old" ] && [ -f "$versions/$old.before" ]; then
    read -r before <"$versions/$old.before"
    [ -d "$versions/$before" ] || before=''
  fi
}

# Nobody else switches this name until this script ends. Nothing is read from the connection meanwhile, so
# a dead one holds up nobody; the name holds the boot's, so neither does a lost power supply.
hold() {
  trap '' HUP INT TERM PIPE
  { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || boot=0
  wanted=./.$name.lock-$boot
  tries=0
  until mkdir "$wanted" 2>/dev/null; do
    if [ ! -e "$wanted" ]; then
      mkdir "$wanted" && break
      [ -e "$wanted" ] || fail write
    fi
    tries=$((tries + 1))
    [ "$tries" -lt 30 ] || fail busy "$wanted"
    sleep 1
  done
  lock=$wanted
}

# Flush what was written; a system without sync does it in its own time.
flush() { sync 2>/dev/null || :; }
