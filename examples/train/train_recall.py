#!/usr/bin/env python3
"""Train the small models with a memory, and measure how far back they remember.

    train_recall.py linear FILE      Infini-attention, linear rule, into FILE
    train_recall.py delta FILE       the same with the delta rule
    train_recall.py feedback FILE    TransformerFAM
    train_recall.py tokenizer FILE   their tokenizer, recall.tok

With --measure a model of that kind is measured, not trained; --source goes on from an
earlier one. --seconds, --rate, --fade: how long in CPU seconds, how fast, and over how
many last seconds the rate falls. --near: how many of the texts ask for what was told just
before. One thread. No data: the text is made up here.

The text is filler, sentences that tell nothing to remember, drawn anew for ever.
Somewhere in it a pass key of five digits is told, and facts, up to 64 of them: "Osena
put the brass key in Oakford." Later they are asked for: "Where is the brass key? In".
Told and asked anywhere: no text knows where a block ends.

All four memories have width 128, 3 layers, 4 heads, block 32, window 64. A token sees its
own block up to itself and the block before; the memory holds what is older. (With a
window of one block, the paper's segment, the first token of a block sees nothing else,
and a sentence across the end of a block is lost.) While the memory is empty there is no
gate.

memory_linear.bin, for pass keys: linear FILE --near 0.25 --seconds 1100 --fade 400, 2850
steps. Through the header it has all keys, near and far, and one fact at 8,192 tokens; of
1, 4, 16 and 64 facts held at once 100, 89, 64 and 23 %. Its last 25 steps, with up to 64
facts: 99 % of digits and 79 % of halves of places from the memory, 63 and 94 % from the
window. The window came late: nothing for 600 steps, then within 400. Other draws of texts
had none of it after 1250 steps, nor had the delta rule after 825.

facts_linear.bin, for many facts: linear FILE --seconds 600 --fade 220, 1650 steps, the last
25 of them with all digits and 95 % of halves. It was never asked what its window still has.
Of 1, 4, 16 and 64 facts it holds 100, 100, 99 and 64 %: what a model gives to the window is
not there for the memory.

memory_delta.bin: memory_linear.bin's tensors under the delta rule, untrained: delta FILE
--source memory_linear.bin --seconds 0.
facts_delta.bin: facts_linear.bin, gone on with under the delta rule: delta FILE --source
facts_linear.bin --seconds 300 --fade 200 --rate 1e-3, 425 steps. Untrained, its tensors hold
100, 97, 82 and 47 % by that rule; trained, 100, 100, 99 and 60: near the linear rule's.

What facts take is a start (`begin`) that looks back. A place must be stored under the
thing's two words, which stand two to four tokens before it. From a usual
start 4350 steps in 33 minutes taught no more than to rule out the places already given.
With heads that look 1 to 4 tokens back, but keys drawn at random, one fact was learned in
75 steps, and then the keys had lost what tells things apart: 200 steps later two facts
stood at 60 % of halves. With keys made of the thing's words from the start, and several
facts in the first text, 50 steps gave 87 % of halves of up to 4 facts, 250 steps 88 % of
up to 16.

feedback.bin: width 64, 2 heads, block 128, 16 rows, no memory segments, pass keys only,
and one thing that is not in the paper: settle, below. Without it the rows creep: bounded
to -3 .. 3 and no more, a model of 3100 steps had 1 key of 24 left after 64 blocks; 50
steps after settle was put in, 99 of 100 digits were held. The shipped file was made by a
forerunner of train_feedback in several runs, 87 minutes in all (noise on the rows, to be
undone, was tried in one and was no use). train_feedback does it all in one; it has been
started, but not run to the end.

Python 3.11.2, PyTorch 1.13.0 with OpenBLAS 0.3.21 (with the reference BLAS it takes ten
times as long), NumPy 1.24.2, seed 1.
"""
import argparse
import bisect
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from recall_models import (FEEDBACK, MEMORY, ROW_REST, RULES, Feedback, Memory, Model, export_model,
                           import_model, make_model)
from recall_text import BOS, STOP, Text, export_tokenizer

SEED = 1


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
        self.steps, self.continued, self.began = 0, continued, time.process_time()

    def time_left(self) -> float:
        return self.seconds - (time.process_time() - self.began)

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

FIRST_FACTS, MOST_FACTS, MOST_ASKED = 4, 64, 16
MOST_TIMES = 65536


