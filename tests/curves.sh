#!/bin/sh
# curves.sh: bench/curves writes the columns it promises, our memory does not grow, the dense arm's
# does, chunks change no bit, and a run that was stopped goes on as if it had not been. bench/recompute
# computes what a context would hold.
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0

check() {                                              # check WHAT COMMAND...
  what=$1
  shift
  if "$@" > "$work/log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: $what"
    tail -n 5 "$work/log"
  fi
}

curves() {                                             # curves NAME OPTION...
  name=$1
  shift
  build/bench/curves -f "$work/story.txt" -n 3000 -s 4 -w 60 --recall --csv "$work/$name.csv" "$@" \
    > "$work/$name.out"
}

stopped() { curves "$@"; [ $? -eq 130 ]; }             # as after ^C

header_is() { head -n 1 "$1" | grep -q "^$2"; }

# least squares of kv_bytes, from where the window is full: the slope of each arm
slopes() {
  awk -F, 'NR > 1 && ($1 == "dense" || $2 >= 64) { n[$1]++; x[$1] += $2; y[$1] += $6
             xx[$1] += $2 * $2; xy[$1] += $2 * $6 }
    END { for (a in n) print a, (n[a] * xy[a] - x[a] * y[a]) / (n[a] * xx[a] - x[a] * x[a]) }' "$1"
}

flat() { slopes "$1" | awk '$1 != "dense" && $2 != 0 { bad = 1 } END { exit bad || NR < 4 }'; }
grows() { slopes "$1" | awk '$1 == "dense" && $2 > 1000 { good = 1 } END { exit !good }'; }
losses() { awk -F, -v chunk="$2" '$18 == chunk { print $1, $2, $3, $4, $5 }' "$1"; }
same_losses() {                                        # same_losses CSV CHUNK CSV CHUNK
  losses "$1" "$2" > "$work/one" && losses "$3" "$4" > "$work/other" && [ -s "$work/one" ] &&
    cmp "$work/one" "$work/other"
}
arms() { [ "$(cut -d, -f1 "$1" | sort -u | grep -c "^sinks")" -eq "$2" ]; }
table_says_0() { awk -F' [|] ' '$1 ~ /^[|] (window|sinks)/ && NF == 15 { n++; bad += $7 != "0" }
  END { exit bad || n != 3 }' "$1"; }

agrees() {                                             # sums of sinks go in another order
  awk -F, '$1 == "window" { w = $5 == 0 } $1 == "sinks" { s = $5 < 1e-4 && $5 > -1e-4 }
    END { exit !(w && s) }' "$1"
}

build/story 7 12000 > "$work/story.txt"
check "a run of four arms, and one in chunks" curves whole --chunk 48
check "the CSV's columns" header_is "$work/whole.csv" \
  "arm,input_length,nll,ppl,overall_ppl,kv_bytes,state_bytes,rss_bytes,latency_s,p50_s,p999_s,"
check "kv_bytes of our arms do not grow" flat "$work/whole.csv"
check "kv_bytes of the dense arm do" grows "$work/whole.csv"
check "the table says so" table_says_0 "$work/whole.out"
check "chunks change no bit" same_losses "$work/whole.csv" 1 "$work/whole.csv" 48
check "a run that is stopped" stopped part --checkpoint "$work/c" --stop 1003
check "a run that goes on" curves part --resume "$work/c"
check "stopped or not: the same bits" same_losses "$work/whole.csv" 1 "$work/part.csv" 1
check "float16 keys and values" curves half --type f16 -a sinks -o json
check "a first run that ends earlier, and more arms" curves more --chunk 48 --singly 500 --more
check "there are eight arms with sinks" arms "$work/more.csv" 8
check "one of those alone" curves one --chunk 48 --more -a sinks_half
check "a checkpoint of another type is refused" sh -c "! build/bench/curves -f $work/story.txt \
  -n 3000 -s 4 -w 60 -a sinks --type f16 --csv $work/other.csv --resume $work/c"
model="-m examples/models/story.bin -t examples/models/story.tok"
check "re-computation" sh -c "build/bench/recompute $model -f $work/story.txt -n 600 -k 5 -l 1024 \
  -o $work/recompute.csv"
check "it is what a context reads that has room for all" agrees "$work/recompute.csv"
check "names that a tokenizer has no tokens for" sh -c "! build/bench/streameval $model \
  -o $work/streameval.csv 2> $work/why && grep -q 'begins as another name does' $work/why"
head -c 60000 "$work/c-sinks.state" > "$work/d-sinks.state"
check "a damaged checkpoint is refused" sh -c "! build/bench/curves -f $work/story.txt \
  -n 3000 -s 4 -w 60 -a sinks --csv $work/other.csv --resume $work/d"
if command -v gnuplot > "$work/which"; then
  mkdir -p "$work/bench/out"
  cp "$work/whole.csv" "$work/bench/out/curves.csv"
  check "the pictures" sh -c "cd $work && gnuplot $PWD/bench/curves.gp 2>&1 | tee gnuplot.log &&
    [ -s bench/out/curves.svg ] && [ -s bench/out/latency-dark.png ] && [ ! -s gnuplot.log ]"
  skipped=0
else
  echo "skipped: the pictures (no gnuplot)"
  skipped=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
