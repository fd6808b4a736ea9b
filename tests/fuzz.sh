#!/bin/sh
# fuzz.sh: the fuzz targets under libFuzzer, ASan and UBSan, for SECONDS each (60).
# Usage: tests/fuzz.sh [SECONDS]        inputs that fail stay in build/fuzz
cd "$(dirname "$0")/.." || exit 1
. tests/rows.sh
export seconds="${1:-60}"
mkdir -p build/fuzz

echo 'int LLVMFuzzerTestOneInput(const char *x, long n) { return n < 0 && x; }' > "$work/try.c"
compiler=no-libFuzzer
for try in clang-19 clang-16 clang; do
  if "$try" -w -fsanitize=fuzzer "$work/try.c" -o "$work/try" 2> "$work/log"; then
    compiler=$try
    break
  fi
done

fuzz() {                                               # fuzz NAME LONGEST SEEDS
  row "$1" "$compiler" "$compiler -g -O1 -std=c99 -DFUZZER -fsanitize=fuzzer,address,undefined \
      -fno-sanitize-recover=undefined -I. -Iexamples tests/$1.c -o \$own/$1 -lm &&
    mkdir \$own/corpus && $3 &&
    \$own/$1 -max_total_time=\$seconds -max_len=$2 -timeout=30 -artifact_prefix=build/fuzz/$1- \
      \$own/corpus > \$own/out 2>&1 || { cat \$own/out; exit 1; }
    sed -n \
      's/^Done \\([0-9]*\\) runs in \\([0-9]*\\) .*/\\1 inputs in \\2 s, no report/p' \$own/out"
}

seeds() {                                              # by a test that writes them to a folder
  echo "cc -std=c99 -O1 -I. -Iexamples tests/$1.c -o \$own/seeds -pthread -lm &&
    \$own/seeds \$own/corpus > \$own/log"
}

fuzz fuzz_state 20000 "$(seeds fuzz_state)"
fuzz fuzz_calls 1024  "true"
fuzz fuzz_gguf  20000 "$(seeds gguf)"

rows_end
