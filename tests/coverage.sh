#!/bin/sh
# coverage.sh: which lines of longctx.h some quick tests reach, by gcov, merged over the programs.
# Rooms 5 and 6 are compiled once per instruction set: a line counts when one of them ran it, and
# what this machine's compiler leaves out (NEON, WASM) is no line.
# Usage: tests/coverage.sh        lines that none reaches: build/coverage/uncovered
cd "$(dirname "$0")/.." || exit 1
top=$PWD own=$PWD/build/coverage
rm -rf "$own" && mkdir -p "$own" && cd "$own" || exit 1
for test in plan order fuzz_calls; do
  mkdir "$test" && cd "$test" || exit 1
  gcc -std=c99 -O0 --coverage -I"$top" -pthread -o run "$top/tests/$test.c" -lm &&
    ./run > log && gcov -b ./*.gcda > said || { tail -n 5 log; exit 1; }
  echo "$test: $(sed -n '/longctx.h/,/^$/p' said | grep -e '^Lines' -e '^Taken' | tr '\n' ' ')"
  cd "$own" || exit 1
done
cat ./*/longctx.h.gcov | awk -v list="$own/uncovered" '
  !/^ *[0-9#=*-]+:? *:? *[0-9]+:/ { next }
  { split($0, part, ":"); count = part[1]; line = part[2] + 0 }
  count ~ /-/ || line == 0 { next }
  !(line in text) { lines++; text[line] = substr($0, index($0, part[2])) }
  count !~ /[#=]/ && !(line in ran) { ran[line] = 1; hit++ }
  END {
    for (line in text) if (!(line in ran)) print text[line] | "sort -n > " list
    printf "%d of %d lines of longctx.h, %.1f %%\n", hit, lines, 100 * hit / lines
  }'
