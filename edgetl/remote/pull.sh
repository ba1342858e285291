# No arguments. Tell the files with their hashes and sizes, then give those that are asked for.
need sha256sum wc cat
cd "$parent" || fail enter

# tell FILE NAME
tell() {
  case $2 in
    *"$newline"*) fail newline "${2%%"$newline"*}" ;;
  esac
  sum=$(sha256sum <"$1") && size=$(wc -c <"$1") || fail read
  say "file ${sum%% *} $((size)) $2"
}

walk() {
  for entry in "$1"* "$1".[!.]* "$1"..?*; do
    case ${entry##*/} in
      .lock | *.partial) continue ;;
    esac
    if [ -d "$entry" ]; then
      [ ! -L "$entry" ] || fail linked "${entry#./}"
      (walk "$entry/") || exit 1
    elif [ -f "$entry" ]; then
      tell "$entry" "${entry#./}"
    fi
  done
}

single=''
if [ -d "./$name" ]; then
  # from here on in that version, whatever the name comes to mean
  cd -P "./$name" || fail enter
  say directory
  walk ./
elif [ -f "./$name" ]; then
  # its name is known, and may hold a line break
  single=yes
  tell "./$name" file
else
  fail missing
fi
say ready
while IFS= read -r path; do
  [ -n "$path" ] || break
  [ -z "$single" ] || path=$name
  cat "./$path" || fail read
done
