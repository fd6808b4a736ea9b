#!/usr/bin/env python3
"""Measure what a cache policy does to a model's perplexity, far from any engine.

    check_story.py MODEL TOKENIZER TEXT [TOKENS [WINDOW [SINKS ...]]]

Float64 NumPy, written apart from the trainer and from longctx.h, reading only
the files both ship: a llama2.c checkpoint (version 0) and its tokenizer. The
stream is the beginning-of-text token and the first TOKENS (6000) of TEXT. The
arms, with WINDOW (60) recent tokens, the current one among them:

    dense    every token so far, as far as 6000 (it costs the square)
    window   recent tokens only
    text     SINKS (1, then 4) first tokens at their place in the text, and recent
    cache    the same tokens, numbered 0, 1, 2 ... as they lie in the cache

The columns are the perplexity of the tokens in that part of the stream.
"""
import re
import struct
import sys

import numpy as np

BLOCK = 256
EDGES = [1, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 100000]


class Tokenizer:
    def __init__(self, path, vocab):
        with open(path, "rb") as f:
            f.read(4)
            self.score, self.ids = [], {}
            for i in range(vocab):
                score, size = struct.unpack("<fi", f.read(8))
                self.score.append(score)
                self.ids.setdefault(f.read(size), i)
        self.known = {}

    def merge(self, word):
        """llama2.c: join the best pair until no two neighbours are a piece."""
        if word not in self.known:
            parts = [word[i:i + 1] for i in range(len(word))]
            while True:
                pairs = [(-self.score[self.ids[a + b]], i) for i, (a, b)
                         in enumerate(zip(parts, parts[1:])) if a + b in self.ids]
                if not pairs:
                    break
                i = min(pairs)[1]
                parts[i:i + 2] = [parts[i] + parts[i + 1]]
            self.known[word] = [self.ids.get(p, p[0] + 3) for p in parts]
        return self.known[word]

    def encode(self, text):
        # No piece has a space behind its first byte, so words stand alone.
        return [i for w in re.findall(rb"\s?[^\s]*", b" " + text) if w for i in self.merge(w)]


class Model:
    def __init__(self, path):
        with open(path, "rb") as f:
            (self.dim, hidden, self.layers, self.heads, self.kv_heads, vocab,
             self.context) = struct.unpack("<7i", f.read(28))
            weights = np.frombuffer(f.read(), "<f4").astype(np.float64)
        assert vocab > 0, "only tied embeddings"
        self.vocab, self.head = vocab, self.dim // self.heads
        d, l, kv = self.dim, self.layers, self.kv_heads * self.head
        used = 0

        def take(*shape):
            nonlocal used
            used += int(np.prod(shape))
            return weights[used - int(np.prod(shape)):used].reshape(shape)

        self.emb, self.att_norm = take(vocab, d), take(l, d)
        self.wq, self.wk, self.wv, self.wo = take(l, d, d), take(l, kv, d), take(l, kv, d), take(l, d, d)
        self.ffn_norm = take(l, d)
        self.w1, self.w2, self.w3 = take(l, hidden, d), take(l, d, hidden), take(l, hidden, d)
        self.norm = take(d)
        self.parameters = used
        take(2, self.context, self.head // 2)
        assert used == len(weights), "the file has another size"


def norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def rope(x, positions):
    """x: (heads, n, head)"""
    head = x.shape[-1]
    angle = np.asarray(positions, float)[:, None] * 10000.0 ** (-np.arange(0, head, 2) / head)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack((turned.real, turned.imag), -1).reshape(x.shape)


def attention(q, k, v, arm, window, sinks):
    n, group = q.shape[1], q.shape[0] // k.shape[0]
    if arm == "dense":
        window, sinks = n, 0
    place = np.arange(n)
    q_text, k_text = rope(q, place), np.repeat(rope(k, place), group, 0)
    # In the cache the newest of S + W entries has the number S + W - 1. Among
    # recent entries only differences count and those are the text's.
    q_sink = rope(q, np.minimum(place, sinks + window - 1)) if arm == "cache" else q_text
    v = np.repeat(v, group, 0)
    out = np.empty_like(q)
    for start in range(0, n, BLOCK):
        end, first = min(start + BLOCK, n), max(min(sinks, n), start - window + 1)
        rows, keys = place[start:end, None], place[first:end]
        recent = q_text[:, start:end] @ k_text[:, first:end].transpose(0, 2, 1)
        recent = np.where((keys <= rows) & (keys > rows - window), recent, -np.inf)
        far = q_sink[:, start:end] @ k_text[:, :sinks].transpose(0, 2, 1)
        far = np.where(place[:sinks] <= rows, far, -np.inf)
        scores = np.concatenate((far, recent), 2) / np.sqrt(q.shape[2])
        scores = np.exp(scores - scores.max(2, keepdims=True))
        values = np.concatenate((v[:, :sinks], v[:, first:end]), 1)
        out[:, start:end] = scores @ values / scores.sum(2, keepdims=True)
    return out


def losses(m, ids, arm, window, sinks):
    """Minus the log probability of ids[1:], each after all that goes before it."""
    x, n = m.emb[ids[:-1]], len(ids) - 1

    def split(y, heads):
        return y.reshape(n, heads, m.head).transpose(1, 0, 2)

    for i in range(m.layers):
        h = norm(x, m.att_norm[i])
        a = attention(split(h @ m.wq[i].T, m.heads), split(h @ m.wk[i].T, m.kv_heads),
                      split(h @ m.wv[i].T, m.kv_heads), arm, window, sinks)
        x = x + a.transpose(1, 0, 2).reshape(n, m.dim) @ m.wo[i].T
        h = norm(x, m.ffn_norm[i])
        gate = h @ m.w1[i].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ m.w3[i].T)) @ m.w2[i].T
    out = np.empty(n)
    for start in range(0, n, BLOCK):
        logits = norm(x[start:start + BLOCK], m.norm) @ m.emb.T
        logits -= logits.max(1, keepdims=True)
        wanted = ids[1 + start:1 + start + BLOCK]
        out[start:start + BLOCK] = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(wanted)), wanted]
    return out


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    m = Model(sys.argv[1])
    with open(sys.argv[3], "rb") as f:
        text = f.read()
    given = [int(a) for a in sys.argv[4:]]
    tokens, window, *sinks = given + [6000, 60, 1, 4][len(given) if len(given) < 3 else 4:]
    ids = np.array([1] + Tokenizer(sys.argv[2], m.vocab).encode(text)[:tokens])
    edges = [e for e in EDGES if e < len(ids) - 1] + [len(ids) - 1]
    print(f"{m.parameters} parameters, {len(ids) - 1} tokens, window {window}")
    print("arm".ljust(10) + "".join(f"..{e}".rjust(9) for e in edges[1:]) + "all".rjust(9))
    arms = [("dense", 0), ("window", 0)] + [(a, s) for s in sinks for a in ("text", "cache")]
    for arm, s in arms:
        loss = losses(m, ids[:6001] if arm == "dense" else ids, arm, window, s)
        parts = [loss[a - 1:b - 1] for a, b in zip(edges, edges[1:])] + [loss]
        cells = [f"{np.exp(p.mean()):9.3f}" if len(p) else " " * 9 for p in parts]
        print((arm + (f" {s}" if s else "")).ljust(10) + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
