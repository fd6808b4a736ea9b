#!/bin/sh
# examples.sh: every numbered example prints what its first comment says.
# Usage: tests/examples.sh [BUILD]     the folder of the built examples, build by default.
cd "$(dirname "$0")/.." || exit 1
build=$(cd "${1:-build}" && pwd) || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0 skipped=0

# The lines between "expected output:" and the end of the first comment, as far as they are said:
# spaces in front of a line do not count.
expected() {
  awk '/\*\// { exit } on { print } /^ *expected output:/ { on = 1 }' "$1" | sed 's/^ *//'
}

for source in examples/0[0-9]_*.c; do
  name=$(basename "$source" .c)
  expected "$source" > "$work/want"
  if [ ! -s "$work/want" ]; then
    skipped=$((skipped + 1))
    echo "skipped: $name (its comment expects no output)"
  elif (cd "$work" && "$build/$name") > "$work/raw" 2> "$work/err" &&
       sed 's/^ *//' "$work/raw" > "$work/got" &&
       diff "$work/want" "$work/got" > "$work/diff"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: $name"
    head -n 20 "$work/diff" "$work/err" 2> /dev/null
  fi
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
