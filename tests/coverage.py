#!/usr/bin/env python3
"""coverage.py EXPORT HEADER LEFT: adds up what `llvm-cov export` says of longctx.h.

Rooms that are read once per instruction set are one room here: a line, a branch or a condition
counts when one of the sets had it. LEFT gets what is left, one a line; printed is, for lines,
branches and conditions, how many were reached and how many there are. Of avx512's functions only
those count that ran. Macros count where they are used, preprocessor lines nowhere.
"""
import json
import sys

COUNTED, EXPANSION, DECIDES = 0, 1, 6                  # kinds of regions and of branches


def lines_of(segments):
    """The greatest count on each line, by llvm-cov's own rule (LineCoverageStats)."""
    count, before, at = {}, None, 0
    for line in range(1, segments[-1][0] + 1):
        here = []
        while at < len(segments) and segments[at][0] == line:
            here.append(segments[at])
            at += 1
        starts = [s for s in here if s[3] and s[4] and not s[5]]
        skipped = here and not here[0][3] and here[0][4]
        if not skipped and (starts or (before and before[3])):
            count[line] = max([s[2] for s in starts] + [before[2] if before else 0])
        before = here[-1] if here else before
    return count


def add(function, branches, decisions):
    """One function's branches and decisions upon what other sets' twins of it had."""
    expansions = {r[6]: r for r in function['regions'] if r[7] == EXPANSION}
    name, seen, deciding = function['regions'][0][:2], {}, []
    for b in function['branches']:
        chain, file = [b[:4]], b[6]
        while file:                                    # out of macros, to where it is written
            chain.append(expansions[file][:4])
            file = expansions[file][5]
        place = tuple(chain[-1])
        seen[place] = seen.get(place, 0) + 1
        key = (*name, *place, seen[place])
        had = branches.setdefault(key, [0, 0])
        had[0] += b[4]
        had[1] += b[5]
        if b[8] == DECIDES:
            deciding.append((key, chain))
    for d in function['mcdc_records']:                 # its conditions are the next ones inside it
        inside = [x for x in deciding
                  if any(d[:2] <= c[:2] and c[2:] <= d[2:4] for c in x[1])][:len(d[6])]
        deciding = [x for x in deciding if x not in inside]
        had = decisions.setdefault(inside[0][0], [[False] * len(d[6]), 0])
        had[0] = [a or b for a, b in zip(had[0], d[6])]
        had[1] = max(had[1], len(inside))              # the others are constant in every set


def main(export, header, left):
    with open(export, encoding='utf-8') as file:
        data = json.load(file)['data'][0]
    with open(header, encoding='utf-8') as file:
        text = [''] + file.read().split('\n')
    lines = lines_of(next(f for f in data['files'] if f['filename'] == header)['segments'])
    branches, decisions, out, inside = {}, {}, [], set()
    for function in data['functions']:
        ran = function['count'] > 0 or not function['name'].endswith('_avx512')
        if function['filenames'][0] == header and ran:
            add(function, branches, decisions)
            inside.update(range(function['regions'][0][0], function['regions'][0][2] + 1))

    lines = {x: lines[x] for x in lines if x in inside and not text[x].startswith('#')}
    out += [(line, 1, 'line') for line in lines if lines[line] == 0]
    reached = sum(lines[line] > 0 for line in lines)
    print('line', reached, len(lines))

    reached = total = 0
    for key, counts in branches.items():
        line, column = key[2:4]
        for side, count in zip(('true', 'false'), counts):
            total += 1
            reached += count > 0
            if count == 0:
                out.append((line, column, 'branch %d never %s' % (key[6], side)))
    print('branch', reached, total)

    reached = total = 0
    for key, (shown, have) in decisions.items():
        line, column = key[2:4]
        missing = [i + 1 for i, x in enumerate(shown) if not x]
        constant = min(len(shown) - have, len(missing))
        total += len(shown) - constant
        reached += sum(shown)
        if len(missing) > constant:
            out.append((line, column, 'condition %s not shown' % ', '.join(map(str, missing))))
    print('condition', reached, total)

    with open(left, 'w', encoding='utf-8') as file:
        for line, column, what in sorted(out):
            rest = text[line][max(column - 1, 0):].strip()
            file.write('%d:%d: %s: %s\n' % (line, column, what, rest))


main(*sys.argv[1:])
