# Arguments: the version's hash; its list, as `strays` reads it; then for each file its hash and its path.
id=$1 list=$2
shift 2
current
mkdir -p "$versions" || fail write
claim
ln -s none "$parts/1.$token" || unwritten symlink
ln -s none "$parts/2.$token" || unwritten symlink
mv -f -T "$parts/1.$token" "$parts/2.$token" || unwritten "tool mv -T"

# Tell which files are wanted; those that are in the present versions are kept with what has arrived.
offer() {
  same=yes
  case $old in
    "$id".*) ;;
    *) same='' ;;
  esac
  while [ $# -gt 0 ]; do
    if [ -n "$old" ] && holds "$versions/$old/$2" "$1"; then
      keep "$versions/$old/$2" "$parts/$1" || unwritten
    else
      same=''
      if holds "$parts/$1" "$1"; then
        :
      elif [ -n "$before" ] && holds "$versions/$before/$2" "$1"; then
        keep "$versions/$before/$2" "$parts/$1" || unwritten
      else
        say "want $1"
      fi
    fi
    shift 2
  done
}

assemble() {
  printf '%s' "$list" >"$versions/$new.files" || fail write
  mkdir "$versions/$new" || fail write
  while [ $# -gt 0 ]; do
    case $2 in
      */*) [ -d "$versions/$new/${2%/*}" ] || mkdir -p "$versions/$new/${2%/*}" || fail write ;;
    esac
    if [ ! -f "$parts/$1" ]; then
      rm -rf "${versions:?}/$new" "$versions/$new.files"
      fail overtaken
    fi
    keep "$parts/$1" "$versions/$new/$2" || fail write
    shift 2
  done
}

offer "$@"
[ -n "$same" ] || unmixed # before anything is sent; and again below, because others may write meanwhile
receive
offered=$old
hold
current
case $old in
  "$id".*) again=yes ;;
  *) again='' ;;
esac
if [ -n "$again" ] && { [ -n "$same" ] || [ "$old" != "$offered" ]; }; then
  # it was there, whole, or another push of the same has brought it meanwhile
  result=same
elif [ -n "$same" ]; then
  fail overtaken
else
  unmixed
  new=$id.$token
  assemble "$@"
  # what replaces a damaged version of the same goes back to what was before that
  [ -n "$again" ] || before=$old
  if [ -n "$before" ]; then
    printf '%s\n' "$before" >"$versions/$new.before" || fail write
  fi
  flush
  point "$new" || fail write
  flush
  old=$new
  result=switched
fi
sweep # before the versions: who misses a file of one shall miss the mark
for entry in "$versions/"*; do
  version=${entry##*/}
  case $version in
    "$old" | "$before") ;;
    *.files | *.before) [ -d "${entry%.*}" ] || rm -f "$entry" ;;
    $hex64.$hex16)
      # what somebody has put there stays
      if [ -f "$entry.files" ] && [ -z "$(strays "$version")" ]; then
        rm -rf "$entry" "$entry.files" "$entry.before"
      fi
      ;;
  esac
done
say "done $result ${before%%.*}"
