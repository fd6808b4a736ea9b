#!/bin/sh
# check.sh: the long list, a table of what was tried and what came out. Each part is a list of its
# own that can be run alone. Usage: tests/check.sh        a tool that is missing is skipped by name.
# The table goes to build/TRUST.md; a copy that somebody's run made is tests/TRUST.md.
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0 skipped=0
export ROWS="$work/rows"

part() {                                               # part TITLE SCRIPT
  echo "---- $1"
  printf 'part\t%s\t%s\n' "$1" "$2" >> "$ROWS"
  "$2" 2>&1 | tee "$work/log"
  last=$(tail -n 1 "$work/log")
  set -- $(printf '%s\n' "$last" | sed 's/[^0-9 ]//g')
  passed=$((passed + ${1:-0})) failed=$((failed + ${2:-1})) skipped=$((skipped + ${3:-0}))
}

begin=$(date +%s)
part "Compilers, standards, levels" tests/compilers.sh
part "Machines" tests/machines.sh
part "Embedded" tests/embedded.sh
part "Sanitizers" tests/sanitizers.sh
part "Bad input" tests/bad_input.sh
part "Faults" tests/faults.sh
part "Long runs" tests/long.sh
part "Instructions" tests/instructions.sh

# ---- the table -----------------------------------------------------------------------------------

sum="$passed passed, $failed failed, $skipped skipped"
version=$(sed -n 's/^.\* longctx.h \([0-9.]*\) .*/\1/p' longctx.h)
commit=$(git describe --always --dirty 2>&1 | head -n 1)
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
mkdir -p build
{ cat << END
# What was tried, and what came out

Written by \`make check\`, not by hand: every row is a command in the script that its part names.
"Emulated" means that qemu ran every instruction; no such machine was there.

| | |
|---|---|
| date | $(date -u '+%Y-%m-%d %H:%M') UTC |
| version | longctx.h $version, commit $commit |
| machine | $cpu, $(getconf _NPROCESSORS_ONLN) cores |
| system | $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release), $(uname -sr) |
| in all | $sum, $((($(date +%s) - begin + 30) / 60)) minutes |
END
  awk -F '\t' '
    $1 == "part" { printf "\n## %s\n\n`%s`\n\n| what | result | seconds |\n|---|---|---|\n", $2, $3
      next }
    { gsub(/\|/, "\\|"); printf "| %s | %s%s | %s |\n", $2, $1 == "passed" ? "" : $1 ": ", $3, $4 }
  ' "$ROWS"
} > build/TRUST.md
echo "written: build/TRUST.md"

echo "$sum"
[ "$failed" -eq 0 ]
