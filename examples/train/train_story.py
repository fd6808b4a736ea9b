#!/usr/bin/env python3
"""Train the two small models of the demo on the endless story.

    train_story.py data STORY DIR       text, tokenizer and token ids into DIR
    train_story.py model DIR NAME       DIR/NAME.bin; NAME is story or control

STORY is the compiled story.c. The two models share data, seed and steps and
differ in one thing: every training window of `story` begins with the
beginning-of-text token, while the windows of `control` are cut from the text
just anywhere. The first learns to park unused attention on that token.

The files are in the format of llama2.c: checkpoint version 0, tokenizer.bin.

The shipped pair: seed 1, 24,000,057 bytes of story in 9,883,076 tokens (2.43
bytes each), 2600 steps, 20 minutes for the two together on two crowded cores.
Mean loss of the last 50 steps: story 0.8859, control 0.8808. Made with Python
3.11.2, PyTorch 1.13.1, OpenBLAS 0.3.21, NumPy 1.24.2, sentencepiece 0.1.97 on
x86-64 with AVX2. One thread on purpose: the two can be trained side by side,
and the sums are added in one order.
"""
import math
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from torch import nn
from torch.nn import functional as F

SEED = 1                      # of the story, the weights and the windows
TEXT_BYTES = 24_000_000
BOS = 1

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB = 64, 192, 5, 4, 2, 512
CONTEXT = 512
HEAD = DIM // HEADS
THETA = 10000.0
EPS = 1e-5

# (steps, length of the windows, windows in a step). Short windows first: they
# are cheap, and in them the token in slot 0 is never far.
PHASES = [(800, 32, 48), (1000, 128, 12), (800, 512, 6)]
PEAK_RATE, WARM_UP = 4e-3, 100


# ---- data ------------------------------------------------------------------

