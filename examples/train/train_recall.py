#!/usr/bin/env python3
"""Train the small models with a memory, and measure how far back they remember.

    train_recall.py linear FILE      Infini-attention, linear rule, into FILE
    train_recall.py delta FILE       the same with the delta rule
    train_recall.py feedback FILE    TransformerFAM
    train_recall.py tokenizer FILE   their tokenizer, recall.tok

With --measure a model of that kind is measured, not trained; --source goes on from
an earlier one. --seconds, --rate, --fade: how long, how fast, and over how many last
seconds the rate falls. One thread. No data: the text is made up here.

The text is filler, sentences that tell nothing to remember, drawn anew for ever.
Somewhere in it a pass key of five digits is told, and later it is asked for. Told and
asked anywhere: neither knows where a block ends.

Layers are llama2.c's: width 64, hidden 192, 3 layers, 2 heads, 212 words.

memory_linear.bin: block 64, window 128. A token sees its own block up to itself and
the block before; the memory holds what is older. With a window of one block, the
paper's segment, the first token of a block sees nothing else: a digit that stands
there cannot tell which of the five it is, and one telling in five lies across the end of a
block. While the memory is empty there is no gate. What makes it last stands at
train_memory.

memory_delta.bin: the tensors of memory_linear.bin, unchanged, used with the delta
rule. The keys under which digits are stored hardly overlap with anything else, so
that rule finds little to correct. It was tried before any training, and needed none.

feedback.bin: block 128, 16 rows, no memory segments, and one thing that is not in the
paper: settle, below. Without it the rows creep. Bounded to -3 .. 3 and no more, a
model trained for 3100 steps, on rows up to 256 blocks old, had 1 key of 24 left after
64 blocks. 50 steps after settle was put in, 99 of 100 digits were held.

What did not come about: facts. A text can also tell "Osena put the brass key in
Oakford." and ask "Where is the brass key? In". The shipped models have not learned to
answer that. One fact in a text is learned soon. Of several, 4350 steps in 33 minutes
taught no more than to rule out the answers already given; since then questions are
drawn with replacement. 1300 more with a start that copies: nothing either. With the
first layer set, and held, to look two and three tokens back, 400 steps gave 95, 92
and 90 % of the halves of places with 2, 3 and 4 facts in 2 or 3 blocks. Gone on with
for 750 steps, to keys and to what only the memory has, it had 77 % of the digits, and
81, 69 and 55 % of the halves with 1, 4 and 8 facts in 3 to 5 blocks; there time ran
out. --look-up is that way, from nothing; from nothing it is untried.

The shipped files were made by the forerunner of this script, with the same steps in
other words: Python 3.11.2, PyTorch 1.13.0, NumPy 1.24.2, seed 1, a quarter to all of
one core. linear: STAGES as below, 3000 steps at 2e-3, 8 minutes. feedback: 87 minutes,
each run from the one before, the rate falling in the last three:
    2050 steps at 1.5e-3, 850 at 1.5e-3   bound 3, no rest; oldest 8, then to 2048
    400 at 1e-3                           noise on the rows, to be undone: no use
    650 at 1e-3                           settle as below
    200 at 8e-4, 550 at 1.2e-3, 500 at 7e-4   also keys told in the question's block
    500 at 6e-4                           more keys across the end of a block
    350 at 7e-4                           keys across the start of the question's block
train_feedback as it stands does it all in one, with settle from the beginning. It has
been started, but not run to the end.
"""
import argparse
import bisect
import math
import random
import struct
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SEED = 1
BOS = 1

DIM, HIDDEN, LAYERS, HEADS = 64, 192, 3, 2
HEAD = DIM // HEADS
THETA = 10000.0
EPS = 1e-5

BLOCK, WINDOW = 64, 128             # of the models with a memory
FEEDBACK_BLOCK, ROWS = 128, 16
ROW_LIMIT, ROW_REST = 4.0, 0.5      # how far a row may go, and what does not move it
RULES = {"feedback": 0, "linear": 1, "delta": 2}


# ---- the text ----------------------------------------------------------------
# A word is a token, with the space before it; "+" joins it to the word before.
# $a name  $p place  $t thing  $c digit  $d day  $h hour  $w weather  $f food  $x animal

NAME_HEADS = "Al Ber Cor Dal El Fen Gar Hal Is Jor Kel Lor Mar Nor Os Per".split()
NAME_TAILS = "a in ena ric is win ia mund wyn dan ilde bert essa vin ora gar".split()
PLACE_HEADS = ("Oak Mill Stone Ash Green High Long Red "
               "Fox Wolf Bell Swan Thorn Corn Black White").split()
PLACE_TAILS = ("ford hill bridge field wood ton well gate "
               "mere stead moor dale wick brook cliff haven").split()
LOOKS = ("brass tin red blue green old small long "
         "silver iron black white round flat heavy new").split()
