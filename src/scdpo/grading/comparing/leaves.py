"""Two leaves compared: numbers with their units, formulas, words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from scdpo.grading.comparing import words
from scdpo.grading.comparing.verdicts import Leaves
from scdpo.grading.comparing.written import parsed, same_numbers, value
from scdpo.grading.formulas import families, identities
from scdpo.grading.formulas.evaluation import exact, real_constant
from scdpo.grading.formulas.tree import Node, number, uses, variables
from scdpo.grading.quantities.equality import equal_numbers
from scdpo.grading.quantities.quantity import quantity, split_unit
from scdpo.grading.quantities.rationals import APPROXIMATE, Number
from scdpo.grading.reading.parts import REAL, Equation, Family, Interval, Reals, Relation
from scdpo.grading.text.canonical import both_signs, has_both_signs
from scdpo.grading.text.normalise import clean
from scdpo.records import CORRECT, WRONG, Verdict, undecided


def same(gold: str, answer: str) -> Verdict | None:
    """Compare two leaves; None where neither numbers, formulas nor words decide."""
    first, second = clean(gold), clean(answer)
    if first and first == second:
        return CORRECT
    for other in (same_numbers, _with_units, _formulas):
        verdict = other(gold, answer)
        if verdict == WRONG and other is _formulas and any(map(words.has_words, (gold, answer))):
            break  # words, read as products of their letters
        if verdict is not None:
            return verdict
    return words.words(first, second)


def _with_units(gold: str, answer: str) -> Verdict | None:
    """Formulas that are followed by a unit: `2\\sqrt{3}\\text{ cm}`."""
    first, second = split_unit(gold), split_unit(answer)
    if first is None and second is None:
        return None
    (ours, measure), (theirs, other) = (
        found if found is not None else (text, None)
        for found, text in ((first, gold), (second, answer))
    )
    verdict = same(ours, theirs)
    if measure is None or other is None or not measure.dimensions or not other.dimensions:
        return verdict
    if measure == other:
        return verdict
    if measure.dimensions != other.dimensions:
        return WRONG if verdict == CORRECT else undecided("the units differ")
    numbers = value(ours), value(theirs)
    if numbers[0] is None or numbers[1] is None:
        return undecided("the units differ")
    return equal_numbers(
        Number(numbers[0] * measure.scale, digits=APPROXIMATE),
        Number(numbers[1] * other.scale, digits=APPROXIMATE),
    )


def _formulas(gold: str, answer: str) -> Verdict | None:
    first, second = parsed(gold), parsed(answer)
    if first is None or second is None:
        return None
    if variables(first) ^ variables(second) == {"E"} and uses(first, "e") != uses(second, "e"):
        first, second = _with_euler(first), _with_euler(second)  # as SymPy prints e
    ours, theirs = variables(first), variables(second)
    if not ours and not theirs:
        return _constants(gold, answer, _mixed(gold, first), _mixed(answer, second))
    if (ours, theirs).count(frozenset()) == 1 and _perhaps_unit(gold, answer):
        return undecided("a unit or a variable")
    if ours != theirs and sorted(map(str.lower, ours)) == sorted(map(str.lower, theirs)):
        lower = {name.lower(): name for name in ours}
        second = _relettered(second, {name: lower[name.lower()] for name in theirs})
    equal = identities.equal(first, second)
    if equal is False and (renamed := _renamed_constants(first, second)) is not None:
        return renamed
    if equal is False and (renamed := _renamed_parameter(first, second)) is not None:
        return renamed
    if not equal and (constant := _integration_constant(gold, answer, ours, theirs)) is not None:
        return CORRECT if identities.differ_by_constant(first, second, constant) else WRONG
    if equal is None:
        return WRONG if first != second and not (ours and theirs) else None
    return CORRECT if equal else WRONG


_ARBITRARY = re.compile(r"[A-DK]|[Cc]_\{?\d\}?|[ck]")
_FUNCTIONS = ("sin", "cos", "tan", "exp", "ln", "log", "sinh", "cosh", "e")


def _renamed_constants(first: Node, second: Node) -> Verdict | None:
    """Formulas with other names for arbitrary constants: C e^x and A e^x.

    Correct for what looks like the solution of a differential equation, undecided where the
    letters may be unknowns of the question, and None where renaming does not make them equal.
    """
    ours, theirs = variables(first), variables(second)
    mine, other = sorted(ours - theirs), sorted(theirs - ours)
    if not mine or len(mine) != len(other) or len(mine) > 3:
        return None
    if not all(_ARBITRARY.fullmatch(name) for name in (*mine, *other)):
        return None
    if not any(name[0] in "CcKk" for name in (*mine, *other)):
        return None
    if not any(name.islower() for name in ours & theirs):
        return None  # lengths such as AB and AC
    equal = any(
        identities.equal(first, _relettered(second, dict(zip(other, order, strict=True))))
        for order in itertools.permutations(mine)
    )
    if not equal:
        return None
    solution = uses(first, *_FUNCTIONS) or any("_" in name for name in mine + other)
    return CORRECT if solution else undecided("another letter, perhaps for a constant")


_PARAMETERS = frozenset("kmn")


def _renamed_parameter(first: Node, second: Node) -> Verdict | None:
    """`mπ` for `nπ`, where the letters stand for any integer; without π or degrees they may be
    unknowns of the question, which leaves the pair undecided."""
    ours, theirs = variables(first), variables(second)
    if len(ours) != 1 or len(theirs) != 1 or ours == theirs or not ours | theirs <= _PARAMETERS:
        return None
    (old,), (new,) = theirs, ours
    periodic = all(uses(node, "pi", "degree") for node in (first, second))
    if identities.equal(first, _relettered(second, {old: new})):
        return CORRECT if periodic else undecided("another letter, perhaps for an integer")
    if not periodic:
        return None
    members = [[families.Member((node,), _PARAMETERS)] for node in (first, second)]
    return CORRECT if families.same_family(*members) else None


_PLUS_C = re.compile(r"[+-]\s*(?:\\text\s*\{\s*)?(C|C_\{?\d\}?|const(?:ant)?)\s*\}?\s*$")


def _integration_constant(
    gold: str, answer: str, ours: frozenset[str], theirs: frozenset[str]
) -> frozenset[str] | None:
    """The names of the constants where both formulas end in `+ C`."""
    both = [_PLUS_C.search(text.strip()) for text in (gold, answer)]
    if both[0] is None or both[1] is None:
        return None
    names = {name for name in ours | theirs if name[0] == "C"}
    return frozenset(names) if any(n.islower() for n in ours & theirs) else None


def _with_euler(node: Node) -> Node:
    """A tree with Euler's number for the variable E."""
    if node.op == "variable":
        return Node("constant", name="e") if node.name == "E" else node
    return Node(node.op, tuple(_with_euler(n) for n in node.args), node.value, node.name)


