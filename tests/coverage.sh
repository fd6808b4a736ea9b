#!/bin/sh
# coverage.sh: which lines, branches and conditions of longctx.h the tests reach. What is left is
# named in build/coverage/left; more of it than the bounds below fails. Usage: tests/coverage.sh
# Counted by clang 19 as the source has them: gcov's branches are the compiler's, thousands of them
# copies that unrolling and inlining made. A condition is reached when it alone was seen to decide
# (MC/DC). Rooms 5 and 6 are read once per instruction set and count once: where scalar,
# scalar-fma, sse2 or avx2 had it. avx512's own words count only on a machine that runs them; what
# is not compiled on x86-64 Linux (NEON, WASM, MSVC) counts nowhere.
# Debian: clang-19 llvm-19 libclang-rt-19-dev libomp-19-dev qemu-user-static python3
cd "$(dirname "$0")/.." || exit 1
top=$PWD own=$PWD/build/coverage
linked="order plan window attend kernels fuzz_calls"
inside="tools state memory feedback threads"           # they look inside: built with the header
clang="clang-19 -std=c99 -O1 -w -fopenmp -fprofile-instr-generate -I$top -I$top/examples -pthread"
clang="$clang -fprofile-list=only"                     # of the header's code: counting takes long
count="-fcoverage-mapping -fcoverage-mcdc -DLONGCTX_ASSERT(x)=((void)0) unit.c"

if [ "$1" = --test ]; then                             # one of them, built and run
  cd "$own" || exit 1
  case " $inside " in
    *" $2 "*)
      case $2 in
        tools) with=-O0 ;;                             # fast: without much to optimise
        threads) with=-fprofile-update=atomic ;;       # lose no count
        *) with=-DLONGCTX_NO_SIMD ;;
      esac
      $clang $with $count -DTEST="\"$top/tests/$2.c\"" -o "$2" -lm ;;
    *) $clang -DT_LINKED "$top/tests/$2.c" longctx.o -o "$2" -lm ;;
  esac || exit 255                                     # which stops xargs
  [ "$2" = threads ] || export OMP_NUM_THREADS=1       # those would lose counts
  LLVM_PROFILE_FILE=$2.raw "./$2" > "$2.log" 2>&1 && exit 0
  tail -n 5 "$2.log"
  exit 255
fi
. tests/rows.sh

measure() {
  cd "$own" || return 1
  # one name for the file of every program: by it the counts of private functions are added up
  echo '#include TEST' > unit.c
  printf '[clang]\ndefault:skip\nsource:*longctx.h=allow\n' > only
  $clang $count -DLONGCTX_IMPLEMENTATION -DTEST='"longctx.h"' -c -o longctx.o || return 1
  printf '%s\n' $linked $inside |
    xargs -n 1 -P "$rows_jobs" "$top/tests/coverage.sh" --test || return 1
  # a processor that knows no leaf 7 of cpuid, a system that keeps nothing
  LLVM_PROFILE_FILE=old.raw qemu-x86_64-static -cpu max,level=5,-xsave ./order || return 1
  llvm-profdata-19 merge -o profile ./*.raw &&
    llvm-cov-19 export -instr-profile=profile ./order > export.json &&
    python3 "$top/tests/coverage.py" export.json "$top/longctx.h" left > sums
}

tools="clang-19 llvm-profdata-19 llvm-cov-19 python3 qemu-x86_64-static"
rm -rf "$own" && mkdir -p "$own" || exit 1
have="$tools"
echo 'int main(void) { return 0; }' > "$own/try.c"
clang-19 -fopenmp -fprofile-instr-generate "$own/try.c" -o "$own/try" 2> "$own/log" ||
  tools="$tools libomp-19-dev,libclang-rt-19-dev"
grep -q avx2 /proc/cpuinfo || tools="$tools avx2"
for tool in $tools; do command -v "$tool" > "$own/log" || have=; done
[ -z "$have" ] || (measure) > "$own/log" 2>&1 || cat "$own/log"

reached() {                                            # reached KIND NAME BOUND
  row "$2 of longctx.h" "$tools" "
    grep ': $1' build/coverage/left
    awk '\$1 == \"$1\" { seen = 1; left = \$3 - \$2
        printf \"%d of %d reached, %.1f %%\n\", \$2, \$3, 100 * \$2 / \$3 }
      END { exit left > $3 || !seen }' build/coverage/sums"
}

reached line "lines" 0
reached branch "branches" 0
reached condition "conditions, MC/DC," 0

rows_end
