#!/bin/sh
# rows.sh: what the long lists share; a list is a script that begins with `. tests/rows.sh`.
#   row NAME TOOLS COMMAND   to be run at the repository's root with $own, a folder of its own; what
#                            it prints last is its figure; where a tool is missing it is skipped
#   rows_end                 runs them all, JOBS at a time, and adds up
# Each row's result, name, figure and seconds go to $ROWS, too, if that is set.

# One row of the list in folder $work: it runs, and says how it went.
rows_one() {
  export own="$work/$1"
  name=$(cat "$own.name")
  begin=$(date +%s)
  if sh -c "$(cat "$own.command")" > "$own.log" 2>&1; then result=passed; else result=failed; fi
  figure=$(tail -n 1 "$own.log" | tr '\t' ' ')
  seconds=$(($(date +%s) - begin))
  if [ "$result" = failed ]; then
    { echo "failed: $name, $seconds s"; tail -n 25 "$own.log" | sed 's/^/  /'; } > "$own.out"
  else
    echo "passed: $name ($figure), $seconds s" > "$own.out"
  fi
  cat "$own.out"
  printf '%s\t%s\t%s\t%s\n' "$result" "$name" "$figure" "$seconds" > "$own.result"
  rm -rf "$own"
}

if [ "$1" = --one ]; then
  rows_one "$2"
  exit 0
fi

work=$(mktemp -d) || exit 1
export work
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
rows_jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
rows_count=1000

row() {
  rows_count=$((rows_count + 1))
  for tool in $2; do
    command -v "$tool" > /dev/null && continue
    echo "skipped: $1 (no $tool)"
    printf 'skipped\t%s\tno %s\t0\n' "$1" "$tool" > "$work/$rows_count.result"
    return
  done
  mkdir "$work/$rows_count"
  printf '%s\n' "$1" > "$work/$rows_count.name"
  printf '%s\n' "$3" > "$work/$rows_count.command"
  echo "$rows_count" >> "$work/list"
}

rows_end() {
  touch "$work/list"
  [ ! -s "$work/list" ] || xargs -n 1 -P "$rows_jobs" sh tests/rows.sh --one < "$work/list"
  while read -r i; do                                  # killed, or left when xargs gave up
    [ -f "$work/$i.result" ] && continue
    echo "failed: $(cat "$work/$i.name"), it never came to an end"
    printf 'failed\t%s\tit never came to an end\t0\n' "$(cat "$work/$i.name")" > "$work/$i.result"
  done < "$work/list"
  cat "$work"/*.result > "$work/results"
  [ -z "$ROWS" ] || cat "$work/results" >> "$ROWS"
  awk -F '\t' '{ n[$1]++ } END { printf "%d passed, %d failed, %d skipped\n", n["passed"],
    n["failed"], n["skipped"]; exit n["failed"] > 0 }' "$work/results"
}