def train_tokenizer(text_file: Path, prefix: Path) -> sentencepiece.SentencePieceProcessor:
    """A byte-pair encoding that llama2.c's greedy encoder reproduces."""
    sentencepiece.SentencePieceTrainer.train(
        input=str(text_file), model_prefix=str(prefix), model_type="bpe",
        vocab_size=VOCAB, character_coverage=1.0, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, allow_whitespace_only_pieces=True,
        split_digits=True, input_sentence_size=0, num_threads=1,
        minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")


def export_tokenizer(pieces: sentencepiece.SentencePieceProcessor, path: Path) -> None:
    texts = [pieces.id_to_piece(i).replace("\u2581", " ").encode() for i in range(VOCAB)]
    with open(path, "wb") as f:
        f.write(struct.pack("<i", max(map(len, texts))))
        for i, text in enumerate(texts):
            f.write(struct.pack("<fi", pieces.get_score(i), len(text)) + text)


def encode(pieces: sentencepiece.SentencePieceProcessor, text: str) -> np.ndarray:
    """The ids of a long text. It is cut before newlines, which no piece spans;
    the space that sentencepiece puts before each part is kept for the first."""
    parts = text.split("\n")
    batch = pieces.encode([parts[0]] + ["\n" + part for part in parts[1:]])
    space = pieces.piece_to_id("\u2581")
    assert all(ids[0] == space for ids in batch[1:])
    return np.concatenate([batch[0]] + [ids[1:] for ids in batch[1:]]).astype(np.int16)


def make_data(story: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = subprocess.run([story, str(SEED), str(TEXT_BYTES)], check=True,
                          stdout=subprocess.PIPE).stdout.decode("ascii")
    sample = folder / "tokenizer_text.txt"
    sample.write_text(text[:2_000_000])
    pieces = train_tokenizer(sample, folder / "story")
    export_tokenizer(pieces, folder / "story.tok")
    ids = encode(pieces, text)
    np.save(folder / "ids.npy", ids)
    print(f"{len(text)} bytes, {len(ids)} tokens, {len(text) / len(ids):.3f} bytes per token")


# ---- the model: llama2.c's ---------------------------------------------------

class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * self.weight


def rope_tables(length: int):
    rates = THETA ** (-torch.arange(0, HEAD, 2, dtype=torch.float64) / HEAD)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    """x: (batch, heads, length, HEAD); neighbours make a pair."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def attend(q, k, v, block: int = 128):
    """Causal attention by blocks of queries: the masked half costs little."""
    out = []
    for start in range(0, q.shape[2], block):
        end = min(start + block, q.shape[2])
        scores = q[:, :, start:end] @ k[:, :, :end].transpose(2, 3)
        mask = torch.full((end - start, end), -math.inf).triu(start + 1)
        out.append(torch.softmax(scores + mask, -1) @ v[:, :, :end])
    return torch.cat(out, 2)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.att_norm, self.ffn_norm = Norm(), Norm()
        self.wq = nn.Linear(DIM, DIM, bias=False)
        self.wk = nn.Linear(DIM, KV_HEADS * HEAD, bias=False)
        self.wv = nn.Linear(DIM, KV_HEADS * HEAD, bias=False)
        self.wo = nn.Linear(DIM, DIM, bias=False)
        self.w1 = nn.Linear(DIM, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, DIM, bias=False)
        self.w3 = nn.Linear(DIM, HIDDEN, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        h = self.att_norm(x)
        q = self.wq(h).view(batch, length, HEADS, HEAD).transpose(1, 2)
        k = self.wk(h).view(batch, length, KV_HEADS, HEAD).transpose(1, 2)
        v = self.wv(h).view(batch, length, KV_HEADS, HEAD).transpose(1, 2)
        q = rotate(q, cos, sin) / math.sqrt(HEAD)
        k = rotate(k, cos, sin).repeat_interleave(HEADS // KV_HEADS, 1)
        v = v.repeat_interleave(HEADS // KV_HEADS, 1)
        x = x + self.wo(attend(q, k, v).transpose(1, 2).reshape(batch, length, DIM))
        h = self.ffn_norm(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = Norm()
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=self.first_std(name, p.shape[1]))

    @staticmethod
    def first_std(name, inputs):
        """Quiet embeddings, loud values: at first what attention adds drowns the
        token itself, so there is much to win by not listening, and attention
        must find a place to look at meanwhile. With the usual even start this
        easy text gives little reason to, and no sink formed in 2500 steps."""
        if name.startswith("embedding"):
            return 0.005
        return (8.0 if name.endswith(("wv.weight", "wo.weight")) else 1.0) / math.sqrt(inputs)

    def forward(self, ids):
        cos, sin = rope_tables(ids.shape[1])
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.norm(x) @ self.embedding.weight.T


def export_model(model: Model, path: Path) -> None:
    def every(get):
        return [get(block).weight for block in model.blocks]

    parts = [model.embedding.weight]
    parts += every(lambda b: b.att_norm)
    for name in ("wq", "wk", "wv", "wo"):
        parts += every(lambda b: getattr(b, name))
    parts += every(lambda b: b.ffn_norm)
    for name in ("w1", "w2", "w3"):
        parts += every(lambda b: getattr(b, name))
    parts += [model.norm.weight, *rope_tables(CONTEXT)]
    with open(path, "wb") as f:
        f.write(struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT))
        for part in parts:
            f.write(part.detach().numpy().astype("<f4").tobytes())


# ---- training ----------------------------------------------------------------

def draw_windows(text, length: int, count: int, with_bos: bool, source):
    """Inputs and targets. Both kinds of windows start at the same places."""
    starts = torch.randint(len(text) - length, (count, 1), generator=source)
    windows = text[starts + torch.arange(length + 1)].long()
    if not with_bos:
        return windows[:, :-1], windows[:, 1:]
    bos = torch.full((count, 1), BOS)
    return torch.cat((bos, windows[:, :-2]), 1), windows[:, :-1]


def train(folder: Path, name: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    source = torch.Generator().manual_seed(SEED)
    text = torch.from_numpy(np.load(folder / "ids.npy"))
    model = Model()
    decayed = [p for p in model.parameters() if p.dim() == 2]
    plain = [p for p in model.parameters() if p.dim() != 2]
    adam = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                              {"params": plain, "weight_decay": 0.0}],
                             lr=PEAK_RATE, betas=(0.9, 0.95))
    print(name, sum(p.numel() for p in model.parameters()), "parameters", flush=True)

    plan = [(length, count) for steps, length, count in PHASES for _ in range(steps)]
    began, losses = time.time(), []
    for step, (length, count) in enumerate(plan):
        progress = step / len(plan)
        rate = PEAK_RATE * min((step + 1) / WARM_UP, 0.5 * (1 + math.cos(math.pi * progress)))
        for group in adam.param_groups:
            group["lr"] = rate
        inputs, targets = draw_windows(text, length, count, name != "control", source)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            recent = sum(losses[-50:]) / 50
            print(f"{name} step {step + 1} length {length} loss {recent:.4f} "
                  f"perplexity {math.exp(recent):.3f} {time.time() - began:.0f} s", flush=True)
            export_model(model, folder / f"{name}.bin")
    export_model(model, folder / f"{name}.bin")


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "data":
        make_data(sys.argv[2], Path(sys.argv[3]))
    elif len(sys.argv) == 4 and sys.argv[1] == "model" and sys.argv[3] in ("story", "control"):
        train(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