def _relettered(node: Node, names: dict[str, str]) -> Node:
    """A tree with other names for some variables."""
    if node.op == "variable":
        return Node("variable", name=names.get(node.name, node.name))
    return Node(node.op, tuple(_relettered(n, names) for n in node.args), node.value, node.name)


def _mixed(text: str, node: Node) -> Node:
    """The tree of a constant, where `5(1/5)` is a mixed number as it is for `quantity`."""
    written = quantity(clean(text))
    if written is None or written.percent or written.unit.dimensions:
        return node
    return number(written.value, node.name)


def _perhaps_unit(gold: str, answer: str) -> bool:
    """`5m` for a gold answer 5: five metres, or five times m."""
    pair = [quantity(re.sub(r"(?<=\d)(?=[A-Za-z]$)", " ", clean(t))) for t in (gold, answer)]
    if pair[0] is None or pair[1] is None:
        return False
    measured = bool(pair[0].unit.dimensions) != bool(pair[1].unit.dimensions)
    return measured and pair[0].value == pair[1].value


def _constants(gold: str, answer: str, first: Node, second: Node) -> Verdict | None:
    """Constants: equal in value, or as numbers under the policy for decimals."""
    equal = identities.equal(first, second)
    if equal:
        return CORRECT
    for how in identities.readings(first, second):
        numbers = [_as_number(text, node, how) for text, node in ((gold, first), (answer, second))]
        if numbers[0] is None or numbers[1] is None:
            continue
        verdict = equal_numbers(numbers[0], numbers[1])
        if verdict != WRONG:
            return verdict
    if equal is None and uses(first, "infty") != uses(second, "infty"):
        return WRONG
    if equal is None and uses(first, "infty") and uses(second, "infty"):
        return CORRECT if _infinite_sign(first) == _infinite_sign(second) else WRONG
    return None if equal is None else WRONG


def _infinite_sign(node: Node) -> int:
    return -1 if node.op == "negate" else 1


