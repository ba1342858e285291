# Of both kinds of push: the files that are missing come in and are checked.
need dd sha256sum mkdir rmdir mv ln cp rm readlink sleep cat

if ! cd "$parent" 2>/dev/null; then
  mkdir -p "$parent" && cd "$parent" || fail enter
fi

claim() {
  [ ! -f "$mark" ] || return 0
  for attempt in 1 2 3; do
    # another push may sweep between the two
    mkdir -p "$parts" && true 2>/dev/null >"$mark" && return 0
  done
  fail write
}

# What could not be written was swept away by another push that finished meanwhile, or the tool has said why.
unwritten() {
  [ -f "$mark" ] || fail overtaken
  fail "${1:-write}"
}

# Read "HASH BLOCKS REST" and that many bytes (BLOCKS of 65536, and REST), until a line says "end".
# A connection that is cut never says so.
receive() {
  claim
  say ready
  ended=''
  while read -r hash blocks rest; do
    if [ "$hash" = end ]; then
      ended=yes
      break
    fi
    part=$parts/$hash.$token
    claim
    true >"$part" || unwritten
    { [ "$blocks" = 0 ] || dd bs=65536 count="$blocks" iflag=fullblock; } >>"$part" || unwritten
    { [ "$rest" = 0 ] || dd bs="$rest" count=1 iflag=fullblock; } >>"$part" || unwritten
    if holds "$part" "$hash"; then
      mv -f "$part" "$parts/$hash" || unwritten
    elif [ -f "$part" ]; then
      fail altered "$hash"
    fi
    # else it was swept away: told when all of them are needed
  done
  [ -n "$ended" ] || fail cut
  flush
}

# Older versions, files of pushes that were never finished, and locks from before the last start.
sweep() {
  # all of it vanishes at once, so that whoever misses a file misses the mark too
  [ ! -d "$parts" ] || mv -f "$parts" "$parts.$token"
  for gone in "$parts".$hex16; do
    for part in "$gone/"*; do
      case ${part##*/} in
        $hex64 | *.$hex16) rm -f "$part" ;; # nobody else gives such names
      esac
    done
    rmdir "$gone" 2>/dev/null
  done
  for stale in "./.$name.lock-"*; do
    [ "$stale" = "$lock" ] || rmdir "$stale"
  done
}
