#!/bin/sh
# Trains the models of examples/models again, but feedback.bin, in DIR, and says how they do:
#     examples/train/train.sh DIR
# Needs a C compiler and Python 3 with PyTorch, NumPy and sentencepiece. The
# models come out the same to the bit only with the same versions of those.
set -eu
dir=${1:?usage: train.sh DIR}
here=$(dirname "$0")
python=${PYTHON:-python3}
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 # two trainings side by side, one core each

mkdir -p "$dir"
${CC:-cc} -std=c99 -O2 -o "$dir/story" "$here/story.c"
recall() { "$python" "$here/train_recall.py" "$@"; }
recall linear "$dir/memory_linear.bin" --near 0.25 --seconds 1100 --fade 400 &
memory=$!
recall linear "$dir/facts_linear.bin" --seconds 600 --fade 220
recall delta "$dir/facts_delta.bin" --source "$dir/facts_linear.bin" \
    --seconds 300 --fade 200 --rate 1e-3
wait "$memory"
recall delta "$dir/memory_delta.bin" --source "$dir/memory_linear.bin" --seconds 0
for rule in linear delta; do
    recall $rule "$dir/memory_$rule.bin" --measure --lengths 8192 --trials 8
    recall $rule "$dir/facts_$rule.bin" --measure --lengths --facts 1 4 16 64 --trials 8
done
"$python" "$here/train_story.py" data "$dir/story" "$dir"
"$python" "$here/train_story.py" model "$dir" story &
story=$!
"$python" "$here/train_story.py" model "$dir" control
wait "$story"

"$dir/story" 2 400000 > "$dir/heldout.txt" # seed 1 was trained on
for name in story control; do
    echo "$name"
    "$python" "$here/check_story.py" "$dir/$name.bin" "$dir/story.tok" "$dir/heldout.txt" 100000
done
