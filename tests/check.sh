#!/bin/sh
# check.sh: the long list. Sanitizers, other compilers and levels, another architecture emulated.
# Usage: tests/check.sh        a tool that is missing is skipped by name.
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0 skipped=0

have() {
  for tool; do
    command -v "$tool" > "$work/which" && continue
    skipped=$((skipped + 1))
    echo "skipped: $name (no $tool)"
    return 1
  done
}

run() {                                                # run NAME COMMAND
  if sh -c "$2" > "$work/log" 2>&1; then
    passed=$((passed + 1))
    echo "passed: $1 ($(tail -n 1 "$work/log"))"
  else
    failed=$((failed + 1))
    echo "failed: $1"
    tail -n 25 "$work/log"
  fi
}

script() {                                             # a script with its own closing line
  log=$("$1" 2>&1)
  printf '%s\n' "$log" | sed '$d'
  last=$(printf '%s\n' "$log" | tail -n 1)
  echo "$(basename "$1"): $last"
  set -- $(printf '%s\n' "$last" | sed 's/[^0-9 ]//g')
  passed=$((passed + ${1:-0})) failed=$((failed + ${2:-1})) skipped=$((skipped + ${3:-0}))
}

# ---- the same bits from other compilers, levels and machines -------------------------------------

script tests/golden.sh

name="NEON and scalar on AArch64, emulated"
if have aarch64-linux-gnu-gcc qemu-aarch64-static; then
  for level in -O0 -O2; do
    run "golden hashes on AArch64 $level (emulated)" \
      "aarch64-linux-gnu-gcc -std=c99 $level -static -o $work/arm tests/golden.c -lm &&
       qemu-aarch64-static $work/arm"
  done
  run "stored types on AArch64 (emulated)" \
    "aarch64-linux-gnu-gcc -std=c99 -O2 -static -pthread -o $work/arm tests/order.c -lm &&
     qemu-aarch64-static $work/arm"
fi

name="AVX2 and lower, emulated"
if have qemu-x86_64-static; then
  run "golden hashes on a Haswell (emulated)" \
    "cc -std=c99 -O2 -static -o $work/x86 tests/golden.c -lm &&
     qemu-x86_64-static -cpu Haswell $work/x86"
  run "golden hashes on a Nehalem (emulated)" "qemu-x86_64-static -cpu Nehalem $work/x86"
fi

name="WASM SIMD in node"
if have clang-19 node; then
  cat > "$work/run.mjs" << 'END'
import { WASI } from 'node:wasi';
import fs from 'node:fs';
const wasi = new WASI({ version: 'preview1', args: ['golden'], returnOnExit: true });
const code = await WebAssembly.compile(fs.readFileSync(process.argv[2]));
process.exitCode = wasi.start(await WebAssembly.instantiate(code, wasi.getImportObject()));
END
  for flags in "-msimd128" ""; do
    run "golden hashes on WASM in node $flags" \
      "clang-19 --target=wasm32-wasi -O2 $flags -w -o $work/golden.wasm tests/golden.c -lm &&
       node --no-warnings $work/run.mjs $work/golden.wasm"
  done
fi

# ---- sanitizers ----------------------------------------------------------------------------------

asan="-fsanitize=address,undefined -fno-sanitize-recover=all -g"
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
for cc in gcc clang; do
  name="ASan and UBSan with $cc"
  have $cc || continue
  tests="plan order state engine gguf"
  [ "$cc" = gcc ] || tests="$tests memory feedback" # minutes each: once
  for test in $tests; do
    run "$test under ASan and UBSan, $cc" \
      "$cc -std=c99 -O1 $asan -I. -Iexamples -pthread -o $work/asan tests/$test.c -lm && $work/asan"
  done
done

name="MSan"
if have clang; then
  run "order under MSan" "clang -std=c99 -O1 -g -fsanitize=memory -I. -pthread \
    -o $work/msan tests/order.c -lm && $work/msan"
  run "memory under MSan" "clang -std=c99 -O1 -g -fsanitize=memory -I. \
    -o $work/msan tests/memory.c -lm && $work/msan"
  run "feedback under MSan" "clang -std=c99 -O1 -g -fsanitize=memory -I. \
    -o $work/msan tests/feedback.c -lm && $work/msan"
  run "threads under TSan" "clang -std=c99 -O1 -g -fsanitize=thread -I. -pthread \
    -o $work/tsan tests/threads.c -lm && $work/tsan quick"
fi

run "10^8 tokens into memory" "LONG=1 build/tests/memory"

name="valgrind"
if have valgrind; then
  run "order under valgrind" "valgrind -q --error-exitcode=9 build/tests/order"
fi

script tests/instructions.sh
script tests/fuzz.sh

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
