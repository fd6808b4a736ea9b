#!/bin/sh
# golden.sh: one table of hashes, whoever compiles: levels, languages, contraction, this machine.
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
passed=0 failed=0 skipped=0 started=0

golden() {                                             # golden COMPILER FLAGS
  if ! command -v "$1" > /dev/null; then
    skipped=$((skipped + 1))
    echo "skipped: $1 $2"
    return
  fi
  started=$((started + 1))
  exe="$work/$started"
  echo "$1 $2" > "$exe.name"
  ($1 $2 -o "$exe" golden.c -lm > "$exe.log" 2>&1 && "$exe" >> "$exe.log"; echo $? > "$exe.rc") &
  [ $((started % jobs)) -ne 0 ] || wait
}

golden gcc "-std=c99 -O0"
golden gcc "-std=gnu11 -O3 -march=native"
golden g++ "-x c++ -std=gnu++17 -O2 -march=native"
golden clang "-std=c99 -O2"
golden clang "-std=gnu11 -O3 -march=native -ffp-contract=fast"
golden clang-19 "-std=c99 -O3 -march=native"
wait

for name in "$work"/*.name; do
  [ -f "$name" ] || continue
  exe=${name%.name}
  if [ "$(cat "$exe.rc")" = 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: $(cat "$name")"
    head -n 20 "$exe.log"
  fi
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
