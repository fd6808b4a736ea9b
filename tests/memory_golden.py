#!/usr/bin/env python3
"""memory_golden.py: Infini-attention (arXiv 2404.07143) in PyTorch float64, from the paper alone.

Writes memory_golden.h: what the last tokens of a small text come out as, for both rules. Inputs are
small integers over 1024 from splitmix64, so that C makes the same ones. Segments of SEGMENT tokens,
RoPE only in the local attention, one memory for each KV head, one gate for each query head.

    /usr/bin/python3 tests/memory_golden.py > tests/memory_golden.h
"""
import math
import torch

HEADS, KV, DIM, DIM_V, SEGMENT, TOKENS, SHOWN = 4, 2, 8, 6, 8, 44, 12
GATES = [0.5, -1.0, 2.0, 0.0]
MASK = (1 << 64) - 1


def numbers(seed):
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        yield ((z >> 52) - 2048) / 1024.0


def make():
    q, k, v = [], [], []
    for t in range(TOKENS):
        n = numbers(t * 77 + 5)
        q.append([next(n) for _ in range(HEADS * DIM)])
        k.append([next(n) for _ in range(KV * DIM)])
        v.append([next(n) for _ in range(KV * DIM_V)])

    def shape(x, heads):
        return torch.tensor(x, dtype=torch.float64).view(TOKENS, heads, -1).transpose(0, 1)
    group = HEADS // KV
    q, k, v = shape(q, HEADS), shape(k, KV), shape(v, KV)
    return q, k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)


def rope(x):
    """x [heads, tokens, DIM], halves rotated against each other, as in HF."""
    freq = 10000.0 ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)
    angle = torch.arange(TOKENS, dtype=torch.float64)[:, None] * freq[None, :]
    c, s = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
    turned = torch.cat((-x[..., DIM // 2:], x[..., :DIM // 2]), -1)
    return x * c + turned * s


def infini(delta):
    q, k, v = make()
    qr, kr = rope(q), rope(k)
    sigma = lambda x: torch.nn.functional.elu(x) + 1
    memory = torch.zeros(HEADS, DIM, DIM_V, dtype=torch.float64)
    norm = torch.zeros(HEADS, DIM, 1, dtype=torch.float64)
    gate = torch.sigmoid(torch.tensor(GATES, dtype=torch.float64)).view(HEADS, 1, 1)
    out = []
    for at in range(0, TOKENS, SEGMENT):
        end = min(at + SEGMENT, TOKENS)
        n = end - at
        scores = qr[:, at:end] @ kr[:, at:end].transpose(1, 2) / math.sqrt(DIM)
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf)
        local = scores.softmax(-1) @ v[:, at:end]
        sk, values = sigma(k[:, at:end]), v[:, at:end]
        if at == 0:
            out.append(local)                       # nothing to recall: the gate is ignored
        else:
            sq = sigma(q[:, at:end])
            out.append(gate * (sq @ memory / (sq @ norm)) + (1 - gate) * local)
            if delta:
                values = values - sk @ memory / (sk @ norm)
        memory = memory + sk.transpose(1, 2) @ values
        norm = norm + sk.sum(1, keepdim=True).transpose(1, 2)
    return torch.cat(out, 1).transpose(0, 1)[TOKENS - SHOWN:].reshape(-1)


print("/* Written by memory_golden.py (PyTorch, float64): do not edit. */")
print("#ifndef MEMORY_GOLDEN_H\n#define MEMORY_GOLDEN_H")
names = {"HEADS": HEADS, "KV": KV, "DIM": DIM, "DIM_V": DIM_V, "SEGMENT": SEGMENT,
         "TOKENS": TOKENS, "SHOWN": SHOWN}
print("enum {")
for name, value in names.items():
    print(f"  GOLDEN_{name} = {value},")
print("  GOLDEN_END\n};")
print("static const float golden_gates[] = { " + ", ".join(f"{g}f" for g in GATES) + " };")
print("static const double golden_out[2][GOLDEN_SHOWN * GOLDEN_HEADS * GOLDEN_DIM_V] = {")
for delta in (False, True):
    x = [f"{y:.7f}" for y in infini(delta).tolist()]
    print("  {")
    for i in range(0, len(x), 8):
        print("    " + ", ".join(x[i:i + 8]) + ",")
    print("  },")
print("};\n#endif")
