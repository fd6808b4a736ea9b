#!/bin/sh
# compilers.sh: one table of golden hashes from every compiler, standard and level, not one warning
# on the way; and what must be refused is refused. Usage: tests/compilers.sh
cd "$(dirname "$0")/.." || exit 1
. tests/rows.sh

strict="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wdouble-promotion \
  -Wcast-align -Wundef -Werror"

golden() {                                             # golden COMPILER FLAGS
  warnings=$strict
  case "$1" in
    tcc) warnings="-Wall -w" ;;                        # it knows no more
    *++*) ;;
    *) warnings="$warnings -Wstrict-prototypes" ;;
  esac
  # where the processor has AVX10, clang 19 warns of its own -march=native, even in an empty file
  case "$1 $2" in
    clang*-march=native*)
      echo 'extern int x;' | $1 $2 -Werror -fsyntax-only -x c - 2>&1 |
        grep -q invalid-feature-combination && warnings="$warnings -Wno-invalid-feature-combination" ;;
  esac
  row "$1 $2" "$1" "$1 $2 $warnings -o \$own/golden tests/golden.c -lm &&
    \$own/golden > \$own/log && tail -n 1 \$own/log"
}

golden gcc-11     "-std=c99 -O2"
golden gcc-11     "-std=gnu17 -O3 -march=native"
golden gcc-12     "-std=c99 -O0"
golden gcc-12     "-std=c11 -O1"
golden gcc-12     "-std=c17 -O2"
golden gcc-12     "-std=gnu11 -O3 -march=native"
golden g++-12     "-x c++ -std=c++11 -O2"
golden g++-12     "-x c++ -std=gnu++17 -O2 -march=native"
golden g++-12     "-x c++ -std=c++11 -O2 -march=native -DLONGCTX_NO_DISPATCH"
golden g++-12     "-x c++ -std=c++20 -O3"
golden clang-14   "-std=c99 -O2"
golden clang-14   "-std=gnu11 -O3 -march=native -ffp-contract=fast"
golden clang++-14 "-x c++ -std=c++11 -O1"
golden clang-16   "-std=c11 -O3"
golden clang-16   "-std=c17 -O0"
golden clang++-16 "-x c++ -std=c++17 -O2"
golden clang-19   "-std=c99 -O3 -march=native"
golden clang-19   "-std=c17 -O2 -ffp-contract=fast"
golden clang-14   "-std=c99 -O3 -freciprocal-math"
golden clang-19   "-std=c99 -O3 -funsafe-math-optimizations"
golden clang++-19 "-x c++ -std=c++20 -O2"
golden musl-gcc   "-std=c99 -O2 -static"
golden tcc        "-std=c99"

refused() {                                            # refused COMPILER FLAGS WORDS
  row "$1 $2 is refused" "$1" "! $1 -std=c99 $2 -c -o \$own/o tests/golden.c 2> \$own/log &&
    grep -q -e '$3' \$own/log && echo refused"
}

refused gcc-12   "-Ofast"                 "ends its promise"
refused gcc-12   "-O2 -ffast-math"        "ends its promise"
refused clang-19 "-Ofast -w"              "ends its promise"
refused gcc-12   "-O2 -ffinite-math-only" "ends its promise"
refused gcc-12   "-O2 -freciprocal-math"  "ends its promise"
refused gcc-12   "-m32 -mfpmath=387"      "-msse2 -mfpmath=sse"

# Loose arithmetic that was asked for: silent, and finite numbers come out right.
loose() {                                              # loose COMPILER FLAGS
  row "$1 $2, opted in" "$1" "$1 -std=c99 $2 $strict -DLONGCTX_ALLOW_FAST_MATH -I. \
    -o \$own/hello examples/01_hello.c && \$own/hello > \$own/got &&
    sed -n 's/^  *//; /expected/,/^\*\//p' examples/01_hello.c | sed '1d; \$d' > \$own/want &&
    sed 's/^ *//' \$own/got | diff - \$own/want && echo 'numbers as expected'"
}

loose gcc-12   "-Ofast"
loose clang-19 "-O3 -ffast-math"

only() {                                               # only COMPILER FLAGS SET
  row "$1 $2 -DLONGCTX_NO_DISPATCH is $3" "$1 nm" "echo '#include \"longctx.h\"' > \$own/header.c &&
    $1 -std=c99 -O1 $2 -I. -DLONGCTX_NO_DISPATCH -DLONGCTX_IMPLEMENTATION -c -o \$own/header.o \
      \$own/header.c && nm \$own/header.o | sed -n 's/.* lcx_kernels_//p' > \$own/sets &&
    echo $3 | diff - \$own/sets && echo yes"
}

only gcc-12   ""                       sse2
only gcc-12   "-mavx2 -mfma"           avx2            # no processor has it without F16C
only clang-14 "-mavx2 -mfma"           avx2
only gcc-12   "-march=skylake-avx512"  avx2            # no VNNI
only gcc-12   "-march=icelake-server"  avx512

row "text and CPU time of compiling, every x86 set, gcc-12 -O2" "gcc-12 size" "
  echo '#include \"longctx.h\"' > \$own/header.c &&
  gcc-12 -std=c99 -O2 -I. -DLONGCTX_IMPLEMENTATION -c -o \$own/header.o \$own/header.c &&
  times > \$own/times && size \$own/header.o > \$own/size &&
  text=\$(awk 'NR == 2 { print \$1 }' \$own/size) && [ \$text -le 208000 ] &&
  echo \"\$text bytes (61440 wanted),\" \\
    \"\$(awk 'NR == 2 { print \$1 }' \$own/times) (3 s wanted)\""

rows_end
