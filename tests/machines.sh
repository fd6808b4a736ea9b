#!/bin/sh
# machines.sh: the same table of golden hashes on other machines, and what else may differ there:
# byte order, the width of a pointer, a C library. Usage: tests/machines.sh [full]
# (emulated): all instructions pass through qemu; `full` runs all shapes there, not the small ones.
cd "$(dirname "$0")/.." || exit 1
shapes=small
[ "$1" != full ] || shapes=
. tests/rows.sh

c99="-std=c99 -Wall -Wextra -Wpedantic -Werror -I. -Iexamples"

# A program for another machine: its last line is the figure.
runs() {                                               # runs NAME TEST COMPILER FLAGS EMULATOR ARGS
  row "$1" "$3 ${5%% *}" "$3 $c99 $4 -o \$own/test.exe tests/$2.c -lm &&
    $5 \$own/test.exe $6 > \$own/log || { cat \$own/log; exit 1; }; tail -n 1 \$own/log"
}

golden() {                                             # golden NAME COMPILER FLAGS EMULATOR
  runs "golden hashes, $1" golden "$2" "$3" "$4" $shapes
}

# ---- x86 -----------------------------------------------------------------------------------------

m32="-m32 -msse2 -mfpmath=sse"
qemu86="qemu-x86_64-static -cpu"
golden "Haswell (emulated): avx2, scalar-fma"  gcc-12 "-O2 -static" "$qemu86 Haswell"
golden "Nehalem (emulated): sse2, scalar"      gcc-12 "-O2 -static" "$qemu86 Nehalem"
runs "tools, Haswell (emulated), an Intel"      tools gcc-12 "-O2 -static" "$qemu86 Haswell"
[ -f /usr/include/simde/x86/avx512.h ] && simde=env || simde=libsimde-dev
avx512="-O2 -mavx2 -mfma -mf16c -DLONGCTX_NO_DISPATCH -isystem tests/avx512 -pthread"
for test in golden tools kernels window attend memory feedback; do
  row "$test, AVX-512's intrinsics by SIMDe on AVX2" "gcc-12 $simde" "
    gcc-12 $c99 $avx512 -o \$own/test.exe tests/$test.c -lm &&
    if grep -q avx2 /proc/cpuinfo; then \$own/test.exe; else $qemu86 Haswell \$own/test.exe; fi \
      > \$own/log || { cat \$own/log; exit 1; }; tail -n 1 \$own/log"
done
grep -q avx512_vnni /proc/cpuinfo && wide=env || wide=avx512
msvc="-O2 -pthread -include tests/msvc/intrin.h -Itests/msvc -fms-extensions -ffp-contract=off"
msvc="$msvc -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512vnni -mxsave"
msvc="$msvc -Wno-unknown-pragmas -Wno-language-extension-token"
for test in golden tools kernels attend; do
  runs "$test, the branches for MSVC, by clang in its dialect" $test clang-19 "$msvc" $wide
done
golden "i686 with SSE2: 32 bits, native"       gcc-12 "-O2 $m32" env
golden "i686 with SSE2, clang -O3, native"     clang-19 "-O3 $m32" env
runs "every misuse, i686" order  gcc-12 "-O2 $m32 -pthread" env
runs "every desc, i686"   plan   gcc-12 "-O2 $m32" env
runs "hostile models, i686" gguf gcc-12 "-O2 $m32" env
row "golden hashes, Windows: mingw-w64 under wine" "x86_64-w64-mingw32-gcc /usr/lib/wine/wine64" \
  "x86_64-w64-mingw32-gcc $c99 -O2 -static -o \$own/test.exe tests/golden.c -lm &&
   export WINEDEBUG=-all WINEPREFIX=\$own/wine &&
   /usr/lib/wine/wine64 \$own/test.exe $shapes 2> \$own/wine.log | tr -d '\\r' > \$own/log
   grep failed: \$own/log; tail -n 1 \$own/log; grep -q ' 0 failed' \$own/log"

# ---- Arm, RISC-V, and the two that count from the other end --------------------------------------

