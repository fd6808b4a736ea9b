#!/bin/sh
# bad_input.sh: how many bad inputs the tests try by name: descs, misuse, states, models. Each gets
# its own code or sentence, and nothing has changed after it. Usage: tests/bad_input.sh
cd "$(dirname "$0")/.." || exit 1
. tests/rows.sh

counts() {                                             # counts NAME LEAST TEST...
  name=$1 least=$2
  shift 2
  row "$name" cc "
    for test in $*; do
      cc -std=c99 -O1 -DLONGCTX_NO_DISPATCH -I. -Iexamples -pthread -o \$own/\$test \
        tests/\$test.c -lm && \$own/\$test > \$own/log || { cat \$own/log; exit 1; }
      sed -n 's/ bad inputs by name\$//p' \$own/log >> \$own/counted
    done
    awk '{ n += \$1 } END { print n \" by name; least $least\"; exit n < $least }' \$own/counted"
}

counts "descs"                    132 plan
counts "misuse: arguments, order" 126 order memory feedback
counts "states"                   359 state
counts "model files, tokenizers"  234 engine gguf

rows_end
