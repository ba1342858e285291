# Arguments: for each file its hash and its name; the one that the name means comes last.
list=./.$name.beside # names that were ever pushed beside this one; they roll back with it

offer() {
  same=yes
  while [ $# -gt 0 ]; do
    [ ! -d "./$2" ] || fail foreign "$2"
    [ ! -d "./$2.previous" ] || fail foreign "$2.previous"
    if ! holds "./$2" "$1"; then
      same=''
      holds "$parts/$1" "$1" || say "want $1"
    fi
    shift 2
  done
}

# The present file, too, is called previous; or none is, because the present one is the first.
remember() {
  if [ -e "./$1" ]; then
    keep "./$1" "./$1.previous" || fail write
  else
    rm -f "./$1.previous"
  fi
}

listed() {
  [ -f "$list" ] || return 1
  while IFS= read -r beside; do
    [ "$beside" != "$1" ] || return 0
  done <"$list"
  return 1
}

remember_all() {
  if [ -f "$list" ]; then
    while IFS= read -r beside; do
      remember "$beside"
    done <"$list"
  fi
  while [ $# -gt 2 ]; do
    if ! listed "$2"; then
      remember "$2"
      printf '%s\n' "$2" >>"$list" || fail write
    fi
    shift 2
  done
  remember "$name"
}

install_all() {
  while [ $# -gt 0 ]; do
    if [ -f "$parts/$1" ]; then
      keep "$parts/$1" "./$2" || fail write
    fi
    shift 2
  done
}

settled() {
  while [ $# -gt 0 ]; do
    holds "./$2" "$1" || return 1
    shift 2
  done
}

arrived() {
  while [ $# -gt 0 ]; do
    [ -f "$parts/$1" ] || holds "./$2" "$1" || return 1
    shift 2
  done
}

offer "$@"
receive
hold
# or another push of the same has brought it meanwhile
if [ -n "$same" ] || settled "$@"; then
  result=same
else
  arrived "$@" || fail overtaken
  remember_all "$@"
  install_all "$@"
  flush
  result=switched
fi
sweep
previous=''
if [ -f "./$name.previous" ]; then
  previous=$(sha256sum <"./$name.previous")
fi
say "done $result ${previous%% *}"
