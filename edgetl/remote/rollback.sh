# No arguments. Back to the previous version; what was the present one becomes the previous.
need cat mv ln cp rm readlink sha256sum mkdir rmdir sleep
cd "$parent" || fail enter

# The present and the previous file change places; the name itself in one step.
swap() {
  [ ! "./$1" -ef "./$1.previous" ] || return 0
  now=./.$1.$token.now
  keep "./$1" "$now" && mv -f "./$1.previous" "./$1" && mv -f "$now" "./$1.previous"
}

hold
if [ -f "./$name" ]; then
  [ -f "./$name.previous" ] || fail nothing
  if [ -f "./.$name.beside" ]; then
    while IFS= read -r beside; do
      [ ! -f "./$beside.previous" ] || swap "$beside" || fail write
    done <"./.$name.beside"
  fi
  swap "$name" || fail write
  flush
  old=$(sha256sum <"./$name")
  before=$(sha256sum <"./$name.previous")
  say "done ${old%% *} ${before%% *}"
else
  [ -e "./$name" ] || [ -L "./$name" ] || fail missing
  current
  [ -n "$before" ] || fail nothing
  unmixed
  printf '%s\n' "$old" >"$aside" && mv -f "$aside" "$versions/$before.before" || fail write
  point "$before" || fail write
  flush
  say "done ${before%%.*} ${old%%.*}"
fi