def _as_number(text: str, node: Node, how: dict[str, Any]) -> Number | None:
    written = quantity(clean(text))
    if written is not None:
        return Number(written.value, written.number.decimals, written.number.digits)
    rational = exact(node)
    if rational is not None:
        return Number(rational)
    approximate = real_constant(node, **how)
    return None if approximate is None else Number(approximate, digits=APPROXIMATE)


def _equation(gold: Equation, answer: Equation) -> bool | None:
    first, second = _difference(gold), _difference(answer)
    if first is None or second is None:
        return None
    if not variables(first) and not variables(second):
        return bool(identities.equal(first.args[1].args[0], second.args[1].args[0]))
    equal = identities.same_equation(first, second)
    if equal is False and variables(first) != variables(second):
        return True if _renamed_equation(first, second) else None
    return equal


def _difference(sides: Equation | Relation) -> Node | None:
    """The tree of the left side minus the right side; None where either cannot be parsed."""
    left, right = parsed(sides.left), parsed(sides.right)
    if left is None or right is None:
        return None
    return Node("add", (left, Node("negate", (right,))))


def _renamed_equation(first: Node, second: Node) -> bool:
    """Whether equations are the same under other names for arbitrary constants."""
    ours, theirs = variables(first), variables(second)
    mine, other = sorted(ours - theirs), sorted(theirs - ours)
    if len(mine) != len(other) or len(mine) > 2:
        return False
    if not any(_ARBITRARY.fullmatch(name) or name == "k" for name in (*mine, *other)):
        return False
    return any(
        identities.same_equation(first, _relettered(second, dict(zip(other, order, strict=True))))
        for order in itertools.permutations(mine)
    )


def _relation(gold: Relation, answer: Relation) -> bool | None:
    if gold.op != answer.op:
        return False
    first, second = _difference(gold), _difference(answer)
    if first is None or second is None:
        return None
    if gold.op == "≠":
        return identities.same_equation(first, second)
    return identities.positive_ratio(first, second)


def _readable(text: str) -> bool:
    """Whether a leaf is a number or a formula, which no list, set or equation equals."""
    return value(text) is not None or parsed(text) is not None


def _solve(relation: Relation) -> Reals | None:
    """The solutions of an inequality in a single variable that is linear, quadratic or in |…|."""
    left, right = parsed(relation.left), parsed(relation.right)
    if left is None or right is None:
        return None
    # For a constant c ≥ 0, |u| < c is u² < c², and c < |u| is c² < u².
    for side, other in ((left, right), (right, left)):
        bound = real_constant(other) if not variables(other) else None
        if side.op == "call" and side.name == "abs" and bound is not None and bound >= 0:
            two = number(2)
            left, right = (Node("power", (operand, two)) for operand in (left, right))
            break
    node = Node("add", (left, Node("negate", (right,))))
    closed = relation.op == "≤"
    if (line := identities.line(node)) is not None:
        name, slope, root = line
        text = f"({root.numerator})/({root.denominator})"
        if relation.op == "≠":
            return Reals((Interval(None, None),), (text,), name)
        half = Interval(None, text, False, closed) if slope > 0 else Interval(text, None, closed)
        return Reals((half,), name=name)
    found = identities.parabola(node)
    if found is None or relation.op == "≠":
        return None
    name, upward, low, high = found
    if upward:
        return Reals((Interval(low, high, closed, closed),), name=name)
    return Reals((Interval(None, low, False, closed), Interval(high, None, closed)), name=name)


def _family(
    gold: Family,
    golds: Sequence[tuple[str, ...]],
    answer: Family,
    answers: Sequence[tuple[str, ...]],
) -> bool | None:
    members_of = []
    if REAL in (gold.first, answer.first):
        return None
    for family, vectors in ((gold, golds), (answer, answers)):
        members = []
        for vector in vectors:
            for texts in _both_signs(vector):
                nodes = [parsed(text) for text in texts]
                if None in nodes:
                    return None
                known = tuple(node for node in nodes if node is not None)
                members.append(families.Member(known, family.parameters, family.first))
        members_of.append(members)
    return families.same_family(members_of[0], members_of[1])


def _both_signs(texts: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not any(map(has_both_signs, texts)):
        return [texts]
    return list(zip(*map(both_signs, texts), strict=True))


LEAVES = Leaves(same, value, _equation, _relation, _family, _solve, _readable)
"""The comparisons of leaves that need no computer algebra."""
