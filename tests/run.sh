#!/bin/sh
# run.sh: runs test programs and scripts, a few at a time, and adds up their closing lines.
# Usage: tests/run.sh PROGRAM...      each ends with `N passed, M failed[, K skipped]`.
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
export OMP_WAIT_POLICY=passive # tests share the cores: threads that wait must not spin

# One program: what it says, indented, then its closing line; passed, failed, skipped to a file.
one() {
  name=$(basename "$1")
  begin=$(date +%s)
  "$1" > "$work/$name.log" 2>&1
  code=$?
  last=$(tail -n 1 "$work/$name.log")
  sums=$(echo "$last" |
    sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed\(, \([0-9]*\) skipped\)\{0,1\}$/\1 \2 \4/p')
  case "$sums:$code" in
    :* | *" 0 ":[1-9]* | *" 0 "[0-9]*:[1-9]*)          # no such line, or a failure it hides
      sums="0 1 0"
      last="$last (ended with code $code and no honest closing line)" ;;
  esac
  echo "$sums" > "$work/$name.sum"
  { sed '$d' "$work/$name.log" | sed 's/^/  /'
    echo "$name: $last ($(($(date +%s) - begin)) s)"; } > "$work/$name.out"
  cat "$work/$name.out"
}

if [ "$1" = --one ]; then
  one "$2"
  exit 0
fi

work=$(mktemp -d) || exit 1
export work
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
printf '%s\n' "$@" | xargs -n 1 -P "$jobs" "$0" --one

passed=0 failed=0 skipped=0
for program; do
  sum="$work/$(basename "$program").sum"
  if ! read -r p f s < "$sum"; then p=0 f=1 s=0; fi 2> /dev/null
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
done
[ "$skipped" -eq 0 ] || echo "$skipped skipped, named above"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
