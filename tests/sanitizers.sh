#!/bin/sh
# sanitizers.sh: the tests once more, watched. Usage: tests/sanitizers.sh
cd "$(dirname "$0")/.." || exit 1
. tests/rows.sh
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1

watched() {                                            # watched NAME COMPILER FLAGS TEST [ARGUMENT]
  row "$4 under $1, $2" "$2" "$2 -std=c99 -O1 -g $3 -fno-sanitize-recover=all -I. -Iexamples \
    -pthread -o \$own/test tests/$4.c -lm && \$own/test $5 > \$own/log 2>&1 || {
      cat \$own/log; exit 1; }; tail -n 1 \$own/log"
}

asan="-fsanitize=address,undefined"
one="-DLONGCTX_NO_DISPATCH -march=native" # one instruction set: all take clang minutes
for test in order state; do
  watched "ASan and UBSan" clang "$asan" "$test"
done
for test in plan engine gguf memory feedback; do
  watched "ASan and UBSan" clang "$asan $one" "$test"
done
watched "ASan and UBSan" gcc "$asan" state              # the others take minutes: once
for test in plan order engine gguf; do
  watched "ASan and UBSan" gcc "$asan $one" "$test"
done
for test in order memory feedback; do
  watched MSan clang "-fsanitize=memory $one" "$test"
done
# sse2: clang's TSan does not see loads of 32 bytes
watched TSan clang "-fsanitize=thread -DLONGCTX_NO_DISPATCH" threads

row "order under valgrind" "cc valgrind" "
  cc -std=c99 -O2 -pthread -o \$own/test tests/order.c -lm &&
  valgrind -q --error-exitcode=9 \$own/test"

rows_end
