#!/bin/sh
# golden_engine.sh: examples/03_llama2c, a forward pass before and after longctx.h: few lines
# change, the text stays the same as far as the old one comes, and the new one goes on.
# Usage: tests/golden_engine.sh [SHARED]     the folder of reference data, ../shared/data by default.
cd "$(dirname "$0")/.." || exit 1
shared=${1:-${LONGCTX_SHARED:-../shared/data}}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0 skipped=0

check() { # NAME COMMAND...
  name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: $name"
  fi
}

for program in before after; do
  ${CC:-cc} -O2 -std=c99 -I. "examples/03_llama2c/$program.c" -o "$work/$program" -lm || exit 1
done

added=$(diff examples/03_llama2c/before.c examples/03_llama2c/after.c | grep -c '^>')
check "after.c changes $added lines, more than 25" test "$added" -le 25

# Greedy text from the start, to the end of the old program's caches and three times as far.
compare() { # MODEL TOKENIZER
  if [ ! -r "$1" ] || [ ! -r "$2" ]; then
    skipped=$((skipped + 1))
    echo "skipped: $(basename "$1") (no such file)"
    return
  fi
  length=$(od -An -t d4 -j 24 -N 4 "$1" | tr -d ' ')
  "$work/before" "$1" "$2" $((3 * length)) > "$work/old.txt" || failed=$((failed + 1))
  "$work/after" "$1" "$2" "$length" > "$work/same.txt" || failed=$((failed + 1))
  "$work/after" "$1" "$2" $((3 * length)) > "$work/long.txt" || failed=$((failed + 1))
  check "$(basename "$1"): the same $length tokens" cmp "$work/old.txt" "$work/same.txt"
  check "$(basename "$1"): text beyond $length tokens" \
    test "$(wc -c < "$work/long.txt")" -gt $((2 * $(wc -c < "$work/same.txt")))
}

compare examples/models/story.bin examples/models/story.tok
compare examples/models/control.bin examples/models/story.tok
compare "$shared/models/stories260K/stories260K.bin" "$shared/models/stories260K/tok512.bin"
compare "$shared/models/sink260k/sink260k.bin" "$shared/models/stories260K/tok512.bin"

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
