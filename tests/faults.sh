#!/bin/sh
# faults.sh: what the examples do when the disk is full, memory is short or they are killed.
# Usage: tests/faults.sh [KILLS]     200 by default
cd "$(dirname "$0")/.." || exit 1
kills=${1:-200}
. tests/rows.sh

wrap=
for call in fopen fwrite fflush fsync fclose rename fread fseek; do
  wrap="$wrap -Wl,--wrap=$call"
done
faults="cc -std=c99 -Wall -Wextra -O1 -I. -DLONGCTX_NO_DISPATCH $wrap -o \$own/faults \
  tests/faults.c -lm && cd \$own && ./faults"

row "kill -9 while it saves, 04_save_restore.c" cc "$faults kill $kills > log; code=\$?
  cat log; grep kills, log; exit \$code"
row "every nth call of save and restore fails" cc "$faults fail > log 2> said; code=\$?
  cat log; echo \$(grep -v passed log | paste -s -d, -); exit \$code"

row "no room on the disk, 04_save_restore.c" cc "
  cc -std=c99 -O1 -I. -DLONGCTX_NO_DISPATCH -o \$own/program examples/04_save_restore.c -lm &&
  cd \$own && echo old > 04_save_restore.state && ln -s /dev/full 04_save_restore.state.new &&
  ! ./program && [ \"\$(cat 04_save_restore.state)\" = old ] && echo 'refused, the old file stands'"

nth() {                                                # nth SOURCE ARGUMENTS
  row "every nth call of $1 fails" cc "root=\$PWD
    cc -std=c99 -O1 -I. -Iexamples -DLONGCTX_NO_DISPATCH -pthread -o \$own/${1##*/} \
      examples/$1.c -lm && cc -O1 -shared -fPIC -o \$own/fail.so tests/fail.c -ldl && cd \$own &&
    \$root/tests/nth.sh ./fail.so ./${1##*/} $2"
}

models=\$root/examples/models
nth 02_stream "-m $models/story.bin -t $models/story.tok -f \$root/README.md -n 40 -s 4 -w 60"
nth 03_llama2c/after "$models/story.bin $models/story.tok 12"
nth 04_save_restore
nth 05_threads
nth 07_feedback

rows_end
