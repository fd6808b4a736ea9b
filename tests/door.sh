#!/bin/sh
# door.sh: the header through every compiler found here, silent under strict flags, at every level.
# Usage: tests/door.sh        CCS="gcc clang" CXXS="g++" tests/door.sh narrows the choice.
cd "$(dirname "$0")/door" || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
warn="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wundef -Wdouble-promotion"
warn="$warn -Werror"
widest=
[ "$(uname -m)" != x86_64 ] ||
  widest="-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512vnni"
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
passed=0 failed=0 skipped=0 started=0

# ---- one try: a shell command in the background, its verdict in a file --------------------------

try() {                                                # try NAME COMMAND
  started=$((started + 1))
  id=$(printf '%04d' "$started")
  echo "$1" > "$work/$id.name"
  (sh -c "$2" > "$work/$id.log" 2>&1; echo $? > "$work/$id.rc") &
  [ $((started % jobs)) -ne 0 ] || wait
}

settle() {                                             # count the verdicts
  wait
  for name in "$work"/*.name; do
    id=${name%.name}
    if [ "$(cat "$id.rc" 2>/dev/null)" = 0 ]; then
      passed=$((passed + 1))
    else
      failed=$((failed + 1))
      echo "failed: $(cat "$name")"
      head -n 12 "$id.log"
    fi
  done
}

skip() {
  skipped=$((skipped + 1))
  echo "skipped: $1"
}

build() {                                              # build NAME COMPILER FLAGS FILES: and run
  exe="$work/exe$started"
  try "$1" "$2 $3 -o $exe $4 -lm && $exe; rc=\$?; rm -f $exe; exit \$rc"
}

# ---- compilers -----------------------------------------------------------------------------------

levels() {                                             # every level of the usual compilers,
  case "$1" in                                         # the outer ones of their siblings
    gcc | g++ | clang) echo "0 1 2 3" ;;
    *) echo "0 3" ;;
  esac
}

c_levels() {                                           # everything in one file
  for o in $(levels "$1"); do build "$1 -O$o c99.c" "$1" "-std=c99 $warn -O$o" c99.c; done
}

c_ways() {                                             # every way to include it
  for file in twice nostdio nosimd nodispatch hostile; do
    build "$1 $file.c" "$1" "-std=c99 $warn -O0" $file.c
  done
  build "$1 static_a.c static_b.c" "$1" "-std=c99 $warn -O0" "static_a.c static_b.c"
  build "$1 impl.c decl.c" "$1" "-std=c99 $warn -O0" "impl.c decl.c"
  mkdir -p "$work/other"
  cp ../../longctx.h "$work/other/attention.h"
  { echo '#define LONGCTX_IMPLEMENTATION'; cat ../../longctx.h; } > "$work/pasted.c"
  try "$1 pasted into another file, at the widest" "$1 -std=c99 -O0 $widest -DLONGCTX_NO_DISPATCH \
    -c -o $work/pasted.$1.o $work/pasted.c"            # it cannot include itself there
  build "$1 renamed.c" "$1" "-std=c99 $warn -O0 -I$work/other" renamed.c
}

fast_math() {                                          # refused, then allowed
  try "$1 -ffast-math refused, with the way out" \
    "! $1 -std=c99 -O1 -ffast-math -c -o $work/ff.$1.o fastmath.c > $work/ff.$1 2>&1 &&
     grep -q LONGCTX_ALLOW_FAST_MATH $work/ff.$1"
  case $1 in clang*) build "$1 loose math that has no macro" "$1" \
    "-std=c99 -O2 -funsafe-math-optimizations" fastmath.c ;; esac
  build "$1 -Ofast allowed" "$1" "-std=c99 -O3 -ffast-math -DLONGCTX_ALLOW_FAST_MATH" fastmath.c
}

cpp_levels() {
  for o in $(levels "$1"); do build "$1 -O$o cpp11.cpp" "$1" "-std=c++11 $warn -O$o" cpp11.cpp; done
}

for cc in ${CCS:-gcc clang clang-19 tcc}; do
  if ! command -v "$cc" > /dev/null; then skip "$cc"; continue; fi
  if [ "$cc" = tcc ]; then                             # no such levels, and few of the warnings
    build "tcc c99.c" tcc "-Wall -Werror" c99.c
    build "tcc twice.c" tcc "-Wall -Werror" twice.c
    continue
  fi
  c_levels "$cc"
  c_ways "$cc"
  fast_math "$cc"
done

for cxx in ${CXXS:-g++ clang++ clang++-19}; do
  if ! command -v "$cxx" > /dev/null; then skip "$cxx"; continue; fi
  cpp_levels "$cxx"
done

if command -v gcc > /dev/null && command -v g++ > /dev/null; then
  try "gcc impl.c with g++ decl.cpp" "gcc -std=c99 -O0 -c -o $work/impl.o impl.c &&
    g++ -std=c++11 $warn -o $work/mixed decl.cpp $work/impl.o && $work/mixed"
else
  skip "C with C++"
fi

# ---- what the object file says -------------------------------------------------------------------

libc="memcpy|memmove|memset|memcmp|bcmp"
files="fread|fwrite|fseek|fseeko|ftell|ftello|fseeko64|ftello64|fgetpos|fsetpos|fflush|ferror|feof"

object() {                                             # object CC: imports, globals, macros
  flags="-std=c99 -O2 -fno-pic -fno-stack-protector -U_FORTIFY_SOURCE"
  try "$1 imports nothing but memory and files" "$1 $flags -c -o $work/$1.o impl.c &&
    nm -u $work/$1.o | awk '{ print \$NF }' | sort > $work/$1.u && cat $work/$1.u &&
    ! grep -Evq '^($libc|$files)\$' $work/$1.u"
  try "$1 imports no files without stdio" "$1 $flags -DLONGCTX_NO_STDIO -c -o $work/$1.n.o impl.c &&
    nm -u $work/$1.n.o | awk '{ print \$NF }' > $work/$1.nu && cat $work/$1.nu &&
    ! grep -Evq '^($libc)\$' $work/$1.nu"
  if echo 'int main(void) { return 0; }' | $1 -fopenmp -x c - -o "$work/omp" 2> "$work/omp.log"; then
    try "$1 without OpenMP, though compiled with it" "$1 -std=c99 -O1 -fopenmp \
      -DLONGCTX_NO_OPENMP -c -o $work/$1.omp.o impl.c &&
      nm -u $work/$1.omp.o > $work/$1.omp && ! grep -Ei 'omp|kmp' $work/$1.omp"
  else skip "OpenMP of $1"; fi
  try "$1 has no writable globals" "$1 $flags -c -o $work/$1.g.o impl.c &&
    nm $work/$1.g.o | awk '\$2 ~ /^[bBdDcCgGsS]\$/' > $work/$1.g && cat $work/$1.g &&
    ! grep -q . $work/$1.g"
  try "$1 exports longctx_ names only" "$1 $flags -c -o $work/$1.x.o impl.c &&
    nm -g --defined-only $work/$1.x.o | awk '{ print \$NF }' > $work/$1.x && cat $work/$1.x &&
    ! grep -Ev '^longctx_' $work/$1.x"
  try "$1 leaves no macro but LONGCTX_ behind" "$1 -std=c99 -dM -E impl.c | grep -E '^#define LCX_'
    test \$? -eq 1"
}

if command -v nm > /dev/null; then
  for cc in ${CCS:-gcc clang}; do
    if [ "$cc" = tcc ] || ! command -v "$cc" > /dev/null; then skip "nm of $cc"; continue; fi
    object "$cc"
  done
else
  skip "nm"
fi

settle
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