arm64=aarch64-linux-gnu-gcc armhf=arm-linux-gnueabihf-gcc rv64=riscv64-linux-gnu-gcc
s390x=s390x-linux-gnu-gcc ppc64=powerpc64-linux-gnu-gcc
golden "AArch64 -O0 (emulated): neon, scalar-fma, scalar" $arm64 "-O0 -static" qemu-aarch64-static
golden "AArch64 -O2 (emulated)"                   $arm64 "-O2 -static" qemu-aarch64-static
golden "ARMv7 (emulated): 32 bits, scalar"        $armhf "-O2 -static" qemu-arm-static
golden "ARMv7 with VFPv4 (emulated): scalar-fma"  $armhf "-O2 -static -mfpu=neon-vfpv4" \
  qemu-arm-static
golden "RISC-V 64 (emulated): scalar-fma, scalar" $rv64 "-O2 -static" qemu-riscv64-static
wide="-O2 -static -fexcess-precision=fast"             # else s390x computes in double
golden "s390x (emulated): big endian" $s390x "$wide" qemu-s390x-static
golden "ppc64 (emulated): big endian" $ppc64 "-O2 -static" qemu-ppc64-static
runs "conversions, AArch64 (emulated)"  tools $arm64 "-O2 -static" qemu-aarch64-static
runs "conversions, s390x (emulated)"    tools  $s390x "$wide" qemu-s390x-static
runs "every misuse, AArch64 (emulated)" order $arm64 "-O2 -static -pthread" qemu-aarch64-static
runs "every misuse, s390x (emulated)"   order  $s390x "$wide -pthread" qemu-s390x-static
runs "model readers, s390x (emulated)"  engine $s390x "$wide" qemu-s390x-static
row "a state of the other byte order is refused, s390x (emulated)" \
  "gcc-12 $s390x qemu-s390x-static" "
   gcc-12 $c99 -O1 -o \$own/save tests/byte_order.c -lm &&
   $s390x $c99 $wide -o \$own/load tests/byte_order.c -lm &&
   \$own/save save \$own/state && \$own/save load \$own/state &&
   qemu-s390x-static \$own/load load \$own/state; [ \$? -eq 3 ] && echo 'refused: E_FORMAT'"

# ---- WebAssembly ---------------------------------------------------------------------------------

wasm() {                                               # wasm NAME TEST FLAGS
  row "$1, WebAssembly in node ${3:-without SIMD}" "clang-19 node" \
    "clang-19 --target=wasm32-wasi $c99 -Wno-deprecated-declarations -O2 $3 \
       -o \$own/test.wasm tests/$2.c -lm &&
     node --no-warnings tests/wasm.mjs \$own/test.wasm > \$own/log || { cat \$own/log; exit 1; }
     tail -n 1 \$own/log"
}

wasm "golden hashes" golden -msimd128
wasm "golden hashes" golden ""
wasm "conversions"   tools  -msimd128

# ---- Cortex-M, bare metal under qemu-system ------------------------------------------------------

bare() {                                               # bare NAME CPU MACHINE RAM SIZE FLASH_SIZE
  row "golden hashes, $1 (emulated)" "arm-none-eabi-gcc qemu-system-arm" \
    "arm-none-eabi-gcc $c99 -O2 $2 -mthumb --specs=picolibc.specs --oslib=semihost --crt0=hosted \
     -Wl,--defsym=__flash=0 -Wl,--defsym=__flash_size=$6 -Wl,--defsym=__ram=$4 \
     -Wl,--defsym=__ram_size=$5 -Wl,--defsym=__stack_size=0x4000 ${shapes:+-DGOLDEN_SMALL=1} \
     -o \$own/test.elf tests/golden.c -lm &&
     qemu-system-arm -M $3 -nographic -monitor none -serial none \
     -semihosting-config enable=on,target=native -kernel \$own/test.elf > \$own/log 2>&1 ||
     { cat \$own/log; exit 1; }; tail -n 1 \$own/log; grep -q ' 0 failed' \$own/log"
}

bare "Cortex-M4F" "-mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16" mps2-an386 \
  0x20000000 0x400000 0x400000
bare "Cortex-M7"  "-mcpu=cortex-m7 -mfloat-abi=hard -mfpu=fpv5-d16" mps2-an500 \
  0x20000000 0x400000 0x400000
bare "Cortex-M55" "-mcpu=cortex-m55 -mfloat-abi=hard" mps3-an547 0x21000000 0x200000 0x80000

rows_end
