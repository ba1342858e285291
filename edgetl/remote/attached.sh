# Run the arguments as a program that ends with the connection: where there is no terminal, nobody else tells it.
exec 3<&0 </dev/null
{
  cat <&3
  kill -INT $$ || exit
  waited=0
  while [ "$waited" -lt 2 ]; do
    sleep 1
    waited=$((waited + 1))
    kill -0 $$ || exit
  done
  kill -TERM $$
} >/dev/null 2>&1 &
exec "$@" 3<&-