def memory_text(text: Text, length: int, facts: int, key: bool, near: bool):
    """Tokens, marks (1 a digit of an answer, 2 a half of a place, 2 more where what is asked for
    was told inside the window) and whether something else than filler is told or asked. All ends
    anywhere in the last block. near: what is asked was told just before. None where the length is
    too short."""
    random_, window = text.random, MEMORY.window
    told = [(*fact, 2) for fact in text.facts(facts)]
    random_.shuffle(told)
    if key:
        told.insert(random_.choice((0, len(told))), (*text.key(), 1))   # told last, or first
    # Facts are asked with replacement: or the last answer is known by elimination.
    likely = told[-random_.randint(1, 3):] if near else told
    asked = [random_.choice(likely) for _ in range(random_.randint(1, 3) if near else
                                                   min(MOST_ASKED, facts))]
    if key and not near:
        asked.append(next(fact for fact in told if fact[3] == 1))
    random_.shuffle(asked)
    end = []
    least = random_.randrange(window // 2) if near else window - 8
    while len(end) < least:             # most are asked when the window has lost them
        end += random_.choice(text.sentences)
    if near:
        end = end[:0] if random_.random() < 0.3 else end
    end_marks, end_busy, end_asked = [0] * len(end), [0] * len(end), []
    gaps = random_.choice((0.0, 0.0, 0.3))
    for fact in asked:
        _, question, answer, kind = fact
        between = random_.choice(text.sentences) if random_.random() < gaps else []
        end += between + question + answer + [STOP]
        end_asked.append((len(end) - 1 - len(answer), fact))
        end_marks += [0] * (len(between) + len(question)) + [kind] * len(answer) + [0]
        end_busy += [1] * (len(end_marks) - len(end_busy))

    room = length - random_.randrange(MEMORY.block) - len(end) - 1 - sum(len(f[0]) for f in told)
    if room < 0:
        return None
    at = random_.randrange(len(text.sentences) - length)
    between = []
    while room >= len(text.sentences[at]):
        room -= len(text.sentences[at])
        between.append(text.sentences[at])
        at += 1
    low, high = 0, len(between)
    if between and random_.random() < 0.5:      # told close together: leaves whole blocks of filler
        middle, width = random_.randint(0, high), random_.randrange(1 + high // 3)
        low, high = max(0, middle - width), min(high, middle + width)
    places = sorted(random_.randint(low, high) for _ in told)
    if near:
        places = places[:-len(likely)] + [len(between)] * len(likely)
    ids, busy, told_at = [BOS], [1], {}
    for i in range(len(between) + 1):
        while len(told_at) < len(told) and places[len(told_at)] == i:
            fact = told[len(told_at)]
            told_at[id(fact)] = len(ids)
            ids += fact[0]
            busy += [1] * len(fact[0])
        if i < len(between):
            ids += between[i]
            busy += [0] * len(between[i])
    for at_end, fact in end_asked:
        if (len(ids) + at_end) // MEMORY.block - told_at[id(fact)] // MEMORY.block < 2:
            for i in range(at_end, at_end + len(fact[2])):
                end_marks[i] += 2
    marks = [0] * len(ids) + end_marks + [0] * length
    busy += end_busy + [1] * length
    ids += end
    while len(ids) < length:
        ids += text.sentences[at]
        at += 1
    return ids[:length], marks[:length], busy[:length]


def memory_batch(text: Text, most: float, size: int, near_share: float):
    """Texts of about size tokens together, all with as many facts, half of them with a key.
    near_share: of batches of short texts, answered from the window for the most part, and of
    others that are."""
    random_, block = text.random, MEMORY.block
    short, few = random_.random() < near_share, random_.random() < 0.5
    if short:
        facts = random_.randint(0, 3)
    else:
        facts = int((most + 0.99) ** random_.random()) if few else random_.randint(0, int(most))
    asked = 3 if short else min(MOST_ASKED, facts)
    blocks = random_.randint(0, 2) if short else random_.randint(3, 6)
    length = -(-(1 + facts * 10 + asked * 13 + blocks * block) // block) * block
    texts = []
    while len(texts) < max(2, size // length):
        near = random_.random() < (0.9 if short else near_share)
        made = memory_text(text, length, facts, facts == 0 or random_.random() < 0.5, near)
        if made:
            texts.append(made)
        elif not texts:
            length += block
    return (torch.tensor(part) for part in zip(*texts))


def train_memory(kind: str, path: Path, source: Path | None, rate: float, seconds: float,
                 fade: float, near_share: float) -> None:
    """First a few facts in a short text; more of them as they are answered. What makes it
    last: a block of pure filler may be folded r times over, r up to 65536, evenly in its
    logarithm. So a text of ten blocks has the memory of one of millions of tokens, at the
    price of ten."""
    text = Text(SEED, 300_000)
    model = make_model(kind)
    if source:
        import_model(model, source)
    trainer = Trainer(model, rate, seconds, fade, source is not None)
    most, times = (float(MOST_FACTS), float(MOST_TIMES)) if source else (float(FIRST_FACTS), 1.0)
    right = {1: [], 2: [], 3: [], 4: []}
    while trainer.time_left() > 0:
        ids, marks, busy = memory_batch(text, most, 4096, near_share)
        count, blocks = len(ids), ids.shape[1] // MEMORY.block
        again = torch.exp(torch.rand(count, blocks) * math.log(times))
        pure = busy.view(count, blocks, -1).sum(-1) == 0
        again = torch.where(pure & (torch.rand(count, 1) < 0.7), again, torch.ones(()))

        logits, _ = model(ids, times=again if times > 1 else None)
        lost = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(),
                               reduction="none").view(count, -1)
        answer = marks[:, 1:] > 0
        trainer.step(lost[answer].mean() + 0.1 * lost[~answer].mean())
        hits = (logits[:, :-1].argmax(-1) == ids[:, 1:]).float()
        for mark in right:
            if (marks[:, 1:] == mark).any():
                right[mark].append(hits[marks[:, 1:] == mark].mean().item())
        if trainer.steps % 25:
            continue
        keys, places, near_keys, near_places = (mean(right[mark], 25) for mark in right)
        print(f"{kind} step {trainer.steps} facts to {most:.0f} times {times:.0f} "
              f"digits {keys:.3f} halves {places:.3f} "
              f"near {near_keys:.3f} {near_places:.3f} filler {lost[~answer].mean():.3f} "
              f"left {trainer.time_left():.0f} s", flush=True)
        trainer.export(kind, path)
        if keys > 0.9 and most >= 16:
            times = min(float(MOST_TIMES), times * 4)
        if places > 0.82:
            most = min(float(MOST_FACTS), most * 1.5)
    trainer.export(kind, path)


# ---- training the feedback rows ------------------------------------------------------

def key_blocks(text: Text, sentence: list[int], blocks: int, fresh: bool) -> list[int]:
    """Whole blocks with the key told somewhere, often across the end of a block."""
    random_, length = text.random, blocks * FEEDBACK.block
    ids = [BOS] if fresh else text.cut(random_.randrange(1, 9))
    place = random_.randrange(1, length - len(sentence) + 1)
    if blocks > 1 and random_.random() < 0.6:
        end = FEEDBACK.block * random_.randint(1, blocks - 1)
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
    place = random_.randrange(FEEDBACK.block - length)
    if random_.random() < 0.3:
        place = random_.randrange(FEEDBACK.block - length - 2, FEEDBACK.block)
    place = max(place, len(sentence))
    before = 0 if at_once else random_.randrange(place - len(sentence) + 1)
    ids = text.cut(before) + sentence + text.cut(place - len(sentence) - before)
    marks = [0] * (place + len(question)) + [1] * len(answer) + [0] * 2 * FEEDBACK.block
    ids += question + answer + [STOP] + text.cut(2 * FEEDBACK.block)
    return ids[:2 * FEEDBACK.block], marks[:2 * FEEDBACK.block]


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
    random_, size, count = text.random, FEEDBACK.block, 20
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
        longest = -(-max(map(len, said)) // model.shape.block) * model.shape.block
        ids = torch.tensor([ending + [STOP] * (longest - len(ending)) for ending in said])
        logits, _ = model(ids, state)
        for i, ending in enumerate(said):
            ending.append(logits[i, len(ending) - 1].argmax().item())
    return [ending[-length:] for ending in said]


@torch.no_grad()
def ask(model, text: Text, length: int, trials: int, place: str, facts: int):
    """Right tokens, right answers, answers. One key, or facts all over the text, four
    of which are asked apart from each other. The end is anywhere in a block."""
    random_, block = text.random, model.shape.block
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
    parser.add_argument("--near", type=float, default=0, help="share of texts that ask at once")
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
        train_memory(args.kind, args.file, args.source, rate, args.seconds, args.fade, args.near)


if __name__ == "__main__":
    main()
