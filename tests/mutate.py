#!/usr/bin/env python3
"""mutate.py: would `make test` notice? One small change to longctx.h at a time, drawn from a fixed
seed; tests of `make test` run against it, quickest first, until one fails or does not end.

  mutate.py [--count 300] [--minutes CPU] [--seed 1] [--again | --table]

Left out: comments, strings, macros, and what this compiler leaves out (NEON, WASM, AVX-512 on a
machine without it): the lines are those that come out of `gcc -E` with and without SIMD, one
instruction set each, so room 7's choice among them is out as well. A mutant that does not compile
does not count, one that gives the same object code is none; others are drawn for both.
It keeps a line per mutant in build/mutants/results and goes on from there when it was stopped;
--again runs the survivors once more, --table only writes the table, tests/MUTANTS.md. Why a
survivor lives stands in tests/mutants.txt. The last line is `N of M killed, K equivalent`."""
import argparse, hashlib, os, random, re, resource, shutil, subprocess, sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
OWN = "build/mutants"
BUILDS = {"simd": ["-march=native"], "scalar": ["-march=native", "-DLONGCTX_NO_SIMD"]}
FLAGS = ["-std=c99", "-w", "-O1", "-DLONGCTX_NO_DISPATCH", "-DT_FIRST_FAILURE_ENDS", "-pthread"]
# What runs, quickest first, each with its limit in CPU seconds; all mutants go through the quick
# ones, then what lives through the slow ones. INSIDE look inside the header: compiled with it.
QUICK = [(5, "order"), (10, "golden"), (20, "fuzz_calls", "300"), (20, "window"), (30, "kernels")]
SLOW = [(20, "tools"), (60, "plan"), (90, "state"), (90, "fuzz_state"), (90, "fuzz_calls", "3000"),
        (120, "attend"), (200, "memory"), (300, "feedback"), (90, "compose", "13")]
NEAR = {"PLAN": "plan", "STATE": "state", "MEMORY": "memory", "FEEDBACK": "feedback"}  # by room
INSIDE = ("golden", "tools", "state", "fuzz_state", "memory", "feedback", "threads")


def run(command, seconds):
    """Exit code; negative: by a signal."""
    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          preexec_fn=limit).returncode


# ---- what can be changed ------------------------------------------------------------------------

