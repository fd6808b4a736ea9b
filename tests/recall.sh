#!/bin/sh
# recall.sh: the shipped memories remember, and windows do not: short texts, a few seconds.
# What the models reach at a million tokens is `make recall`.
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0

# at_least ARM TASK DISTANCE FACTS SHARE, all positions together; a negative share: at most that
at_least() {
  result=$(awk -F, -v arm="$1" -v task="$2" -v distance="$3" -v facts="$4" -v share="$5" '
    $1 == arm && $2 == task && $3 == distance && $5 == facts { n += $6; right += $7 }
    END { ok = n > 0 && (share < 0 ? right / n <= -share : right / n >= share)
          print ok ? "passed" : "failed", right + 0, "of", n + 0 }' "$work/recall.csv")
  echo "${result%% *}: $1, $2 at $3 tokens, $4 held: ${result#* } right"
  case $result in passed*) passed=$((passed + 1)) ;; *) failed=$((failed + 1)) ;; esac
}

if ! build/bench/recall -d 8192 -n 4 -l 0 -o "$work/recall.csv" > "$work/log" 2>&1; then
  cat "$work/log"
  echo "0 passed, 1 failed"
  exit 1
fi
at_least window passkey 8192 1 -0.05
at_least window passkey_digits 8192 1 -0.3
at_least memory_linear passkey 2048 1 0.9
at_least memory_linear passkey 8192 1 0.9
at_least memory_delta passkey 8192 1 0.9
at_least window facts 2048 1 -0.05
at_least memory_linear facts 2048 1 0.9
at_least memory_linear facts 8192 16 0.85
at_least memory_delta facts 2048 1 0.9
at_least memory_delta facts 8192 16 0.85
at_least block_window_m1 passkey 8192 1 -0.05
at_least feedback_m0 passkey 512 1 0.9
at_least feedback_m0 passkey 8192 1 0.9

# The demo asks the same models, twenty times on the way.
demo=recall_window,recall_sinks,memory_linear,memory_delta,block_window_m1,feedback_m0
echo 'On Monday it rained.' |
  build/02_stream --recall -a $demo -n 6000 --csv > "$work/demo.csv" 2> "$work/log" || cat "$work/log"
answers() { # ARM all|none
  result=$(awk -F, -v arm="$1" -v want="$2" '
    $1 == arm { ok = $9 >= 19 && $10 == (want == "all" ? $9 : 0)
                print ok ? "passed" : "failed", $10, "of", $9 }' "$work/demo.csv")
  echo "${result:-failed}: the demo's $1"
  case $result in passed*) passed=$((passed + 1)) ;; *) failed=$((failed + 1)) ;; esac
}
for arm in recall_window recall_sinks block_window_m1; do answers $arm none; done
for arm in memory_linear memory_delta feedback_m0; do answers $arm all; done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
