"""The parts of two answers compared: unordered parts are matched, ordered ones are paired off.

`compare` gets the comparison of leaves from its caller and combines its verdicts. A single
difference makes the whole wrong, a single doubt makes it undecided, and a single leaf that could
not be judged (None) leaves the pair to the symbolic layer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from scdpo.grading.comparing.family_matching import as_family, as_intervals, vectors
from scdpo.grading.comparing.names import base, key, nouns, recursive, same_argument, wordy
from scdpo.grading.comparing.plain import flat_column, plain, unframed
from scdpo.grading.comparing.set_matching import compare_sets
from scdpo.grading.comparing.verdicts import (
    Found,
    Leaves,
    conjunction,
    perfectly_matched,
    verdict_on,
)
from scdpo.grading.reading.parts import (
    Equation,
    Family,
    Items,
    Leaf,
    Named,
    Part,
    Reals,
    Relation,
    rename,
)
from scdpo.records import CORRECT, WRONG, undecided

NAMES = "the names differ"


def compare(gold: Part, answer: Part, leaves: Leaves) -> Found:
    """Compare the parts of an answer with those of the gold answer."""
    gold, answer = plain(gold), plain(answer)
    if not (isinstance(gold, Named) and isinstance(answer, Named)):
        gold, answer = unframed(gold), unframed(answer)
    if isinstance(gold, Family) or isinstance(answer, Family):
        return _families(gold, answer, leaves)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _relations(gold, answer, leaves)
    if isinstance(gold, Reals) or isinstance(answer, Reals):
        return compare_sets(gold, answer, leaves)
    if isinstance(gold, Equation) or isinstance(answer, Equation):
        return _equations(gold, answer, leaves)
    if isinstance(gold, Named) or isinstance(answer, Named):
        return _named(gold, answer, leaves)
    if isinstance(gold, Items) and isinstance(answer, Items):
        return _items(gold, answer, leaves)
    if isinstance(gold, Leaf) and isinstance(answer, Leaf):
        return leaves.same(gold.text, answer.text)
    return _one_and_several(gold, answer, leaves)


def _relations(gold: Part, answer: Part, leaves: Leaves) -> Found:
    """Inequalities are equal if they are the same or, where solvable, have the same solutions."""
    same: Found = None
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        same = verdict_on(leaves.relation(gold, answer))
    if same == CORRECT:
        return same
    solved = [leaves.solve(p) if isinstance(p, Relation) else p for p in (gold, answer)]
    if solved[0] is None or solved[1] is None:
        return same
    return compare_sets(solved[0], solved[1], leaves)


def _pairwise(golds: Sequence[Part], answers: Sequence[Part], leaves: Leaves) -> Found:
    if len(golds) != len(answers):
        return WRONG
    return conjunction([compare(g, a, leaves) for g, a in zip(golds, answers, strict=True)])


def _matched(golds: Sequence[Part], answers: Sequence[Part], leaves: Leaves) -> Found:
    """Whether each gold item has an answer item of its own."""
    if len(golds) != len(answers):
        return WRONG
    table = [[compare(g, a, leaves) for a in answers] for g in golds]
    ours, theirs = [nouns(g) for g in golds], [nouns(a) for a in answers]
    for row, gold_words in enumerate(ours):
        shared = [len(gold_words & words) for words in theirs]
        if most := max(shared, default=0):  # 3 red, 5 blue is not 5 red, 3 blue
            table[row] = [
                found if not words or n == most else WRONG
                for found, words, n in zip(table[row], theirs, shared, strict=True)
            ]
    if perfectly_matched([[v == CORRECT for v in row] for row in table]):
        return CORRECT
    if perfectly_matched([[v is None or v.correct for v in row] for row in table]):
        return None
    if perfectly_matched([[v is None or not v.wrong for v in row] for row in table]):
        doubts = [v for row in table for v in row if v is not None and v.undecided]
        return doubts[0] if doubts else None
    return WRONG


def _distinct(items: Sequence[Part], leaves: Leaves) -> list[Part]:
    """Items without repetitions."""
    kept: list[Part] = []
    for item in items:
        if not any(compare(other, item, leaves) == CORRECT for other in kept):
            kept.append(item)
    return kept


_UNORDERED = ("list", "set")


def _items(gold: Items, answer: Items, leaves: Leaves) -> Found:
    kinds = {gold.kind, answer.kind}
    if any(isinstance(item, Named) for item in (*gold.items, *answer.items)):
        found = _assignments(gold, answer, leaves)
        if found is not None or "parts" not in kinds:
            return found
    if kinds & {"parts", "row", "column"}:
        if "column" in kinds and "bracket" in kinds:
            gold, answer = (flat_column(part) for part in (gold, answer))
        return _pairwise(gold.items, answer.items, leaves)
    if kinds == {"bracket", "set"} and len(gold.items) == len(answer.items) == 2:
        same = _matched(gold.items, answer.items, leaves)
        return undecided("an interval or its ends") if same == CORRECT else same
    if kinds == {"tuple", "set"} or kinds == {"tuple", "bracket"}:
        same = _pairwise(gold.items, answer.items, leaves)
        if kinds == {"tuple", "bracket"} and same == CORRECT and len(gold.items) > 2:
            return CORRECT
        return WRONG if same is not None else None
    if kinds == {"matrix"} or "matrix" in kinds:
        return _matrices(gold, answer, leaves)
    if kinds == {"tuple"} or kinds == {"bracket"}:
        return _pairwise(gold.items, answer.items, leaves)
    if "tuple" in kinds:  # a tuple against a list without brackets
        return _pairwise(gold.items, answer.items, leaves)
    golds, answers = list(gold.items), list(answer.items)
    found = _matched(golds, answers, leaves)
    if found == WRONG:
        once = _matched(_distinct(golds, leaves), _distinct(answers, leaves), leaves)
        if once != WRONG:
            if "set" in kinds or all(isinstance(item, Items) for item in golds):
                return once
            return undecided("a value is repeated") if once == CORRECT else once
    return found


def _matrices(gold: Items, answer: Items, leaves: Leaves) -> Found:
    def rows(part: Items) -> list[list[Part]] | None:
        if not all(isinstance(row, Items) for row in part.items):
            return None
        return [list(row.items) for row in part.items if isinstance(row, Items)]

    first, second = rows(gold), rows(answer)
    if first is None or second is None:
        return WRONG
    if [len(row) for row in first] != [len(row) for row in second]:
        return WRONG
    cells = [(g, a) for x, y in zip(first, second, strict=True) for g, a in zip(x, y, strict=True)]
    return conjunction([compare(g, a, leaves) for g, a in cells])


def _named(gold: Part, answer: Part, leaves: Leaves) -> Found:
    """`x = 3` and `3`, or two named values."""
    if isinstance(gold, Named) and isinstance(answer, Named):
        answer = same_argument(gold, answer)
        found = compare(gold.value, answer.value, leaves)
        names = {key(gold.name), key(answer.name)}
        if found == WRONG and recursive(gold) and recursive(answer):
            return undecided(NAMES)
        if len(names) == 1 or wordy(gold.name) != wordy(answer.name):
            return found
        if wordy(gold.name):
            return found if _nested(names) or found != CORRECT else undecided(NAMES)
        if "y" in names and "(" in gold.name + answer.name:
            return found  # y = x + 1 and f(x) = x + 1
        swapped = (
            leaves.equation(_as_equation(gold), _as_equation(answer))
            if _flat_pair(gold, answer)
            else None
        )
        return CORRECT if swapped else WRONG
    named, other = (gold, answer) if isinstance(gold, Named) else (answer, gold)
    assert isinstance(named, Named)
    if (
        isinstance(other, Items)
        and isinstance(gold, Leaf | Items)
        and not isinstance(named.value, Items)
    ):
        return _one_and_several(gold, answer, leaves)
    return compare(
        gold.value if isinstance(gold, Named) else gold,
        answer.value if isinstance(answer, Named) else answer,
        leaves,
    )


def _nested(names: set[str]) -> bool:
    """Whether a name is part of the other."""
    short, long = sorted(names, key=len)
    return short in long


def _flat_pair(gold: Named, answer: Named) -> bool:
    if max(len(key(gold.name)), len(key(answer.name))) > 2:
        return False
    return isinstance(gold.value, Leaf) and isinstance(answer.value, Leaf)


def _as_equation(part: Named) -> Equation:
    assert isinstance(part.value, Leaf)
    return Equation(part.name, part.value.text)


def _assignments(gold: Items, answer: Items, leaves: Leaves) -> Found:
    """Named values in any order; `(1, 2)` gives the values in alphabetical order of the names."""
    sides = []
    for part in (gold, answer):
        named = [item for item in part.items if isinstance(item, Named)]
        if named and len(named) != len(part.items):
            named = []
        sides.append(named)
    golds, answers = sides
    if golds and answers:
        return _both_named(golds, answers, leaves)
    if any(isinstance(item, Equation) for item in (*gold.items, *answer.items)):
        return _matched(gold.items, answer.items, leaves)
    named, other = (golds, answer) if golds else (answers, gold)
    if not named:
        values = [item.value if isinstance(item, Named) else item for item in gold.items]
        theirs = [item.value if isinstance(item, Named) else item for item in answer.items]
        return _matched(values, theirs, leaves)
    names = [base(item.name) for item in named]
    if len(set(names)) == 1:
        values = [item.value for item in named]
        return (
            _matched(values, other.items, leaves)
            if golds
            else _matched(other.items, values, leaves)
        )
    return _by_order(named, other, bool(golds), leaves)


def _by_order(named: list[Named], other: Items, gold_named: bool, leaves: Leaves) -> Found:
    """`x = 3, y = 5` and `(3, 5)`: the values in the order of the names, or as written."""
    if any(nouns(item) for item in other.items):
        both = (named, other.items) if gold_named else (other.items, named)
        return _matched(both[0], both[1], leaves)
    found: Found = WRONG
    for order in (sorted(named, key=lambda item: key(item.name)), named):
        values = [item.value for item in order]
        golds, answers = (values, other.items) if gold_named else (other.items, values)
        found = _pairwise(golds, answers, leaves)
        if found == CORRECT:
            return found
    if other.kind in _UNORDERED and _matched(golds, answers, leaves) == CORRECT:
        return undecided("values without their names")
    return found


def _both_named(golds: list[Named], answers: list[Named], leaves: Leaves) -> Found:
    bases = {key(base(item.name)) for item in (*golds, *answers)}
    names = {key(item.name) for item in (*golds, *answers)}
    if len(bases) == 1 or (len(names) == 2 and len(golds) == 1):
        return _matched([g.value for g in golds], [a.value for a in answers], leaves)
    keys = [{key(item.name) for item in side} for side in (golds, answers)]
    if keys[0] == keys[1] and len(keys[0]) == len(golds) == len(answers):
        theirs = {key(a.name): a for a in answers}
        return conjunction([compare(g, theirs[key(g.name)], leaves) for g in golds])
    if keys[0] != keys[1] and any(wordy(item.name) for item in (*golds, *answers)):
        return _by_initials(golds, answers, leaves)
    return _matched(golds, answers, leaves)


def _by_initials(golds: list[Named], answers: list[Named], leaves: Leaves) -> Found:
    """`length 20, width 10` and `l = 20, w = 10`; other names cannot be verdict_on apart."""
    initials = [[key(item.name)[:1].lower() for item in side] for side in (golds, answers)]
    if sorted(initials[0]) == sorted(set(initials[0])) == sorted(initials[1]):
        theirs = dict(zip(initials[1], answers, strict=True))
        pairs = [(g.value, theirs[i].value) for g, i in zip(golds, initials[0], strict=True)]
        return conjunction([compare(g, a, leaves) for g, a in pairs])
    found = _matched([g.value for g in golds], [a.value for a in answers], leaves)
    return undecided(NAMES) if found == CORRECT else found


def _one_and_several(gold: Part, answer: Part, leaves: Leaves) -> Found:
    """A value against several: correct only if all of them are forms of it."""
    if isinstance(gold, Leaf) and isinstance(answer, Items) and answer.kind in _UNORDERED:
        forms = [compare(gold, item, leaves) for item in answer.items]
        if all(verdict == CORRECT for verdict in forms):
            return CORRECT
    if isinstance(gold, Leaf) and isinstance(answer, Items):
        named = [item for item in answer.items if isinstance(item, Named)]
        if named and len({base(item.name) for item in named}) > 1:
            found = [compare(gold, item.value, leaves) for item in named]
            if CORRECT in found:
                return undecided("values of several unknowns")
    if isinstance(gold, Items) and isinstance(answer, Leaf):
        shared = [item.value for item in gold.items if isinstance(item, Named)]
        if len(shared) == len(gold.items) and all(
            compare(item, answer, leaves) == CORRECT for item in shared
        ):
            return undecided("a value that several unknowns share")
    if isinstance(gold, Items) and isinstance(answer, Items | Named):
        return WRONG
    return _other_kind(gold, answer, leaves)


def _other_kind(gold: Part, answer: Part, leaves: Leaves) -> Found:
    """Parts of different kinds are unequal, unless either is a leaf that cannot be parsed."""
    texts = [part.text for part in (gold, answer) if isinstance(part, Leaf)]
    return WRONG if all(map(leaves.readable, texts)) else None


def _equations(gold: Part, answer: Part, leaves: Leaves) -> Found:
    sides = []
    for part in (gold, answer):
        if isinstance(part, Named) and isinstance(part.value, Leaf):
            part = _as_equation(part)
        sides.append(part)
    first, second = sides
    if isinstance(first, Equation) and isinstance(second, Equation):
        return verdict_on(leaves.equation(first, second))
    if isinstance(first, Equation) and isinstance(second, Items):
        return None  # x^2 = 4, and its solutions
    results = [_result(part, leaves) for part in (first, second)]
    if results[0] is None or results[1] is None:
        return _other_kind(first, second, leaves)
    found = leaves.same(results[0], results[1])
    # z^3 = -1 gives a value, but may also be an equation that was not solved.
    unsolved = [isinstance(part, Equation) and not _solved(part, leaves) for part in sides]
    if unsolved[1] and isinstance(second, Equation) and _of_a_curve(second):
        return undecided("an equation")
    curve = any(isinstance(part, Equation) and "^" in part.left for part in sides[1:])
    return None if unsolved[0] or (unsolved[1] and (found == WRONG or curve)) else found


_NUMBER_TERM = re.compile(r"(?:^|[+-])\s*\d+(?:\.\d+)?\s*(?=$|[+-])")


def _of_a_curve(equation: Equation) -> bool:
    """Whether `… = 0` is the equation of a line or curve, rather than a value of 0."""
    left, right = equation.left, equation.right.strip()
    return right == "0" and ("^" in left or _NUMBER_TERM.search(left) is not None)


def _result(part: Part, leaves: Leaves) -> str | None:
    """The text of a leaf, the right side of `2 + 3 = 5` or `|AB| = 1`, None for other parts."""
    if isinstance(part, Leaf):
        return part.text
    if isinstance(part, Equation) and leaves.value(part.right) is not None:
        return part.right
    return None


def _solved(equation: Equation, leaves: Leaves) -> bool:
    """Whether an equation's left side is a number or a length, and has nothing to solve for."""
    lengths = re.sub(r"\\(?!rho|theta|alpha|beta|gamma|phi|lambda|mu)[A-Za-z]+", "", equation.left)
    return leaves.value(equation.left) is not None or not re.search(r"[a-z]", lengths)


def _families(gold: Part, answer: Part, leaves: Leaves) -> Found:
    first, second = as_family(gold, answer), as_family(answer, gold)
    if first is None or second is None:
        return None
    ours, theirs_ = vectors(first), vectors(second)
    if ours is not None and theirs_ is not None:
        if {len(vector) for vector in (*ours, *theirs_)} == {2, 4}:
            ours, theirs_ = as_intervals(ours), as_intervals(theirs_)
        same = leaves.family(first, ours, second, theirs_)
        if same is not None:
            return verdict_on(same)
    names, others = sorted(first.parameters), sorted(second.parameters)
    theirs = second.parts
    if len(names) == 1 and len(others) == 1:
        theirs = tuple(rename(part, others[0], names[0]) for part in theirs)
    found = _matched(first.parts, theirs, leaves)
    # Families that differ in this form may still be the same set.
    return found if found == CORRECT else None