NOUNS = "key cup bell box lamp ring coin book knife map rope drum".split()
SLOTS = {
    "c": list("0123456789"),
    "a": [f"{head} +{tail}" for head in NAME_HEADS for tail in NAME_TAILS],
    "p": [f"{head} +{tail}" for head in PLACE_HEADS for tail in PLACE_TAILS],
    "t": [f"{look} {noun}" for look in LOOKS for noun in NOUNS],
    "d": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "h": "morning afternoon evening".split(),
    "w": ["it rained", "it snowed", "the sun was out", "there was fog", "a cold wind blew"],
    "f": ["some bread", "an apple", "a pear", "some cheese", "a bowl of soup", "an egg"],
    "x": ["a dog", "a cat", "a goose", "a goat", "a crow", "a horse", "a hare", "a pig"],
}
FILLER = [
    "It was $d $h and $w .",
    "On $d $w .",
    "In the $h $a met $a .",
    "$a walked home .",
    "$a ate $f .",
    "$a gave $f to $x .",
    "Then $x came by .",
    "$a sat down and sang a song .",
    "$a looked up at the sky .",
    "$a was tired but did not stop .",
    "Good $h , $a , said $a .",
    "$a told $a a story about $x .",
    "$a and $a talked for a while .",
    "$a helped $a with the work .",
    "Did you see $x ? asked $a .",
    "It will be $d all day , said $a .",
    "Snow lay on everything .",
    "The sun was warm .",
    "The wind would not rest .",
    "Nobody could see far in the fog .",
]
KEY = "The pass key is $c $c $c $c $c . Remember it ."
ASK_KEY = "What is the pass key ? The pass key is"
FACT = "$a put the $t in $p ."
ASK_FACT = "Where is the $t ? In"


def piece(word: str) -> str:
    if word[0] == "+":
        return word[1:]
    return word if word in ".,?" else " " + word


def all_pieces() -> list[str]:
    """Three special tokens, then every piece where it is first met. The order of
    the words is part of the models."""
    words = SLOTS["c"] + NAME_HEADS + ["+" + tail for tail in NAME_TAILS]
    words += PLACE_HEADS + ["+" + tail for tail in PLACE_TAILS] + LOOKS + NOUNS
    for name in "dhwfx":
        words += " ".join(SLOTS[name]).split()
    words += [word for form in FILLER + [KEY, ASK_KEY, FACT, ASK_FACT]
              for word in form.split() if word[0] != "$"]
    return ["<unk>", "\n<s>\n", "\n</s>\n"] + list(dict.fromkeys(map(piece, words)))


PIECES = all_pieces()
TOKEN = {text: i for i, text in enumerate(PIECES)}
VOCAB = len(PIECES)


def tokens(words: str) -> list[int]:
    return [TOKEN[piece(word)] for word in words.split()]


SLOT_TOKENS = {name: [tokens(choice) for choice in choices] for name, choices in SLOTS.items()}
DIGIT, STOP = TOKEN[" 0"], TOKEN["."]


def parts(form: str) -> list[list[list[int]]]:
    """A form as its words, each the list of what may stand there."""
    return [SLOT_TOKENS[word[1]] if word[0] == "$" else [tokens(word)] for word in form.split()]


FILLER_PARTS = [parts(form) for form in FILLER]


def fill(form: str, **chosen) -> list[int]:
    """The tokens of a form; chosen has a list of token lists for every slot name."""
    left = {name: list(values) for name, values in chosen.items()}
    return [token for word in form.split()
            for token in (left[word[1]].pop(0) if word[0] == "$" else tokens(word))]


def filler(random_: random.Random) -> list[int]:
    """One sentence that tells nothing to remember."""
    return [token for part in random_.choice(FILLER_PARTS) for token in random_.choice(part)]


class Text:
    """A long run of filler, to cut from, and sentences that tell and ask."""

    def __init__(self, seed: int, length: int):
        self.random = random.Random(seed)
        self.sentences, self.starts, size = [], [], 0
        while size < length:
            self.sentences.append(filler(self.random))
            self.starts.append(size)
            size += len(self.sentences[-1])
        self.tokens = np.array([t for s in self.sentences for t in s], dtype=np.int16)

    def cut(self, length: int) -> list[int]:
        start = self.random.randrange(len(self.tokens) - length)
        return self.tokens[start:start + length].tolist()

    def key(self):
        """A sentence, its question and the answer."""
        digits = [[DIGIT + self.random.randrange(10)] for _ in range(5)]
        return fill(KEY, c=digits), fill(ASK_KEY), sum(digits, [])

    def facts(self, count: int):
        """The same of facts: distinct things, any places."""
        out = []
        for thing in self.random.sample(SLOT_TOKENS["t"], count):
            place = self.random.choice(SLOT_TOKENS["p"])
            name = self.random.choice(SLOT_TOKENS["a"])
            told = fill(FACT, a=[name], t=[thing], p=[place])
            out.append((told, fill(ASK_FACT, t=[thing]), place))
        return out


def export_tokenizer(path: Path) -> None:
    """llama2.c's tokenizer.bin. It is for decoding: there are no pieces from which
    an encoder could merge the words, so who writes a text looks up whole words."""
    texts = [text.encode() for text in PIECES]
    with open(path, "wb") as f:
        f.write(struct.pack("<i", max(map(len, texts))))
        for i, text in enumerate(texts):
            f.write(struct.pack("<fi", -float(i), len(text)) + text)


