#!/usr/bin/env python3
"""feedback_golden.py: TransformerFAM (arXiv 2404.09173) in PyTorch float64, from the paper alone.

Writes feedback_golden.h: a small model's last tokens and last rows. Weights and inputs are small
integers from splitmix64, so that C makes the same ones. Each block is one concatenated, masked
softmax of [rows ; block] queries over [segments ; rows ; block] keys.

    /usr/bin/python3 tests/feedback_golden.py > tests/feedback_golden.h
"""
import math
import torch

LAYERS, WIDTH, HEADS, KV, DIM, FF = 2, 12, 4, 2, 6, 16
BLOCK, SEGMENTS, F, TOKENS, SHOWN = 6, 1, 3, 28, 5
MASK = (1 << 64) - 1
torch.set_default_dtype(torch.float64)


def numbers(seed):
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        yield ((z >> 52) - 2048) / 1024.0


def matrix(seed, rows, cols, scale):
    n = numbers(seed)
    return torch.tensor([[next(n) * scale for _ in range(cols)] for _ in range(rows)])


def norm(x):
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


def rope(x, positions):
    """x [heads, n, DIM], halves rotated against each other, as in HF."""
    freq = 10000.0 ** (-torch.arange(0, DIM, 2) / DIM)
    angle = torch.as_tensor(positions, dtype=torch.float64)[:, None] * freq[None, :]
    c, s = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
    turned = torch.cat((-x[..., DIM // 2:], x[..., :DIM // 2]), -1)
    return x * c + turned * s


class Layer:
    def __init__(self, i):
        self.q = matrix(1000 * i + 1, HEADS * DIM, WIDTH, 0.5)
        self.k = matrix(1000 * i + 2, KV * DIM, WIDTH, 0.5)
        self.v = matrix(1000 * i + 3, KV * DIM, WIDTH, 0.25)
        self.o = matrix(1000 * i + 4, WIDTH, HEADS * DIM, 0.125)
        self.up = matrix(1000 * i + 5, FF, WIDTH, 0.25)
        self.down = matrix(1000 * i + 6, WIDTH, FF, 0.125)

    def qkv(self, x, positions):
        x = norm(x)
        split = lambda y, heads: y.view(len(x), heads, DIM).transpose(0, 1)
        q, k, v = split(x @ self.q.T, HEADS), split(x @ self.k.T, KV), split(x @ self.v.T, KV)
        repeat = lambda y: y.repeat_interleave(HEADS // KV, 0)
        return rope(q, positions), repeat(rope(k, positions)), repeat(v)

    def tail(self, a, residual):
        f = a @ self.o.T + residual
        return f + torch.tanh(norm(f) @ self.up.T) @ self.down.T


def softmax(q, k, v, mask):
    scores = (q @ k.transpose(1, 2) / math.sqrt(DIM)).masked_fill(~mask, -math.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(q.shape[1], -1)


def run():
    layers = [Layer(i) for i in range(LAYERS)]
    x = matrix(7, F, WIDTH, 1.0)
    rows, stand = [], list(range(-F, 0))
    for layer in layers:                            # the prompt's pass: rows among themselves
        rows.append(x)
        q, k, v = layer.qkv(x, stand)
        x = layer.tail(softmax(q, k, v, torch.ones(F, F).bool()), x)
    text = matrix(8, TOKENS, WIDTH, 1.0)
    older = [[] for _ in layers]
    out, first = [], True
    for at in range(0, TOKENS, BLOCK):
        x = text[at:at + BLOCK]
        n = len(x)
        places = list(range(at, at + n))
        for i, layer in enumerate(layers):
            q, k, v = layer.qkv(x, places)
            fq, fk, fv = layer.qkv(rows[i], stand)
            past = older[i][-SEGMENTS:] if SEGMENTS else []
            keys = torch.cat([p[0] for p in past] + [fk, k], 1)
            values = torch.cat([p[1] for p in past] + [fv, v], 1)
            before = keys.shape[1] - F - n
            mask = torch.ones(F + n, keys.shape[1]).bool()
            mask[:F, :before] = False               # rows see no segments
            mask[F:, before + F:] = torch.ones(n, n).tril().bool()
            a = softmax(torch.cat((fq, q), 1), keys, values, mask)
            if n == BLOCK:
                rows[i] = layer.tail(a[:F], 0.0 if first else rows[i])
            older[i].append((k, v))
            x = layer.tail(a[F:], x)
        if n == BLOCK:
            stand = places[-F:]
            first = False
        out.append(x)
    return torch.cat(out)[TOKENS - SHOWN:], torch.stack(rows)


out, rows = run()
print("/* Written by feedback_golden.py (PyTorch, float64): do not edit. */")
print("#ifndef FEEDBACK_GOLDEN_H\n#define FEEDBACK_GOLDEN_H")
names = {"LAYERS": LAYERS, "WIDTH": WIDTH, "HEADS": HEADS, "KV": KV, "DIM": DIM, "FF": FF,
         "BLOCK": BLOCK, "SEGMENTS": SEGMENTS, "F": F, "TOKENS": TOKENS, "SHOWN": SHOWN}
print("enum {")
for name, value in names.items():
    print(f"  FED_{name} = {value},")
print("  FED_END\n};")
for name, x in (("out", out), ("rows", rows)):
    x = [f"{y:.8f}" for y in x.reshape(-1).tolist()]
    print(f"static const double fed_{name}[{len(x)}] = {{")
    for i in range(0, len(x), 7):
        print("  " + ", ".join(x[i:i + 7]) + ",")
    print("};")
print("#endif")
