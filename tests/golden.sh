#!/bin/sh
# golden.sh: one table of hashes, whoever compiles: levels, languages, contraction, this machine.
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0 skipped=0

golden() {                                             # golden COMPILER FLAGS
  if ! command -v "$1" > /dev/null; then
    skipped=$((skipped + 1))
    echo "skipped: $1"
    return
  fi
  if $1 $2 -o "$work/golden" golden.c -lm > "$work/log" 2>&1 && "$work/golden" >> "$work/log"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: $1 $2"
    head -n 20 "$work/log"
  fi
}

golden gcc "-std=c99 -O0"
golden gcc "-std=gnu11 -O3 -march=native"
golden g++ "-x c++ -std=gnu++17 -O2 -march=native"
golden clang "-std=c99 -O2"
golden clang "-std=gnu11 -O3 -march=native -ffp-contract=fast"
golden clang-19 "-std=c99 -O3 -march=native"

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
