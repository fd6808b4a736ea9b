#!/bin/sh
# run.sh: runs test programs and scripts one after another, adds up their closing lines.
# Usage: tests/run.sh PROGRAM...      each ends with `N passed, M failed[, K skipped]`.
passed=0 failed=0 skipped=0

for program; do
  begin=$(date +%s)
  log=$("$program" 2>&1)
  code=$?
  last=$(printf '%s\n' "$log" | tail -n 1)
  printf '%s\n' "$log" | sed '$d' | sed 's/^/  /'
  echo "$(basename "$program"): $last ($(($(date +%s) - begin)) s)"
  set -- $(printf '%s\n' "$last" |
    sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed\(, \([0-9]*\) skipped\)\{0,1\}$/\1 \2 \4/p')
  if [ $# -lt 2 ] || { [ "$code" -ne 0 ] && [ "$2" -eq 0 ]; }; then
    echo "  $(basename "$program") ended with code $code and no honest closing line"
    failed=$((failed + 1))
  fi
  passed=$((passed + ${1:-0})) failed=$((failed + ${2:-0})) skipped=$((skipped + ${3:-0}))
done

[ "$skipped" -eq 0 ] || echo "$skipped skipped, named above"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
