#!/bin/sh
# check.sh: the long list. Each part is a script of rows that can be run alone, too; a tool that is
# missing is skipped by name. Usage: tests/check.sh [--soak] [PART...]     all parts by default
# The table of what came out goes to build/TRUST.md, with --soak (hours) to build/SOAK.md, parts that
# did not run now as they last did; tests/TRUST.md is a copy of one.
cd "$(dirname "$0")/.." || exit 1
if [ "$1" = --soak ]; then
  shift
  target=soak table=build/SOAK.md kept=build/soak parts="long machines faults fuzz"
else
  target=check table=build/TRUST.md kept=build/trust
  parts="compilers machines embedded sanitizers bad_input fuzz proof faults long coverage instructions"
fi
mkdir -p $kept
passed=0 failed=0 skipped=0
commit=$(git describe --always --dirty 2>&1 | head -n 1)

title() {                                              # the script's first words, as a heading
  case $1 in
    compilers) echo "Compilers, standards, levels" ;;
    machines) echo "Machines" ;;
    embedded) echo "Microcontrollers: RAM, code, stack" ;;
    sanitizers) echo "Sanitizers" ;;
    bad_input) echo "Bad input" ;;
    fuzz) echo "Fuzzing" ;;
    proof) echo "Proof" ;;
    faults) echo "Faults" ;;
    long) echo "Long runs" ;;
    instructions) echo "Instruction counts" ;;
    coverage) echo "Coverage" ;;
  esac
}

amount() {                                             # what a part is told to do, in a soak
  case $target.$1 in
    soak.long | soak.machines) echo full ;;            # 10^9 tokens; every shape, emulated
    soak.faults) echo 10000 ;;                         # kills
    soak.fuzz) echo 1200 ;;                            # seconds for each target
  esac
}

for part in ${*:-$parts}; do
  echo "---- $(title "$part")"
  begin=$(date +%s)
  rm -f "$kept/$part.rows"
  ROWS="$PWD/$kept/$part.rows" "tests/$part.sh" $(amount "$part") 2>&1 | tee "$kept/$part.log"
  last=$(tail -n 1 "$kept/$part.log")
  echo "$last. $(date -u '+%Y-%m-%d %H:%M') UTC, commit $commit, $((($(date +%s) - begin)/60)) min" \
    > "$kept/$part.sum"
  # shellcheck disable=SC2046
  set -- $(echo "$last" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) .*/\1 \2 \3/p')
  passed=$((passed + ${1:-0})) failed=$((failed + ${2:-1})) skipped=$((skipped + ${3:-0}))
done

# ---- the table -----------------------------------------------------------------------------------

version=$(sed -n 's/^.\* longctx.h \([0-9.]*\) .*/\1/p' longctx.h)
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
system=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)
{ cat << END
# What is tested, and the results

Written by \`make $target\`, not by hand. Each part names its script; each row is what that script
printed. "Emulated": qemu ran every instruction, for want of such a machine.

longctx.h $version on $cpu, $(getconf _NPROCESSORS_ONLN) cores, $system.
END
  for part in $parts; do
    printf '\n## %s\n\n`%s`: ' "$(title "$part")" "$(echo tests/$part.sh $(amount "$part"))"
    cat "$kept/$part.sum" 2> $kept/none || echo "not run"
    [ -f "$kept/$part.rows" ] || continue
    printf '\n| what | came out | seconds |\n|---|---|---|\n'
    awk -F '\t' '{ gsub(/\|/, "\\|")
      printf "| %s | %s%s | %s |\n", $2, $1 == "passed" ? "" : $1 ": ", $3, $4 }' "$kept/$part.rows"
  done
} > $table
echo "written: $table"

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
