#!/bin/sh
# nth.sh: runs a program again and again; each time one more of its calls goes well before one
# fails (tests/fail.c). It must end by itself: with a code that is not 0, or with all it has to say.
# Usage: tests/nth.sh FAIL.so PROGRAM ARGUMENT...      in a folder where the program may write
fail=$1
shift
most=${MOST:-100}                                      # of each kind
runs=0 refused=0 program=$(basename "$1")

whole() {                                              # did it say what it says undisturbed?
  case "$program" in
    02_stream) [ "$(wc -l < nth.got)" -eq "$(wc -l < nth.want)" ] ;;  # it prints times
    *) cmp -s nth.got nth.want ;;
  esac
}

"$@" > nth.want 2> nth.said || exit 1
for kind in malloc calloc realloc fopen fread fwrite fsync rename; do
  n=0
  while [ $((n += 1)) -le "$most" ]; do
    rm -f nth.mark
    timeout 60 env FAIL="$kind $n" FAIL_MARK=nth.mark LD_PRELOAD="$fail" "$@" > nth.got 2> nth.said
    code=$?
    [ -f nth.mark ] || break
    runs=$((runs + 1))
    if [ "$code" -ge 124 ]; then
      echo "$kind $n of $1: ended with code $code"
      exit 1
    elif [ "$code" -ne 0 ]; then
      refused=$((refused + 1))
    elif ! whole; then
      echo "$kind $n of $1: code 0, but the output is not whole"
      exit 1
    fi
  done
done
echo "$runs failing calls, $refused ended it with a code, none with a crash"
[ "$runs" -gt 0 ]
