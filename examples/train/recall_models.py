"""The models of train_recall.py: llama2.c's layers with Infini-attention (arXiv 2404.07143) or
TransformerFAM's feedback rows (arXiv 2404.09173); and their files."""
import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from recall_text import VOCAB

THETA = 10000.0
EPS = 1e-5
ROW_LIMIT, ROW_REST = 4.0, 0.5      # how far a row may go, and what does not move it
RULES = {"feedback": 0, "linear": 1, "delta": 2}


class Shape(NamedTuple):
    dim: int
    hidden: int
    layers: int
    heads: int
    block: int
    window: int
    rows: int

    @property
    def head(self) -> int:
        return self.dim // self.heads


MEMORY = Shape(dim=128, hidden=128, layers=3, heads=4, block=32, window=64, rows=0)
FEEDBACK = Shape(dim=64, hidden=192, layers=3, heads=2, block=128, window=128, rows=16)


class Norm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * self.weight


def rope_tables(head: int, first: int, length: int):
    rates = THETA ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    angles = torch.arange(first, first + length, dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def rotate(x, tables):
    """x: (..., length, head); neighbours make a pair."""
    cos, sin = tables
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Layer(nn.Module):
    """llama2.c's layer without its attention."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.att_norm, self.ffn_norm = Norm(dim), Norm(dim)
        for name, inputs, outputs in (("wq", dim, dim), ("wk", dim, dim), ("wv", dim, dim),
                                      ("wo", dim, dim), ("w1", dim, hidden),
                                      ("w2", hidden, dim), ("w3", dim, hidden)):
            setattr(self, name, nn.Linear(inputs, outputs, bias=False))

    def tail(self, x, attended):
        x = x + self.wo(attended)
        h = self.ffn_norm(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Model(nn.Module):
    rule = 0
    extra = ()                      # names of the parameters in the file's tail

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(VOCAB, shape.dim)
        self.layers = nn.ModuleList(Layer(shape.dim, shape.hidden) for _ in range(shape.layers))
        self.norm = Norm(shape.dim)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                lower = name.endswith(("wo.weight", "w2.weight"))
                shrink = math.sqrt(2 * shape.layers) if lower else 1
                nn.init.normal_(p, std=1 / math.sqrt(p.shape[1]) / shrink)

    def logits(self, x):
        return self.norm(x) @ self.embedding.weight.T


SHUT = -100.0                       # a gate's logit: of the first layer, which only looks back


def features(x):
    """ELU + 1, without the cancellation."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


class Memory(Model):
    """Infini-attention. A token sees its block up to itself and the block before; what
    is older is in the memory. So the memory is one block behind: `late` is what waits."""
    extra = ("gate",)

    def __init__(self, rule: int):
        super().__init__(MEMORY)
        self.rule = rule
        self.gate = nn.Parameter(torch.ones(MEMORY.layers, MEMORY.heads))
        with torch.no_grad():
            self.gate[0] = SHUT
            self.begin()

    def begin(self) -> None:
        """What the model would else have to find before it can learn anything: heads
        that look a fixed number of tokens back.

        One element of the stream is the same for all tokens, so that the first layer's
        queries and keys can be rotations of one vector, and its heads look at exactly
        1, 2, 3 and 4 tokens back. What a token is stands in the first half of the
        stream, what stood before it in the second, a quarter for each head.

        In the layers above a key is made of what stood two and three tokens back, or
        three and four: the thing's two words, at either half of the place, told or asked
        for. Queries begin as keys do, negative for the most part, so that after ELU + 1
        few of them match. Values are what the token is, and come out as they went in."""
        dim, heads, head = MEMORY.dim, MEMORY.heads, MEMORY.head
        half, part = dim // 2, dim // 2 // heads

        def draw(weight, std):
            weight.normal_(std=std)

        words = self.embedding.weight
        draw(words, 1 / math.sqrt(half))
        words[:, half:] *= 0.1
        words[:, 0] = 1.0
        first = self.layers[0]
        for weight in (first.wq.weight, first.wk.weight):
            weight *= 0.1
        draw(first.wv.weight, 1 / math.sqrt(half))
        first.wv.weight[:, half:] = 0
        first.wo.weight.zero_()
        for i in range(heads):
            for pair in range(4):
                angle, row = (i + 1) * THETA ** (-2 * pair / head), i * head + 2 * pair
                first.wq.weight[row:row + 2, 0] = torch.tensor((0.9, 0.0))
                first.wk.weight[row:row + 2, 0] = 0.9 * torch.tensor((math.cos(angle),
                                                                      math.sin(angle)))
            draw(first.wo.weight[half + i * part:half + (i + 1) * part,
                                 i * head:(i + 1) * head], 7 / dim)
        for layer in self.layers:
            layer.w2.weight *= 0.1
            layer.w2.weight[0] = layer.wo.weight[0] = 0
            layer.wv.weight[:, 0] = 0
        for layer in self.layers[1:]:
            layer.wk.weight *= 0.1
            for i in range(heads):
                at = half + (1 if i < heads // 2 else 2) * part
                draw(layer.wk.weight[i * head:(i + 1) * head, at:at + 2 * part],
                     2 / math.sqrt(2 * part))
            layer.wk.weight[:, 0] = -1.5
            layer.wq.weight.copy_(layer.wk.weight)
            layer.wv.weight[:, half:] *= 0.1
            layer.wo.weight.copy_(layer.wv.weight.T)
            layer.wo.weight[0] = 0

    def start(self, count: int):
        block, heads, head = MEMORY.block, MEMORY.heads, MEMORY.head

        def zeros(*shape, dtype=torch.float32):
            return torch.zeros(count, *shape, dtype=dtype)
        return {"blocks": 0, "layers": [
            {"m": zeros(heads, head, head, dtype=torch.float64),
             "z": zeros(heads, head, dtype=torch.float64),
             "late": (zeros(1, heads, block, head), zeros(1, heads, block, head)),
             "k": zeros(1, heads, block, head), "v": zeros(1, heads, block, head)}
            for _ in range(MEMORY.layers)]}

    def fold(self, old, keys, values, times):
        """What each block reads, and the memory after them. times: how often a block is
        folded (training), (count, blocks)."""
        late = (keys[:, -1:], values[:, -1:])
        keys = torch.cat((old["late"][0], keys[:, :-1]), 1)
        values = torch.cat((old["late"][1], values[:, :-1]), 1)
        if times is not None:
            times = torch.cat((torch.ones_like(times[:, :1]), times[:, :-1]), 1).double()
        if self.rule == 2:
            ms, zs = fold_delta(old["m"], old["z"], keys, values, times)
        else:
            add_m, add_z = (keys.transpose(-1, -2) @ values).double(), keys.sum(-2).double()
            if times is not None:
                add_m, add_z = add_m * times[..., None, None, None], add_z * times[..., None, None]
            ms = torch.cat((old["m"][:, None], add_m), 1).cumsum(1)
            zs = torch.cat((old["z"][:, None], add_z), 1).cumsum(1)
        return ms[:, :-1].float(), zs[:, :-1].float(), {"m": ms[:, -1], "z": zs[:, -1],
                                                        "late": late}

    def forward(self, ids, state=None, times=None, logits=True):
        """ids: (count, whole blocks). Returns logits and the state after them."""
        block, heads, head = MEMORY.block, MEMORY.heads, MEMORY.head
        count, length = ids.shape
        blocks = length // block
        state = state or self.start(count)
        at, after = state["blocks"], []
        before, now = rope_tables(head, 0, block), rope_tables(head, block, block)
        hidden = torch.full((blocks, 1, block, 2 * block), -math.inf).triu(block + 1)
        if at == 0:
            hidden[0, :, :, :block] = -math.inf
        empty = (torch.arange(at, at + blocks) < 2)[:, None, None, None]
        x = self.embedding(ids)

        def split(y):
            return y.view(count, blocks, block, heads, head).transpose(2, 3)

        for i, (layer, old) in enumerate(zip(self.layers, state["layers"])):
            h = layer.att_norm(x)
            k, v = split(layer.wk(h)), split(layer.wv(h))
            new, m = dict(old), None
            if i > 0:               # the first layer's gate is shut
                m, z, new = self.fold(old, features(k), v, times)
            new["k"], new["v"] = k[:, -1:], v[:, -1:]
            after.append(new)
            if not logits and i == MEMORY.layers - 1:
                break
            q = split(layer.wq(h))
            k_before = torch.cat((old["k"], k[:, :-1]), 1)
            v_before = torch.cat((old["v"], v[:, :-1]), 1)
            k = torch.cat((rotate(k_before, before), rotate(k, now)), -2)
            scores = rotate(q, now) @ k.transpose(-1, -2) / math.sqrt(head)
            mixed = torch.softmax(scores + hidden, -1) @ torch.cat((v_before, v), -2)
            if m is not None:
                q = features(q)
                recalled = q @ m / (q @ z.unsqueeze(-1) + 1e-30)
                gate = torch.sigmoid(self.gate[i])[:, None, None]
                mixed = torch.where(empty, mixed, gate * recalled + (1 - gate) * mixed)
            x = layer.tail(x, mixed.transpose(2, 3).reshape(count, length, -1))
        return self.logits(x) if logits else None, {"blocks": at + blocks, "layers": after}


def fold_delta(m, z, keys, values, times):
    """The memory before each block and after the last. Folding the same block n times is
    a differential equation in n; its steps may grow with n, so n = 65536 takes some
    twenty of them."""
    def once(m, z, step):
        held = k @ m / (k @ z.unsqueeze(-1) + 1e-300)
        add = k.transpose(-1, -2) @ (v - held)
        return m + step[:, None, None, None] * add, z + step[:, None, None] * k.sum(-2)

    ms, zs = [m], [z]
    for i in range(keys.shape[1]):
        k, v = keys[:, i].double(), values[:, i].double()
        done = torch.ones(len(k), dtype=k.dtype)
        m, z = once(m, z, done)
        left = times[:, i] - 1 if times is not None else torch.zeros(len(k))
        while left.max() > 1e-3:
            step = torch.minimum(left, 0.7 * done)
            m, z = once(m, z, step)
            left, done = left - step, done + step
        ms.append(m)
        zs.append(z)
    return torch.stack(ms, 1), torch.stack(zs, 1)


def settle(new, old, fresh):
    """Not in the paper. What an element moves by ROW_REST or less is forgotten, what
    it moves by more is shortened by as much: so the small pushes of each block of
    filler do not add up. And no element leaves -ROW_LIMIT .. ROW_LIMIT."""
    moved = new - old
    moved = moved - moved.clamp(-ROW_REST, ROW_REST)
    return torch.where(fresh[:, None, None], new, old + moved).clamp(-ROW_LIMIT, ROW_LIMIT)


class Feedback(Model):
    """TransformerFAM without memory segments: a token sees the rows of the update
    before and its own block up to itself; the rows see the rows and the whole
    block. Rows stand at -FEEDBACK.rows .. -1 before the block, as keys and as queries."""
    extra = ("rows",)

    def __init__(self):
        super().__init__(FEEDBACK)
        self.rows = nn.Parameter(torch.randn(FEEDBACK.rows, FEEDBACK.dim) * 0.5)
        self.pushes = []            # of the last block: what settle had to judge

    @staticmethod
    def attend(layer, y, hidden):
        heads, head = FEEDBACK.heads, FEEDBACK.head
        tables = rope_tables(head, -FEEDBACK.rows, y.shape[1])
        h = layer.att_norm(y)
        q, k, v = (w(h).view(len(y), -1, heads, head).transpose(1, 2)
                   for w in (layer.wq, layer.wk, layer.wv))
        scores = rotate(q, tables) @ rotate(k, tables).transpose(-1, -2) / math.sqrt(head)
        attended = torch.softmax(scores + hidden, -1) @ v
        return attended.transpose(1, 2).reshape(y.shape)

    def start(self, count: int):
        """The initial rows of every layer: the learned rows go up the stack."""
        x, rows = self.rows.expand(count, -1, -1), []
        for layer in self.layers:
            rows.append(x)
            x = layer.tail(x, self.attend(layer, x, 0.0))
        return {"blocks": 0, "layers": rows}

    def block_forward(self, ids, rows, fresh, logits=True):
        """One block. fresh: (count,), whose first update this is: it starts from
        zero, not from the initial rows."""
        length = ids.shape[1]
        hidden = torch.zeros(FEEDBACK.rows + length, FEEDBACK.rows + length)
        hidden[FEEDBACK.rows:, FEEDBACK.rows:] = torch.full((length, length), -math.inf).triu(1)
        x, after, self.pushes = self.embedding(ids), [], []
        for layer, old in zip(self.layers, rows):
            attended = self.attend(layer, torch.cat((old, x), 1), hidden)
            kept = torch.where(fresh[:, None, None], torch.zeros(()), old)
            y = layer.tail(torch.cat((kept, x), 1), attended)
            self.pushes.append(y[:, :FEEDBACK.rows] - old)
            after.append(settle(y[:, :FEEDBACK.rows], old, fresh))
            x = y[:, FEEDBACK.rows:]
        return self.logits(x) if logits else None, after

    def forward(self, ids, state=None, logits=True):
        state = state or self.start(len(ids))
        at, rows, out = state["blocks"], state["layers"], []
        for block in ids.split(FEEDBACK.block, 1):
            fresh = torch.full((len(ids),), at == 0)
            block_logits, rows = self.block_forward(block, rows, fresh, logits=logits)
            out.append(block_logits)
            at += 1
        return torch.cat(out, 1) if logits else None, {"blocks": at, "layers": rows}


def make_model(kind: str) -> Model:
    return Feedback() if kind == "feedback" else Memory(RULES[kind])


# ---- files ---------------------------------------------------------------------

def tensors(model: Model):
    """The parameters in the order of llama2.c's checkpoint, version 0."""
    out = [model.embedding.weight]
    for name in ("att_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3"):
        out += [getattr(layer, name).weight for layer in model.layers]
    return out + [model.norm.weight]


def export_model(model: Model, path: Path) -> None:
    """The checkpoint, then how attention remembers: "LCXM", 1, window, block, memory
    rule (1 linear, 2 delta), feedback rows, 0; the gates' logits [layer][head] if
    there is a memory; the first rows [row][dim], ROW_LIMIT and ROW_REST if there are rows."""
    s = model.shape
    after = [getattr(model, name) for name in model.extra]
    if s.rows:
        after.append(torch.tensor([ROW_LIMIT, ROW_REST]))
    with open(path, "wb") as f:
        f.write(struct.pack("<7i", s.dim, s.hidden, s.layers, s.heads, s.heads, VOCAB, s.window))
        for part in (*tensors(model), *rope_tables(s.head, 0, s.window)):
            f.write(part.detach().numpy().astype("<f4").tobytes())
        f.write(b"LCXM" + struct.pack("<6i", 1, s.window, s.block, model.rule, s.rows, 0))
        for part in after:
            f.write(part.detach().numpy().astype("<f4").tobytes())


def import_model(model: Model, path: Path) -> Model:
    """A file that export_model wrote. Its rule may be another: one continues the other."""
    values = np.frombuffer(path.read_bytes()[28:], dtype="<f4")
    at = 0
    with torch.no_grad():
        for p in tensors(model):
            p.copy_(torch.tensor(values[at:at + p.numel()]).view(p.shape))
            at += p.numel()
        # the rotation tables, "LCXM" and six numbers
        at += model.shape.window * model.shape.head + 7
        for name in model.extra:
            p = getattr(model, name)
            p.copy_(torch.tensor(values[at:at + p.numel()]).view(p.shape))
            at += p.numel()
    return model
