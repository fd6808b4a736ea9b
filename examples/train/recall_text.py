"""The text that train_recall.py trains on: filler, pass keys and facts, their questions, and the words they are
made of. examples/recall_text.h has the same grammar."""
import random
import struct
from pathlib import Path

import numpy as np

BOS = 1

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