def masked(text):
    """The text with comments, strings, characters and directives blanked out."""
    blank = lambda m: re.sub(r"[^\n]", " ", m.group())
    text = re.sub(r"/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|//[^\n]*", blank, text,
                  flags=re.S)
    return re.sub(r"^[ ]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.M)


def compiled(build):
    """The header's lines that this build compiles."""
    out = subprocess.run(["gcc", "-E", "-std=c99", "-DLONGCTX_IMPLEMENTATION",
                          "-DLONGCTX_NO_DISPATCH", *BUILDS[build], "-x", "c", "longctx.h"],
                         capture_output=True, text=True, check=True).stdout
    lines, at, here = set(), 0, False
    for line in out.split("\n"):
        mark = re.match(r'# (\d+) "([^"]*)"', line)
        if mark:
            at, here = int(mark[1]), mark[2] == "longctx.h"
            continue
        if here and line.strip():
            lines.add(at)
        at += 1
    return lines


SWAPS = {
    "relation": [(r"(?<=[\w)\]] )(<=|>=|<|>|==|!=)(?= )",
                  {"<": ["<=", ">"], "<=": ["<"], ">": [">=", "<"], ">=": [">"], "==": ["!="],
                   "!=": ["=="]})],
    "arithmetic": [(r"(?<=[\w)\]] )(\+|-|\*|/|%|<<|>>|&|\||\^)(?= )",
                    {"+": ["-"], "-": ["+"], "*": ["+"], "/": ["*"], "%": ["/"], "<<": [">>"],
                     ">>": ["<<"], "&": ["|"], "|": ["&"], "^": ["|"]}),
                   (r"(?<=[\w)\]] )(\+=|-=|\|=|\^=)(?= )",
                    {"+=": ["-="], "-=": ["+="], "|=": ["&="], "^=": ["|="]})],
    "logic": [(r"(&&|\|\|)", {"&&": ["||"], "||": ["&&"]})],
    "min, max": [(r"\b(lcx_min64|lcx_max64)(?=\()",
                  {"lcx_min64": ["lcx_max64"], "lcx_max64": ["lcx_min64"]})],
}
DECLARES = re.compile(r"\s*(const|static|int|unsigned|float|double|char|size_t|long|struct|typedef|"
                      r"enum|u?int\d+_t|lcx_[a-z_]+ [a-z*]|longctx\w* [a-z*]|return|case|default|"
                      r"goto|else|do\b|for\b|while\b|if\b|switch\b|LCX_\w+ [a-z*])")


def closing(line, at):
    """Behind the parenthesis that closes the one at `at`, or None on another line."""
    depth = 0
    for i in range(at, len(line)):
        depth += {"(": 1, ")": -1}.get(line[i], 0)
        if depth == 0:
            return i + 1
    return None


def whole_statement(line, before):
    """One line that is one statement and no declaration."""
    return line.startswith("  ") and line.rstrip().endswith(";") and \
        re.match(r"\s+[\w*(]", line) and not re.search(r"[{}]", line) and \
        line.count("(") == line.count(")") and not DECLARES.match(line) and \
        not before.rstrip().endswith(tuple(",=?:+-*/&|("))


def sites(text):
    """(kind, line, from, to, new text) for every change, by line."""
    plain, mask, found = text.split("\n"), masked(text).split("\n"), []
    for number, line in enumerate(mask):
        at = number + 1

        def add(kind, start, end, new):
            found.append((kind, at, start, end, new))

        for kind, rules in SWAPS.items():
            for pattern, changes in rules:
                for m in re.finditer(pattern, line):
                    for new in changes[m.group()]:
                        add(kind, m.start(), m.end(), new)
        for m in re.finditer(r"(?<![\w.])(\d+|0x[0-9a-f]+)(?=[uU]?(?![\w.]))", line):
            n, form = int(m.group(), 0), "0x%x" if m.group().startswith("0x") else "%d"
            for new in (n + 1, n - 1):
                if new >= 0:
                    add("constant", m.start(), m.end(), form % new)
        m = re.search(r"\b(?:if|while) \(", line)
        end = m and closing(line, m.end() - 1)
        if end:
            add("condition", m.end() - 1, end, "(!" + plain[number][m.end() - 1:end] + ")")
        if whole_statement(line, mask[number - 1]):
            add("statement", len(line) - len(line.lstrip()), len(line.rstrip()), ";")
    return found


def draws(text, seed):
    """Mutants, of each kind as many while it lasts: (kind, line, was, becomes, build)."""
    simd, scalar = compiled("simd"), compiled("scalar")
    kinds = {}
    for site in sites(text):
        if site[1] in simd or site[1] in scalar:
            kinds.setdefault(site[0], []).append(site)
    rng, lines = random.Random(seed), text.split("\n")
    for name in sorted(kinds):
        rng.shuffle(kinds[name])
    while any(kinds.values()):
        for name in sorted(kinds):
            if not kinds[name]:
                continue
            kind, at, start, end, new = kinds[name].pop()
            was = lines[at - 1]
            build = "simd" if at in simd else "scalar"
            yield kind, at, was, was[:start] + new + was[end:], build


# ---- one mutant ---------------------------------------------------------------------------------

def compile_to(out, source, flags, build):
    return run(["gcc", *FLAGS, *BUILDS[build], "-I" + OWN, "-I.", "-Iexamples", *flags, source,
                "-o", out, "-lm"], 300)


def climb(rungs, build):
    """The first test that fails, or None."""
    for seconds, name, *more in rungs:
        path = f"{OWN}/tests/{name}.{build}"
        if name in INSIDE:
            code = compile_to(path, f"{OWN}/tests/{name}.c", [], build)
        else:
            code = run(["gcc", "-pthread", path + ".o", f"{OWN}/mutant.o", "-o", path, "-lm"], 100)
        code = code or run([path, *more], seconds)
        if code:
            return " ".join([name, *more]) + (", endless" if code in (-9, -24) else "")
    return None


def slow_for(text, at):
    """The slow ones, the test of the line's room before the others."""
    room = [m for m in re.finditer(r"== \d+ (\w+) ==", text) if text.count("\n", 0, m.start()) < at]
    near = NEAR.get(room[-1][1])
    return sorted(SLOW, key=lambda step: step[1] != near)


def put(text):
    with open(f"{OWN}/longctx.h", "w") as f:
        f.write(text)


def prepare(text):
    """The tests compiled, the quick ones run; the plain objects."""
    os.makedirs(f"{OWN}/tests", exist_ok=True)
    for name in os.listdir("tests"):
        if name.endswith((".c", ".h")):
            shutil.copy(f"tests/{name}", f"{OWN}/tests/{name}")
    put(text)
    with open(f"{OWN}/impl.c", "w") as f:
        f.write('#include "tests/t.h"\n')  # with what must always hold inside
    plain = {}
    for build in BUILDS:
        for name in {s[1] for s in QUICK + SLOW} - set(INSIDE):
            if compile_to(f"{OWN}/tests/{name}.{build}.o", f"{OWN}/tests/{name}.c",
                          ["-DT_LINKED", "-c"], build):
                sys.exit(f"mutate: {name} does not compile")
        compile_to(f"{OWN}/mutant.o", f"{OWN}/impl.c", ["-c"], build)
        with open(f"{OWN}/mutant.o", "rb") as f:
            plain[build] = f.read()
        bad = climb(QUICK, build)
        if bad:
            sys.exit(f"mutate: {bad} fails without a change")
    return plain


def sure(text):
    """The slow tests pass without a change."""
    put(text)
    compile_to(f"{OWN}/mutant.o", f"{OWN}/impl.c", ["-c"], "simd")
    bad = climb(SLOW, "simd")
    if bad:
        sys.exit(f"mutate: {bad} fails without a change")
    return True


def try_one(text, mutant, plain, rungs):
    """no code, same code, killed by a test, or lives through these"""
    kind, at, was, becomes, build = mutant
    lines = text.split("\n")
    lines[at - 1] = becomes
    put("\n".join(lines))
    if compile_to(f"{OWN}/mutant.o", f"{OWN}/impl.c", ["-c"], build):
        return "no code"
    with open(f"{OWN}/mutant.o", "rb") as f:
        if f.read() == plain[build]:
            return "same code"
    by = climb(rungs, build)
    if not by and build == "simd" and rungs is QUICK:  # make test runs the other sets, too
        compile_to(f"{OWN}/mutant.o", f"{OWN}/impl.c", ["-c"], "scalar")
        by = climb(QUICK, "scalar")
        by = by and by + ", scalar"
    return f"killed by {by}" if by else "lives"


# ---- the table ----------------------------------------------------------------------------------

def reasons():
    """tests/mutants.txt: `- a line as it was`, `+ as it becomes`, `= why it lives`, blank lines."""
    known, was, new = {}, "", ""
    try:
        for line in open("tests/mutants.txt"):
            mark, rest = line[:2], line[2:].strip()
            if mark == "- ":
                was = rest
            elif mark == "+ ":
                new = rest
            elif mark == "= ":
                known[was, new] = rest
    except FileNotFoundError:
        pass
    return known


def table(results, mark, spent):
    count = [r for r in results if r[1] in ("lives", "survived") or r[1].startswith("killed")]
    alive, why = [r for r in count if not r[1].startswith("killed")], reasons()
    killed = len(count) - len(alive)
    same = sum((r[4].strip(), r[5].strip()) in why and
               why[r[4].strip(), r[5].strip()].startswith("equivalent") for r in alive)
    by = {}
    for r in count:
        name = r[1].replace("killed by ", "").split(",")[0]
        by[name] = by.get(name, 0) + 1
    out = [f"""# Mutants

Written by `tests/mutate.py`, not by hand: small changes to longctx.h, as many of each kind while
they last, by {mark} (SHA-256). A test of `make test` that fails or hangs kills
one. What does not compile ({sum(r[1] == "no code" for r in results)}) or gives the same object \
code ({sum(r[1] == "same code" for r in results)}) was drawn anew.

**{killed} of {len(count)} killed; {same} of the others are equivalent: no call could tell them from
the original. {100 * killed / max(1, len(count) - same):.1f} % of those that could be told.** \
{spent / 60:.0f} CPU minutes.

| kind | mutants | survived |
|---|---|---|"""]
    for kind in sorted({r[2] for r in count}):
        of = [r for r in count if r[2] == kind]
        out.append(f"| {kind} | {len(of)} | {sum(r in alive for r in of)} |")
    out += ["", "Killed by, the first in this order: " + ", ".join(
        f"{k} {v}" for k, v in by.items() if k not in ("lives", "survived")) + ".", "",
        "| survivor | becomes | why |", "|---|---|---|"]
    code = lambda s: "`" + s.strip().replace("|", "\\|") + "`"
    for r in alive:
        out.append(f"| {r[3]}: {code(r[4])} | {code(r[5])} | "
                   f"{why.get((r[4].strip(), r[5].strip()), 'not looked at')} |")
    return "\n".join(out) + "\n", killed, len(count), same


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--count", type=int, default=300)
    ask.add_argument("--minutes", type=float, default=1e9)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--again", action="store_true")
    ask.add_argument("--table", action="store_true")
    want = ask.parse_args()
    text = open("longctx.h").read()
    mark = "header " + hashlib.sha256(text.encode()).hexdigest()[:16] + f" seed {want.seed}"
    path, results = f"{OWN}/results", []
    os.makedirs(OWN, exist_ok=True)
    if os.path.exists(path):
        lines = open(path).read().split("\n")
        if lines[0] == mark:
            results = [l.split("\t") for l in lines[1:] if l.count("\t") == 6]
    spent = float(results[-1][6]) if results else 0.0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    def seconds():
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent + now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime

    def keep():
        with open(path + ".new", "w") as f:
            f.write("\n".join([mark] + ["\t".join(r) for r in results]) + "\n")
        os.replace(path + ".new", path)

    def counted():
        return sum(r[1] in ("lives", "survived") or r[1].startswith("killed") for r in results)

    def within():
        return seconds() < want.minutes * 60

    plain = slow = None
    for i, m in enumerate(draws(text, want.seed)):
        if want.table or counted() >= want.count or not within():
            break
        if i < len(results):
            continue
        plain = plain or prepare(text)
        said = try_one(text, m, plain, QUICK)
        results.append([m[4], said, m[0], str(m[1]), m[2], m[3], f"{seconds():.0f}"])
        keep()
        print(f"{counted()}\t{said}\t{m[1]}: {m[2].strip()} -> {m[3].strip()}", flush=True)
    due = [r for r in results if r[1] == "lives" or r[1] == "survived" and want.again]
    for r in due:
        if want.table or not within():
            break
        plain = plain or prepare(text)
        slow = slow or sure(text)
        mutant, quick = (r[2], int(r[3]), r[4], r[5], r[0]), r[1] == "survived"
        said = try_one(text, mutant, plain, QUICK) if quick else "lives"
        said = try_one(text, mutant, plain, slow_for(text, mutant[1])) if said == "lives" else said
        r[1] = said.replace("lives", "survived")
        results[-1][6] = f"{seconds():.0f}"
        keep()
        print(f"{r[1]}\t{r[3]}: {r[4].strip()} -> {r[5].strip()}", flush=True)
    spent = float(results[-1][6]) if results else 0
    page, killed, counts, same = table(results, mark, spent)
    with open("tests/MUTANTS.md", "w") as f:
        f.write(page)
    print(f"{killed} of {counts} killed, {same} equivalent")
    return 0 if counts and killed >= 0.95 * (counts - same) else 1


if __name__ == "__main__":
    sys.exit(main())
