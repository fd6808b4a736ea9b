#!/bin/sh
# instructions.sh: how many instructions six cases take, counted by cachegrind, against
# instructions.txt: more than 1 % off fails. Usage: tests/instructions.sh [--update]
# A case runs once and twice: the difference is one call, start-up cancels. The committed counts are
# of gcc 12 -O2 through avx2, which is as far as valgrind goes; anything else is skipped by name.
cd "$(dirname "$0")" || exit 1
cc=${CC:-gcc}
isa=avx2
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0 skipped=0

leave() {
  result=passed
  [ "$skipped" -eq 0 ] || result=skipped
  [ "$failed" -eq 0 ] || result=failed
  [ -z "$ROWS" ] || printf '%s\t%s\t%s\t%s\n' $result "instructions of six cases, cachegrind" \
    "${why:-within 1 % of tests/instructions.txt}" - >> "$ROWS"
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
  exit
}

skip() {
  skipped=1
  why=$1
  echo "skipped: instruction counts ($1)"
  leave
}

command -v valgrind > /dev/null || skip "no valgrind"
command -v "$cc" > /dev/null || skip "no $cc"
compiler=$(echo 'gcc __GNUC__ clang __clang__ x86 __x86_64__' | "$cc" -E -P -x c - 2> /dev/null)
[ "$compiler" = "gcc 12 clang __clang__ x86 1" ] ||
  skip "the counts are of gcc 12 on x86-64; this is $("$cc" --version | head -n 1)"
"$cc" -std=c99 -O2 -o "$work/case" instructions.c || {
  failed=1
  echo "failed: instructions.c does not compile"
  leave
}

count() {                                              # count CASE N
  env -i valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file="$work/out" \
    "$work/case" "$isa" "$1" "$2" > "$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
  awk '$1 == "summary:" { print $2 }' "$work/out"
}

env -i valgrind -q --tool=none "$work/case" "$isa" decode_f32_small 1 > "$work/log" 2>&1
[ $? -ne 2 ] || skip "no $isa under valgrind here"

: > "$work/new"
while read -r name want; do
  if once=$(count "$name" 1) && twice=$(count "$name" 2) && [ "${twice:-0}" -gt "${once:-0}" ]; then
    got=$((twice - once))
    echo "$name $got" >> "$work/new"
    off=$(awk -v a="$got" -v b="$want" 'BEGIN { printf "%+.2f", 100 * (a - b) / b }')
    if awk -v off="$off" 'BEGIN { exit !(off <= 1 && off >= -1) }'; then
      passed=$((passed + 1))
      echo "passed: $name $got instructions ($off %)"
      continue
    fi
    failed=$((failed + 1))
    echo "failed: $name $got instructions, not $want ($off %); if meant, $0 --update"
  else
    failed=$((failed + 1))
    echo "failed: $name does not run under cachegrind"
  fi
done < instructions.txt

if [ "$1" = --update ] && [ "$(wc -l < "$work/new")" = "$(wc -l < instructions.txt)" ]; then
  cp "$work/new" instructions.txt
  passed=$((passed + failed)) failed=0
  echo "written: tests/instructions.txt"
fi
leave