# ---- the models ----------------------------------------------------------------

class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * self.weight


def rope_tables(first: int, length: int):
    rates = THETA ** (-torch.arange(0, HEAD, 2, dtype=torch.float64) / HEAD)
    angles = torch.arange(first, first + length, dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def rotate(x, tables):
    """x: (..., length, HEAD); neighbours make a pair."""
    cos, sin = tables
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Layer(nn.Module):
    """llama2.c's layer without its attention."""

    def __init__(self):
        super().__init__()
        self.att_norm, self.ffn_norm = Norm(), Norm()
        for name, inputs, outputs in (("wq", DIM, DIM), ("wk", DIM, DIM), ("wv", DIM, DIM),
                                      ("wo", DIM, DIM), ("w1", DIM, HIDDEN),
                                      ("w2", HIDDEN, DIM), ("w3", DIM, HIDDEN)):
            setattr(self, name, nn.Linear(inputs, outputs, bias=False))

    def tail(self, x, attended):
        x = x + self.wo(attended)
        h = self.ffn_norm(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Model(nn.Module):
    window = block = rule = 0
    extra = ()                      # names of the parameters in the file's tail

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm()
        for name, p in self.named_parameters():
            if p.dim() == 2:
                shrink = math.sqrt(2 * LAYERS) if name.endswith(("wo.weight", "w2.weight")) else 1
                nn.init.normal_(p, std=1 / math.sqrt(p.shape[1]) / shrink)

    def logits(self, x):
        return self.norm(x) @ self.embedding.weight.T


class Memory(Model):
    """Infini-attention. A token sees its block up to itself and the block before;
    what is older is in the memory. So the memory is one block behind, and the
    blocks' updates wait as `late`."""
    window, block, extra = WINDOW, BLOCK, ("gate",)

    def __init__(self, rule: int):
        super().__init__()
        self.rule = rule
        self.gate = nn.Parameter(torch.zeros(LAYERS, HEADS))

    def start(self, count: int):
        def zeros(*shape, dtype=torch.float32):
            return torch.zeros(count, *shape, dtype=dtype)
        return {"blocks": 0, "layers": [
            {"m": zeros(HEADS, HEAD, HEAD, dtype=torch.float64),
             "z": zeros(HEADS, HEAD, dtype=torch.float64), "late": None,
             "k": zeros(1, HEADS, BLOCK, HEAD), "v": zeros(1, HEADS, BLOCK, HEAD)}
            for _ in range(LAYERS)]}

    def fold(self, state, keys, values, times):
        """What each block reads; and the memory after them. times: how often a
        block is folded (training), (count, blocks)."""
        keys, values = keys.to(state["m"].dtype), values.to(state["m"].dtype)
        blocks = keys.shape[1]
        waiting = [(keys[:, i], values[:, i], None if times is None else times[:, i])
                   for i in range(blocks)]
        waiting.insert(0, state["late"])
        m, z, read = state["m"], state["z"], []
        for i in range(blocks):
            read.append((m, z))
            if waiting[i] is not None:
                m, z = (fold_delta if self.rule == 2 else fold_linear)(m, z, *waiting[i])
        ms, zs = (torch.stack(x, 1).float() for x in zip(*read))
        return ms, zs, {"m": m, "z": z, "late": waiting[blocks]}

    def forward(self, ids, state=None, times=None, logits=True):
        """ids: (count, whole blocks). Returns logits and the state after them."""
        count, length = ids.shape
        blocks = length // BLOCK
        state = state or self.start(count)
        at, after = state["blocks"], []
        before, now = rope_tables(0, BLOCK), rope_tables(BLOCK, BLOCK)
        hidden = torch.full((blocks, 1, BLOCK, 2 * BLOCK), -math.inf).triu(BLOCK + 1)
        if at == 0:
            hidden[0, :, :, :BLOCK] = -math.inf
        empty = (torch.arange(at, at + blocks) < 2)[:, None, None, None]
        x = self.embedding(ids)

        def heads(y):
            return y.view(count, blocks, BLOCK, HEADS, HEAD).transpose(2, 3)

        for i, (layer, old) in enumerate(zip(self.layers, state["layers"])):
            h = layer.att_norm(x)
            k, v = heads(layer.wk(h)), heads(layer.wv(h))
            m, z, new = self.fold(old, F.elu(k) + 1, v, times)
            new["k"], new["v"] = k[:, -1:], v[:, -1:]
            after.append(new)
            if not logits and i == LAYERS - 1:
                break
            q = heads(layer.wq(h))
            features = F.elu(q) + 1
            recalled = features @ m / (features @ z.unsqueeze(-1) + 1e-30)
            k_before = torch.cat((old["k"], k[:, :-1]), 1)
            v_before = torch.cat((old["v"], v[:, :-1]), 1)
            k = torch.cat((rotate(k_before, before), rotate(k, now)), -2)
            scores = rotate(q, now) @ k.transpose(-1, -2) / math.sqrt(HEAD)
            seen = torch.softmax(scores + hidden, -1) @ torch.cat((v_before, v), -2)
            gate = torch.sigmoid(self.gate[i])[:, None, None]
            mixed = torch.where(empty, seen, gate * recalled + (1 - gate) * seen)
            x = layer.tail(x, mixed.transpose(2, 3).reshape(count, length, DIM))
        return self.logits(x) if logits else None, {"blocks": at + blocks, "layers": after}


def fold_linear(m, z, keys, values, times=None):
    add_m, add_z = keys.transpose(-1, -2) @ values, keys.sum(-2)
    if times is not None:
        add_m, add_z = add_m * times[:, None, None, None], add_z * times[:, None, None]
    return m + add_m, z + add_z


def fold_delta(m, z, keys, values, times=None):
    """Folding the same block n times is a differential equation in n; its steps
    may grow with n, so n = 65536 takes some twenty of them."""
    def once(m, z, step):
        held = keys @ m / (keys @ z.unsqueeze(-1) + 1e-300)
        add = keys.transpose(-1, -2) @ (values - held)
        return m + step[:, None, None, None] * add, z + step[:, None, None] * keys.sum(-2)

    done = torch.ones(len(keys), dtype=keys.dtype)
    m, z = once(m, z, done)
    if times is not None:
        left = times.to(keys.dtype) - 1
        while left.max() > 0:
            step = torch.minimum(left, 0.7 * done)
            m, z = once(m, z, step)
            left, done = left - step, done + step
            left = torch.where(left < 1e-3, torch.zeros_like(left), left)
    return m, z


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
    block. Rows stand at -ROWS .. -1 before the block, as keys and as queries."""
    window = block = FEEDBACK_BLOCK
    extra = ("rows",)

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(ROWS, DIM) * 0.5)
        self.pushes = []            # of the last block: what settle had to judge

    @staticmethod
    def attend(layer, y, hidden):
        tables = rope_tables(-ROWS, y.shape[1])
        h = layer.att_norm(y)
        q, k, v = (w(h).view(len(y), -1, HEADS, HEAD).transpose(1, 2)
                   for w in (layer.wq, layer.wk, layer.wv))
        scores = rotate(q, tables) @ rotate(k, tables).transpose(-1, -2) / math.sqrt(HEAD)
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
        hidden = torch.zeros(ROWS + length, ROWS + length)
        hidden[ROWS:, ROWS:] = torch.full((length, length), -math.inf).triu(1)
        x, after, self.pushes = self.embedding(ids), [], []
        for layer, old in zip(self.layers, rows):
            attended = self.attend(layer, torch.cat((old, x), 1), hidden)
            kept = torch.where(fresh[:, None, None], torch.zeros(()), old)
            y = layer.tail(torch.cat((kept, x), 1), attended)
            self.pushes.append(y[:, :ROWS] - old)
            after.append(settle(y[:, :ROWS], old, fresh))
            x = y[:, ROWS:]
        return self.logits(x) if logits else None, after

    def forward(self, ids, state=None, logits=True):
        state = state or self.start(len(ids))
        at, rows, out = state["blocks"], state["layers"], []
        for start in range(0, ids.shape[1], self.block):
            fresh = torch.full((len(ids),), at == 0)
            block_logits, rows = self.block_forward(ids[:, start:start + self.block], rows, fresh,
                                                    logits=logits)
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
    rows = ROWS if isinstance(model, Feedback) else 0
    after = [getattr(model, name) for name in model.extra]
    if rows:
        after.append(torch.tensor([ROW_LIMIT, ROW_REST]))
    with open(path, "wb") as f:
        f.write(struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, HEADS, VOCAB, model.window))
        for part in (*tensors(model), *rope_tables(0, model.window)):
            f.write(part.detach().numpy().astype("<f4").tobytes())
        f.write(b"LCXM" + struct.pack("<6i", 1, model.window, model.block, model.rule, rows, 0))
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
        at += model.window * HEAD + 7     # the rotation tables, "LCXM" and six numbers
        for name in model.extra:
            p = getattr(model, name)
            p.copy_(torch.tensor(values[at:at + p.numel()]).view(p.shape))
            at += p.numel()
    return model


# ---- training: what both kinds share ---------------------------------------------

class Trainer:
    """AdamW, and a running mean of the weights: that is what is written and measured."""

    def __init__(self, model: Model, rate: float, seconds: float, fade: float, continued: bool):
        self.model, self.rate, self.seconds, self.fade = model, rate, seconds, fade
        gates = [model.gate] if isinstance(model, Memory) else []
        others = [p for p in model.parameters() if all(p is not g for g in gates)]
        self.adam = torch.optim.AdamW(
            [{"params": [p for p in others if p.dim() == 2], "weight_decay": 0.01, "scale": 1.0},
             {"params": [p for p in others if p.dim() != 2], "weight_decay": 0.0, "scale": 1.0},
             {"params": gates, "weight_decay": 0.0, "scale": 5.0}], lr=rate, betas=(0.9, 0.98))
        self.mean = {name: p.clone() for name, p in model.state_dict().items()}
        self.steps, self.continued, self.began = 0, continued, time.time()

    def time_left(self) -> float:
        return self.seconds - (time.time() - self.began)

    def step(self, loss, frozen=()) -> None:
        self.steps += 1
        rate = self.rate * min(1.0, self.steps / 100, max(0.03, self.time_left() / self.fade))
        for group in self.adam.param_groups:
            group["lr"] = rate * group["scale"]
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        for p in frozen:
            p.grad = None
        if torch.isfinite(nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)):
            self.adam.step()
        keep = 0.995 if self.continued or self.steps > 200 else 0.9
        with torch.no_grad():
            for name, p in self.model.state_dict().items():
                self.mean[name].mul_(keep).add_(p, alpha=1 - keep)

    def export(self, kind: str, path: Path) -> None:
        model = make_model(kind)
        model.load_state_dict(self.mean)
        export_model(model, path)


def mean(values, last: int) -> float:
    return sum(values[-last:]) / max(1, len(values[-last:]))


# ---- training the memory -----------------------------------------------------------

# (blocks in a text, share of texts with a key, how many facts, what it takes to go
# on: share of digits and of halves of places right). Short texts first.
STAGES = [((2, 3, 4), 1.0, (0,), 0.93, 0.0),
          ((3, 4, 5), 1.0, (0,), 0.96, 0.0),
          ((4, 5, 6), 0.6, (0, 1, 1, 2), 2.0, 2.0)]
LOOK_UP_STAGES = [((2, 3), 0.2, (2, 3, 4), 0.00, 0.90),
                  ((2, 3, 4), 0.7, (0, 0, 1, 2, 4), 0.85, 0.80),
                  ((3, 4, 5), 0.6, (0, 1, 4, 8), 2.0, 2.0)]
FROZEN_STEPS = 350                  # of LOOK_UP_STAGES
MOST_TIMES = 65536


def prepare(model: Memory) -> None:
    """For --look-up. The first layer starts with one head that looks two tokens back
    and one that looks three back, where a thing's two words stand both before the
    place that is told and before the place that is asked for."""
    with torch.no_grad():
        model.embedding.weight[:, 0] = 1.0       # something that all tokens share
        for head in range(HEADS):
            for pair in range(4):
                angle = (head + 2) * THETA ** (-2 * pair / HEAD)
                row = head * HEAD + 2 * pair
                model.layers[0].wq.weight[row, 0] = 0.9
                model.layers[0].wk.weight[row, 0] = 0.9 * math.cos(angle)
                model.layers[0].wk.weight[row + 1, 0] = 0.9 * math.sin(angle)


def memory_text(text: Text, blocks: int, facts: int, key: bool):
    """Tokens, marks (1 a digit of an answer, 2 a half of a place) and whether
    something else than filler is told or asked. All ends anywhere in the last block."""
    random_, length = text.random, blocks * BLOCK
    told = text.facts(facts)
    # Asked with replacement: or the last answer is known by elimination.
    asked = [(*random_.choice(told)[1:], 2) for _ in range(min(8, facts))]
    sentences = [fact[0] for fact in told]
    if key:
        sentence, question, answer = text.key()
        sentences.append(sentence)
        asked.append((question, answer, 1))
    random_.shuffle(sentences)
    random_.shuffle(asked)
    end, marks = [], []
    for question, answer, kind in asked:
        between = random_.choice(text.sentences) if random_.random() < 0.3 else []
        end += between + question + answer + [STOP]
        marks += [0] * (len(between) + len(question)) + [kind] * len(answer) + [0]

    room = length - random_.randrange(BLOCK) - len(end) - 1 - sum(map(len, sentences))
    at = random_.randrange(len(text.sentences) - length)
    between = []
    while room >= len(text.sentences[at]):
        room -= len(text.sentences[at])
        between.append(text.sentences[at])
        at += 1
    low, high = 0, len(between)
    if between and random_.random() < 0.7:      # told close together: leaves whole blocks of filler
        middle, width = random_.randint(0, high), random_.randrange(1 + high // 3)
        low, high = max(0, middle - width), min(high, middle + width)
    places = sorted(random_.randint(low, high) for _ in sentences)
    ids, busy = [BOS], [1]
    for i in range(len(between) + 1):
        while places and places[0] == i:
            ids += sentences[-1]
            busy += [1] * len(sentences.pop())
            places.pop(0)
        if i < len(between):
            ids += between[i]
            busy += [0] * len(between[i])
    marks = [0] * len(ids) + marks + [0] * length
    busy += [1] * len(end) + [0] * length
    ids += end
    while len(ids) < length:
        ids += text.sentences[at]
        at += 1
    return ids[:length], marks[:length], busy[:length]


def train_memory(kind: str, path: Path, source: Path | None, rate: float, seconds: float,
                 fade: float, look_up: bool) -> None:
    """What makes it last: a block of pure filler may be folded r times over, r up to
    65536, evenly in its logarithm. So a text of five blocks has the memory of one of
    millions of tokens, at the price of five."""
    text = Text(SEED, 1_500_000)
    model = make_model(kind)
    stages, frozen = STAGES, []
    if look_up:
        stages, frozen = LOOK_UP_STAGES, [model.layers[0].wq.weight, model.layers[0].wk.weight]
        prepare(model)
    if source:
        import_model(model, source)
    stage = len(stages) - 1 if source else 0
    trainer = Trainer(model, rate, seconds, fade, source is not None)
    times = {1: float(MOST_TIMES), 2: float(MOST_TIMES)} if source else {1: 1.0, 2: 1.0}
    right = {1: [], 2: []}
    while trainer.time_left() > 0:
        blocks, with_key, facts, need_key, need_fact = stages[stage]
        blocks, facts = text.random.choice(blocks), text.random.choice(facts)
        if facts * 10 + min(8, facts) * 12 + 40 > blocks * BLOCK:
            continue
        count = max(4, 72 // blocks)
        key = facts == 0 or text.random.random() < with_key
        ids, marks, busy = (torch.tensor(x) for x in zip(
            *(memory_text(text, blocks, facts, key) for _ in range(count))))
        most = times[2 if facts else 1]
        again = torch.exp(torch.rand(count, blocks) * math.log(most))
        pure = busy.view(count, blocks, BLOCK).sum(-1) == 0
        again = torch.where(pure & (torch.rand(count, 1) < 0.7), again, torch.ones(()))

        logits, _ = model(ids, times=again)
        lost = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(),
                               reduction="none").view(count, -1)
        answer = marks[:, 1:] > 0
        trainer.step(lost[answer].mean() + 0.1 * lost[~answer].mean(),
                     frozen if trainer.steps < FROZEN_STEPS else [])
        hits = (logits[:, :-1].argmax(-1) == ids[:, 1:]).float()
        for mark in right:
            if (marks[:, 1:] == mark).any():
                right[mark].append(hits[marks[:, 1:] == mark].mean().item())
        if trainer.steps % 50:
            continue
        keys, places = mean(right[1], 50), mean(right[2], 50)
        print(f"{kind} step {trainer.steps} stage {stage} times {times[1]:.0f} {times[2]:.0f} "
              f"digits {keys:.3f} places {places:.3f} filler {lost[~answer].mean():.3f} "
              f"left {trainer.time_left():.0f} s", flush=True)
        trainer.export(kind, path)
        if stage > 0:
            for mark, need in ((1, 0.95), (2, 0.80)):
                if len(right[mark]) >= 30 and mean(right[mark], 50) > need:
                    times[mark] = min(float(MOST_TIMES), times[mark] * 3)
        enough = len(right[1]) >= 30 and (len(right[2]) >= 30 or need_fact == 0)
        ready = look_up or stage == 0 or times[1] > 2000
        if ready and enough and keys > need_key and places >= need_fact:
            stage, right = stage + 1, {1: [], 2: []}


# ---- training the feedback rows ------------------------------------------------------

def key_blocks(text: Text, sentence: list[int], blocks: int, fresh: bool) -> list[int]:
    """Whole blocks with the key told somewhere, often across the end of a block."""
    random_, length = text.random, blocks * FEEDBACK_BLOCK
    ids = [BOS] if fresh else text.cut(random_.randrange(1, 9))
    place = random_.randrange(1, length - len(sentence) + 1)
    if blocks > 1 and random_.random() < 0.6:
        end = FEEDBACK_BLOCK * random_.randint(1, blocks - 1)
        place = end - random_.randrange(len(sentence) + 1)
    elif blocks == 1 and random_.random() < 0.2:
        place = length - random_.randrange(len(sentence), len(sentence) + 10)
    place = min(place, length - len(sentence) - (0 if fresh else 9))
    at = random_.randrange(len(text.sentences) - length)
    while len(ids) + len(text.sentences[at]) <= place:
        ids += text.sentences[at]
        at += 1
    return (ids + sentence + text.cut(length))[:length]


def question_blocks(text: Text, question, answer, sentence, at_once: bool):
    """Two blocks with the question, a third of the times near or across the end of
    the first; sentence: the key is told here only, at_once if its beginning was the
    end of the block before. Tokens, and marks at the answer."""
    random_, length = text.random, len(question) + len(answer)
    place = random_.randrange(FEEDBACK_BLOCK - length)
    if random_.random() < 0.3:
        place = random_.randrange(FEEDBACK_BLOCK - length - 2, FEEDBACK_BLOCK)
    place = max(place, len(sentence))
    before = 0 if at_once else random_.randrange(place - len(sentence) + 1)
    ids = text.cut(before) + sentence + text.cut(place - len(sentence) - before)
    marks = [0] * (place + len(question)) + [1] * len(answer) + [0] * 2 * FEEDBACK_BLOCK
    ids += question + answer + [STOP] + text.cut(2 * FEEDBACK_BLOCK)
    return ids[:2 * FEEDBACK_BLOCK], marks[:2 * FEEDBACK_BLOCK]


class Stream:
    """A text under way: its rows, the key told in it or None, its age in blocks."""

    def __init__(self, rows, key, age: int, life: int):
        self.rows, self.key, self.age, self.life = rows, key, age, life


def train_feedback(path: Path, source: Path | None, rate: float, seconds: float,
                   fade: float) -> None:
    """Random state passing: half of a batch are new texts, half go on from the rows
    that an earlier step left. After one or two blocks the key is asked, aside: the
    rows that the question leaves are thrown away. Texts whose key is lost are
    dropped: nothing is to be learned from them. Every third step the texts are aged
    by up to 64 blocks without gradient."""
    text = Text(SEED, 1_500_000)
    random_, size, count = text.random, FEEDBACK_BLOCK, 20
    model = Feedback()
    if source:
        import_model(model, source)
    trainer = Trainer(model, rate, seconds, fade, source is not None)
    pool, oldest = [], 4096 if source else 0
    right = {"new": [], "held": [], "near": []}
    old = torch.zeros(count, dtype=torch.bool)
    while trainer.time_left() > 0:
        picked = []
        if len(pool) >= count // 2:
            picked = [pool.pop(random_.randrange(len(pool))) for _ in range(count // 2)]
        blocks = random_.choice((1, 2, 2) if oldest else (1, 2))
        kinds, keys, ids, asked, cuts = [], [], [], [], []
        for i in range(count):
            stream = picked[i] if i < len(picked) else None
            key, kind = (stream.key, "held") if stream and stream.key else (text.key(), "new")
            if kind == "new" and oldest and random_.random() < 0.35:
                kind = "near"       # told in the block of the question, or half of it
            if kind == "new":
                ids.append(key_blocks(text, key[0], blocks, stream is None))
            else:
                ids.append(([] if stream else [BOS]) + text.cut(blocks * size - (stream is None)))
            cut = 0
            if kind == "near" and random_.random() < 0.5:
                cut = random_.randrange(1, len(key[0]))
                ids[-1][-cut:] = key[0][:cut]
            kinds.append(kind)
            keys.append(key)
            cuts.append(cut)
            asked.append(question_blocks(text, key[1], key[2],
                                         key[0][cut:] if kind == "near" else [], cut > 0))
        ids = torch.tensor(ids)
        questions, marks = (torch.tensor(x) for x in zip(*asked))
        held = torch.tensor([kind == "held" for kind in kinds])
        fresh = torch.arange(count) >= len(picked)

        rows = model.start(count - len(picked))["layers"]
        if picked:
            rows = [torch.cat((torch.stack([s.rows[i] for s in picked]), new))
                    for i, new in enumerate(rows)]
        filler_loss, push_loss = 0.0, 0.0
        for start in range(0, blocks * size, size):
            block = ids[:, start:start + size]
            logits, rows = model.block_forward(block, rows, fresh if start == 0 else old)
            guessed, right_ids = logits[:, :-1].flatten(0, 1), block[:, 1:].flatten()
            filler_loss += F.cross_entropy(guessed, right_ids) / blocks
            if held.any():      # filler is to push by less than 0.6 of what would move a row
                push_loss += sum((push[held].abs() - 0.6 * ROW_REST).clamp(min=0).square()
                                 .sum((1, 2)).mean() for push in model.pushes) / blocks
        kept = [row.detach() for row in rows]
        logits, _ = model(questions, {"blocks": 1, "layers": rows})
        answer = marks[:, 1:] > 0
        lost = F.cross_entropy(logits[:, :-1][answer], questions[:, 1:][answer])
        trainer.step(lost + 0.1 * filler_loss + 0.1 * push_loss)

        hits = ((logits[:, :-1].argmax(-1) == questions[:, 1:]) & answer).sum(1)
        age = 0
        if oldest and trainer.steps % 3 == 0:
            age = int(64 ** random_.random())
            with torch.no_grad():
                for _ in range(age):
                    filler_ids = torch.tensor([text.cut(size) for _ in range(count)])
                    kept = model.block_forward(filler_ids, kept, old, logits=False)[1]
        for i, kind in enumerate(kinds):
            right[kind].append(hits[i].item() / 5)
            if cuts[i]:
                continue            # half a key is told in it
            stream = picked[i] if i < len(picked) else Stream(
                None, None, 0, int(max(1, oldest) ** random_.random()) + 1)
            stream.rows, stream.age = [row[i] for row in kept], stream.age + blocks + age
            if kind == "new":
                stream.key = keys[i]
            if oldest and stream.age < stream.life and len(pool) < 8 * count and (
                    kind == "near" or hits[i] >= 4):
                pool.append(stream)
        if trainer.steps % 50 == 0:
            new, held_, near = (mean(right[kind], 600) for kind in ("new", "held", "near"))
            print(f"feedback step {trainer.steps} oldest {oldest} digits new {new:.3f} "
                  f"held {held_:.3f} near {near:.3f} filler {filler_loss:.3f} "
                  f"left {trainer.time_left():.0f} s", flush=True)
            trainer.export("feedback", path)
            if len(right["new"]) >= 600 and new > 0.9 and (oldest == 0 or held_ > new - 0.05):
                oldest, right["new"] = min(4096, max(8, 2 * oldest)), right["new"][-300:]


# ---- measuring -------------------------------------------------------------------------

def long_text(text: Text, length: int, told) -> np.ndarray:
    """The beginning-of-text token, then length tokens of filler, with the sentences
    of told, (place, tokens), put in before the sentence that is next."""
    whole = sum(start < len(text.tokens) - length for start in text.starts)
    begin = text.starts[text.random.randrange(whole)]
    out, at = [np.array([BOS], dtype=np.int16)], begin
    for place, sentence in sorted(told):
        next_ = max(at, text.starts[bisect.bisect_left(text.starts, begin + place)])
        out += [text.tokens[at:next_], np.array(sentence, dtype=np.int16)]
        at = next_
    return np.concatenate([*out, text.tokens[at:begin + length]])


def repeat(state, times: int):
    """Every text of a state several times over."""
    if isinstance(state, dict):
        return {name: repeat(value, times) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(repeat(value, times) for value in state)
    return state.repeat_interleave(times, 0) if torch.is_tensor(state) else state


def answer(model, state, endings, length: int):
    """What the model says after the endings, fed back to itself."""
    said = [list(ending) for ending in endings]
    for _ in range(length):
        longest = -(-max(map(len, said)) // model.block) * model.block
        ids = torch.tensor([ending + [STOP] * (longest - len(ending)) for ending in said])
        logits, _ = model(ids, state)
        for i, ending in enumerate(said):
            ending.append(logits[i, len(ending) - 1].argmax().item())
    return [ending[-length:] for ending in said]


@torch.no_grad()
def ask(model, text: Text, length: int, trials: int, place: str, facts: int):
    """Right tokens, right answers, answers. One key, or facts all over the text, four
    of which are asked apart from each other. The end is anywhere in a block."""
    random_, block = text.random, model.block
    whole = max(1, (length - 80) // block) * block
    texts, endings, want = [], [], []
    each = 4 if facts else 1
    for _ in range(trials):
        size = whole + random_.randrange(block)
        told = text.facts(facts) if facts else [text.key()]
        room = size - 1 - sum(len(t[0]) for t in told)
        if facts:
            places = [random_.randrange(max(1, room - 20)) for _ in told]
        else:
            places = [{"start": random_.randrange(max(1, min(150, room - 30))),
                       "middle": room // 2 + random_.randrange(-60, 60),
                       "end": room - 20 - random_.randrange(150)}[place]]
        ids = long_text(text, room, [(max(0, p), t[0]) for p, t in zip(places, told)])
        texts.append(ids[:whole])
        for _ in range(each):
            _, question, right = random_.choice(told)
            endings.append(ids[whole:].tolist() + question)
            want.append(right)
    state = None
    step = max(1, 512 // block) * block
    for at in range(0, whole, step):
        ids = np.stack([ids[at:at + step] for ids in texts]).astype(np.int64)
        _, state = model(torch.from_numpy(ids), state, logits=False)
    said = answer(model, repeat(state, each), endings, len(want[0]))
    tokens_right = sum(a == b for s, w in zip(said, want) for a, b in zip(s, w))
    return tokens_right, sum(s == w for s, w in zip(said, want)), len(want)


def measure(kind: str, path: Path, lengths, trials: int, facts) -> None:
    model = import_model(make_model(kind), path).eval()
    text = Text(SEED + 76, 2 * max([*lengths, 500_000]))
    began = time.time()

    def tell(what, length, place, facts_):
        right, whole, count = ask(model, text, length, trials, place, facts_)
        size = 2 if facts_ else 5
        print(f"{what} {length} tokens {place}: parts {right}/{size * count} "
              f"whole {whole}/{count}, {time.time() - began:.0f} s", flush=True)

    for length in lengths:
        for place in ("start", "middle", "end"):
            tell("key", length, place, 0)
    for count in facts:
        tell(f"{count} facts", 8192, "anywhere", count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=(*RULES, "tokenizer"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--source", type=Path, help="go on from this model")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, help="2e-3, or 1e-3 for feedback")
    parser.add_argument("--fade", type=float, default=600, help="the rate falls for so long")
    parser.add_argument("--look-up", action="store_true", help="train for facts, too")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--lengths", type=int, nargs="*", default=[512, 2048, 8192, 32768])
    parser.add_argument("--facts", type=int, nargs="*", default=[])
    parser.add_argument("--trials", type=int, default=40)
    args = parser.parse_args()
    rate = args.rate or (1e-3 if args.kind == "feedback" else 2e-3)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    if args.kind == "tokenizer":
        export_tokenizer(args.file)
    elif args.measure:
        measure(args.kind, args.file, args.lengths, args.trials, args.facts)
    elif args.kind == "feedback":
        train_feedback(args.file, args.source, rate, args.seconds, args.fade)
    else:
        train_memory(args.kind, args.file, args.source, rate, args.seconds, args.fade,
                     args.look_up)


if __name__ == "__main__":
    main()
