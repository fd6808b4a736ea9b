#!/bin/sh
# readme.sh: every C block of the README compiles; those with a main run, too, and print a line that
# the README quotes.
cd "$(dirname "$0")/.." || exit 1
cc=${CC:-cc}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0

[ -f README.md ] && awk -v dir="$work" '
  /^```c$/ { on = 1; n++; file = sprintf("%s/block%02d.c", dir, n); next }
  /^```/   { on = 0 }
  on       { print > file }' README.md

# A block without main is the inside of a function that has what such functions have.
wrap() {
  cat << 'END'
#define LONGCTX_IMPLEMENTATION
#include "longctx.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
int fragment(longctx *lc, longctx *context, longctx_desc desc, void *mem, size_t bytes, int layer,
             int n, int part, int n_parts, const float *q, const float *k, const float *v,
             float *out, FILE *file);
int fragment(longctx *lc, longctx *context, longctx_desc desc, void *mem, size_t bytes, int layer,
             int n, int part, int n_parts, const float *q, const float *k, const float *v,
             float *out, FILE *file)
{
END
  cat "$1"
  echo 'return 0; }'
}

for block in "$work"/block*.c; do
  [ -f "$block" ] || continue
  name=$(basename "$block" .c)
  if grep -q 'int main' "$block"; then
    command="$cc -std=c99 -Wall -Wextra -I. -o $work/$name $block -lm -pthread && $work/$name &&
      grep -qF \"\\\`\$($work/$name | tail -n 1)\\\`\" README.md"
  else
    wrap "$block" > "$work/$name.in.c"
    command="$cc -std=c99 -w -I. -c -o $work/$name.o $work/$name.in.c"
  fi
  if sh -c "$command" > "$work/log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: C $name of README.md"
    head -n 12 "$block" "$work/log"
  fi
done

if [ $((passed + failed)) -eq 0 ]; then
  failed=1
  echo "failed: no C block in README.md"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
