#!/bin/sh
# long.sh: runs that are long enough to show what short ones hide. Usage: tests/long.sh [full]
cd "$(dirname "$0")/.." || exit 1
full=$1
. tests/rows.sh

row "10^8 tokens into memory" cc "
  cc -std=c99 -O2 -I. -o \$own/memory tests/memory.c -lm && LONG=1 \$own/memory > \$own/log ||
    { cat \$own/log; exit 1; }; tail -n 1 \$own/log"

soak() {                                               # soak NAME TOKENS [START]
  row "$1" cc "cc -std=c99 -O2 -I. -o \$own/soak tests/soak.c -lm && \$own/soak $2 $3 > \$own/log ||
    { cat \$own/log; exit 1; }; grep tokens \$own/log"
}

soak "10^7 tokens" 10000000
soak "across position 2^31" 100000 2147433648
soak "across position 2^32" 100000 4294917296
soak "across position 2^53" 100000 9007199254690992
soak "up to the last position, 2^62" 100000 4611686018427287904
[ -z "$full" ] || soak "10^9 tokens" 1000000000

[ -z "$full" ] || row "10^6 programs of calls against a model" cc "
  cc -std=c99 -O2 -I. -o \$own/calls tests/fuzz_calls.c -lm && \$own/calls 1000000 7 > \$own/log ||
    { cat \$own/log; exit 1; }; grep programs \$own/log"

rows_end
