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
at_least memory_linear facts 8192 4 0.75
at_least memory_delta facts 2048 1 0.9
at_least block_window_m1 passkey 8192 1 -0.05
at_least feedback_m0 passkey 512 1 0.9
at_least feedback_m0 passkey 8192 1 0.9
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
