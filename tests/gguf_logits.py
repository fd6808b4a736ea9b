#!/usr/bin/env python3
"""gguf_logits.py: the examples' engine against independent implementations, on a GGUF file.

Usage: tests/gguf_logits.py MODEL.gguf TEXT [TOKENS] [CHUNK]

No part of `make test`: it needs `pip install numpy gguf llama-cpp-python` (what is missing is
skipped by name). The engine's logits and tokens come from build/gguf_dump, built here, those of
the others from
  numpy      a forward pass written here in float64 over the weights as the gguf package unpacks
             them: exact arithmetic on the same weights, so differences should be rounding
  llama.cpp  which rounds activations to 8 bits for quantised weights: differences are its own
Prints, for each: top-1 agreement, mean and largest KL divergence, largest difference of logits,
perplexity; and whether the tokens of the whole text are equal."""
import os
import subprocess
import sys

import numpy as np


def run_engine(model, text, tokens, chunk):
    os.makedirs("build", exist_ok=True)
    cc = os.environ.get("CC", "cc")
    subprocess.run([cc, "-std=c99", "-O3", "-march=native", "-I.", "-Iexamples",
                    "tests/gguf_dump.c", "-o", "build/gguf_dump", "-lm"], check=True)
    subprocess.run(["build/gguf_dump", model, text, str(tokens), str(chunk), "build/dump"],
                   check=True)
    ids = np.fromfile("build/dump.ids", dtype=np.int32)
    logits = np.fromfile("build/dump.logits", dtype=np.float32).reshape(tokens, -1)
    return ids, logits.astype(np.float64)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def compare(name, theirs, ours, ids):
    p, q = log_softmax(theirs), log_softmax(ours)
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    same = (theirs.argmax(-1) == ours.argmax(-1)).mean()
    rows = np.arange(len(ids) - 1)
    ppl = [np.exp(-x[rows, ids[1:]].mean()) for x in (p, q)]
    print(f"{name}: {len(ids)} tokens, top-1 {100 * same:.2f} %, KL mean {kl.mean():.3g} largest "
          f"{kl.max():.3g}, logits differ by at most {np.abs(theirs - ours).max():.3g}, "
          f"perplexity {ppl[0]:.4f} (ours {ppl[1]:.4f})")


class NumpyLlama:
    """llama in float64, pairs of rotation interleaved as GGUF has them"""

    def __init__(self, path):
        import gguf
        reader = gguf.GGUFReader(path)
        self.w = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float64)
                  for t in reader.tensors}
        value = lambda key, other=None: (reader.fields[key].contents() if key in reader.fields
                                         else other)
        self.layers = value("llama.block_count")
        self.heads = value("llama.attention.head_count")
        self.kv_heads = value("llama.attention.head_count_kv", self.heads)
        self.eps = value("llama.attention.layer_norm_rms_epsilon")
        self.base = value("llama.rope.freq_base", 10000.0)

    def norm(self, x, name):
        scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps)
        return x / scale * self.w[name + ".weight"].reshape(-1)

    def rotate(self, x):
        n, _, dim = x.shape
        angle = np.arange(n)[:, None] * self.base ** (-np.arange(0, dim, 2) / dim)
        cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def attention(self, x, blk):
        n = len(x)
        q, k, v = ((x @ self.w[f"{blk}.attn_{name}.weight"].T).reshape(n, heads, -1)
                   for name, heads in (("q", self.heads), ("k", self.kv_heads),
                                       ("v", self.kv_heads)))
        q, k = self.rotate(q), self.rotate(k)
        k, v = (np.repeat(y, self.heads // self.kv_heads, axis=1) for y in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
        out = np.einsum("hqk,khd->qhd", np.exp(log_softmax(scores)), v)
        return out.reshape(n, -1) @ self.w[f"{blk}.attn_output.weight"].T

    def logits(self, ids):
        x = self.w["token_embd.weight"][ids]
        for layer in range(self.layers):
            blk = f"blk.{layer}"
            x = x + self.attention(self.norm(x, f"{blk}.attn_norm"), blk)
            h = self.norm(x, f"{blk}.ffn_norm")
            gate, up = (h @ self.w[f"{blk}.ffn_{name}.weight"].T for name in ("gate", "up"))
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.w[f"{blk}.ffn_down.weight"].T
        head = self.w.get("output.weight", self.w["token_embd.weight"])
        return self.norm(x, "output_norm") @ head.T


def against_numpy(model, ids, ours):
    try:
        compare("numpy float64", NumpyLlama(model).logits(ids), ours, ids)
    except ImportError as missing:
        print(f"skipped: numpy float64 ({missing})")


def against_llama_cpp(model, text, all_ids, ids, ours):
    try:
        import llama_cpp
    except ImportError as missing:
        print(f"skipped: llama.cpp ({missing})")
        return
    llama = llama_cpp.Llama(model, n_ctx=max(len(ids), 512), n_batch=512, logits_all=True,
                            n_threads=2, verbose=False)
    theirs = llama.tokenize(open(text, "rb").read(), add_bos=False, special=False)
    same = len(theirs) == len(all_ids) and (np.array(theirs) == all_ids).all()
    first = next((i for i, (a, b) in enumerate(zip(theirs, all_ids)) if a != b), None)
    print(f"llama.cpp's tokens of the whole text: {len(theirs)}, ours {len(all_ids)}, "
          + ("all equal" if same else f"first difference at {first}"))
    llama.eval(ids.tolist())
    compare("llama.cpp", np.array(llama.scores[:len(ids)], dtype=np.float64), ours, ids)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    model, text = sys.argv[1:3]
    tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 512
    chunk = int(sys.argv[4]) if len(sys.argv) > 4 else 64
    all_ids, ours = run_engine(model, text, tokens, chunk)
    ids = all_ids[:tokens]
    against_numpy(model, ids, ours)
    against_llama_cpp(model, text, all_ids, ids, ours)


main()
