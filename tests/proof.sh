#!/bin/sh
# proof.sh: Frama-C's EVA over tests/proof.c, whose head says what 0 alarms means: desc check, sizes
# and layout, hostile blocks and state files, ring arithmetic; scalar code, 64 bits. Then bugs are
# put into a copy of longctx.h, each a check left out, and EVA must see them. Usage: tests/proof.sh
cd "$(dirname "$0")/.." || exit 1
. tests/rows.sh

# EVA joins what a function returns. Of these it keeps sound and unsound apart; of a file on its way
# in, states by the stream's error, which an annotation asks for that is put into the copy.
checks=$(echo lcx_check_wish lcx_check_layer lcx_check_all lcx_check_freqs lcx_resolve lcx_layout \
  lcx_sound_wish lcx_sound_position lcx_sound_start lcx_read_head lcx_adopt lcx_read_new |
  sed 's/\([a-z_]*\)/\1:0/g; s/ /,/g')
apart="-eva-split-return auto -eva-split-return-function $checks"
fields="$apart -eva-auto-loop-unroll 8 -eva-slevel-function lcx_check_wish:60,lcx_check_layer:60"
fields="$fields,lcx_check_all:100,lcx_resolve:60,lcx_sound_wish:100,longctx_check:20"
fields="$fields,longctx_size:20,longctx_measure:20"
shapes="$apart -eva-slevel 200"
files="$shapes -eva-interprocedural-splits"

cat > "$work/apart.awk" << 'END'
/^(static|LONGCTX_API) / { stream = load = 0 }
/lcx_stream \*s[,)]/     { stream = 1 }
/int lcx_read_new/       { load = 1 }
{ print }
stream && /^{/           { print "  //@ dynamic_split s->error;"; stream = 0 }
load && /^  int code;/   { print "  //@ dynamic_split s.error;"; load = 0 }
END

proof() {                                              # proof NAME FUNCTION OPTIONS [SED]
  wanted=-eq split=cat
  [ -z "$4" ] || wanted=-gt
  [ "$2" != proof_load ] || split="awk -f $work/apart.awk"
  row "$1" frama-c "
    sed '$4' longctx.h | $split > \$own/longctx.h
    cp tests/proof.c \$own # beside the copy: Frama-C looks in this folder before -I
    frama-c -eva -main $2 -machdep gcc_x86_64 -warn-special-float none -eva-no-show-progress \
      -eva-msg-key=-final-states $3 \$own/proof.c > \$own/said 2>&1 ||
      { tail -n 20 \$own/said; exit 1; }
    alarms=\$(grep -c eva:alarm \$own/said)
    grep -A 2 eva:alarm \$own/said
    echo \"\$alarms alarms,\" \$(sed -n 's/^ *\\([0-9]* functions\\) analyzed .*/\\1,/p
      s/.*functions, \\([0-9]* statements\\) reached.*/\\1/p' \$own/said)
    [ \$alarms $wanted 0 ]"
}

load() {                                               # load SHAPE POSITION MORE EARLY
  proof "load: desc $1 at position $2, says $3 bytes more, ends $4 early, else any bytes" \
    proof_load "$files -cpp-extra-args='-DSHAPE=$1 -DPOSITION=$2 -DMORE=$3 -DEARLY=$4'"
}

proof "any desc, layers alike"                     proof_desc   "$fields"
proof "any desc, two layers of their own"          proof_layers "$fields"
proof "any bytes as the desc in a block or file"   proof_wish   "$fields"
proof "open: six descs, else any bytes"            proof_open   "$shapes"
proof "ring: any position, window, block, sinks"   proof_ring   "$fields"

load 0 2 0 0

proof "seen: n_kv_heads may be 0"                  proof_desc   "$fields" \
  '/LCX_IN(w->n_kv_heads, 1, 65536),/s/1/0/'
proof "seen: a read may be longer than its buffer" proof_load \
  "$files -cpp-extra-args='-DSHAPE=0 -DPOSITION=2 -DMORE=300 -DEARLY=0'" \
  's/s->left < sizeof s->buf ? (unsigned)s->left : (unsigned)sizeof s->buf/(unsigned)s->left/'

rows_end
