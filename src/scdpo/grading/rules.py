"""What can be decided about two answers without a computer algebra system."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scdpo.grading.comparing import respelling, words
from scdpo.grading.comparing.leaves import LEAVES
from scdpo.grading.comparing.matching import NAMES, compare
from scdpo.grading.comparing.opposites import opposed, otherwise_qualified
from scdpo.grading.comparing.verdicts import TooManyError, limited
from scdpo.grading.comparing.written import same_numbers, value
from scdpo.grading.finding.sentences import (
    mentions,
    names_other_things,
    negated,
    numbers_in,
    without_contrast,
)
from scdpo.grading.quantities.equality import equal_numbers
from scdpo.grading.quantities.rationals import decimal
from scdpo.grading.quantities.units import is_unit
from scdpo.grading.reading.conditions import unconditional
from scdpo.grading.reading.lists import ANY_COMMA, CONJUNCTION
from scdpo.grading.reading.structure import read
from scdpo.grading.text.brackets import enclosed, split
from scdpo.grading.text.canonical import canonical, every_sign
from scdpo.grading.text.normalise import clean
from scdpo.records import CORRECT, WRONG, Verdict, undecided

MAX_STRUCTURED = 1_500
"""Longest answer that is taken apart, in characters."""
MAX_CONDITIONED = 200
"""Longest answer whose end may be a condition: longer texts use "for" and "where" anywhere."""
CONDITIONS = "the conditions differ"
SENTENCE = undecided("the answer is a sentence")
_APPROXIMATELY = re.compile("≈")
_UNREADABLE = re.compile(
    r"\\(?:cdots|ldots|dots|underbrace)|…|\.\.\.|\\nmid|\\not(?![A-Za-z])|(?s:\\begin\{cases\}.*&)"
)


@dataclass(frozen=True, slots=True)
class Pending:
    """Two texts that only the symbolic comparison can decide.

    Only its "equal" counts: Math-Verify compares the part of an answer that it can parse, so its
    "unequal" may be about that part alone.
    """

    gold: str
    answer: str


def decide(gold: str, answer: str) -> Verdict | Pending:
    """Compare two answers by their text, their parts and the values of their formulas."""
    if gold == answer and clean(gold):  # nothing below tells equal texts apart
        return CORRECT
    if (plainly := _plain_numbers(gold, answer)) is not None:
        return plainly
    gold, answer = _told(gold), _told(answer)
    found = _decide(gold, answer)
    verdict = found if isinstance(found, Verdict) else None
    if (verdict is None or not verdict.correct) and (other := _respelled(gold, answer)) is not None:
        return other
    if verdict is None or verdict.wrong:
        return found
    if verdict.correct and _conditional(answer) and not _conditional(gold):
        return undecided(CONDITIONS)
    if (verdict.correct or verdict.reason in (NAMES, SENTENCE.reason)) and opposed(gold, answer):
        same = numbers_in(gold) == numbers_in(answer) == 1
        return WRONG if same else undecided("opposite words")
    if verdict.correct and otherwise_qualified(gold, answer):
        return undecided("other words beside the measure")
    if verdict.correct and gold != answer and respelling.contradicted(answer):
        return undecided("two values")
    if verdict.correct and respelling.bare_less(answer) and not respelling.bare_less(gold):
        return undecided("a difference or a value")
    return found


_TELLING = re.compile(
    r"\\(?:text|mathrm)\s*\{([^{}]*(?:below|\((?:or|i\.e\.|about)(?![a-z]))[^{}]*| *[xX] *)\}"
)


def _told(text: str) -> str:
    """A text whose words in formulas are more than a unit, with these words as plain ones:
    `15^\\circ\\text{F below zero}`, `\\frac{7}{8} \\text{ (or } 0.875)`."""
    if "\\" not in text or _TELLING.search(text) is None:
        return text
    return re.sub(" {2,}", " ", _TELLING.sub(r" \1 ", text)).strip()


_SAID = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2}|\\text|[\u4e00-\u9fff]")
_IF = re.compile(r"\s*(?:(?:if|when|unless|provided)(?![A-Za-z])|当|若|如果)", re.IGNORECASE)


def _conditional(text: str) -> bool:
    """Whether an answer begins with a condition: `if n is even, 5`."""
    return _IF.match(text) is not None


def _respelled(gold: str, answer: str) -> Verdict | None:
    """CORRECT or undecided where another reading of the texts makes them equal."""
    sides = [
        [] if _PLAIN.fullmatch(text) is not None else respelling.respelled(text)
        for text in (gold, answer)
    ]
    if not any(sides):
        return None
    if (sizes := respelling.same_sizes(gold, answer)) is not None:
        return CORRECT if sizes else None
    doubt = None
    ours, theirs = ([(text, True), *side] for text, side in zip((gold, answer), sides, strict=True))
    for other, sure in ours:
        for text, certain in theirs:
            if (other, text) == (gold, answer) or _decide(other, text) != CORRECT:
                continue
            if sure and certain:
                return CORRECT
            doubt = undecided("the number can be read two ways")
    return doubt


_PLAIN = re.compile(r"-?\d+(?:\.\d{1,2}|\.\d{4,})?|[1-9]\d{0,2}(?:,\d{3}){2,}")
_MEASURED = re.compile(r"(-?\d+(?:\.\d{1,2})?) (?!(?:am|pm|sec)$)([a-z]{2,})")


def _plain_numbers(gold: str, answer: str) -> Verdict | None:
    """The verdict on two numbers with a single reading, or on one and a measure: 15, 15 cm.

    Most pairs are such; all rules together would say the same, many times slower.
    """
    plain = [_PLAIN.fullmatch(text) is not None for text in (gold, answer)]
    texts = [gold, answer]
    if not all(plain):
        measure = _MEASURED.fullmatch(texts[plain.index(False)]) if any(plain) else None
        if measure is None or not is_unit(measure.group(2)):
            return None
        texts[plain.index(False)] = measure.group(1)
    ours, theirs = map(decimal, texts)
    return None if ours is None or theirs is None else equal_numbers(ours, theirs)


def _decide(gold: str, answer: str) -> Verdict | Pending:
    ours, theirs = decimal(gold), decimal(answer)
    if ours is not None and theirs is not None:
        return equal_numbers(ours, theirs)  # the rules below would say the same, more slowly
    first, second = clean(gold), clean(answer)
    if first and first == second:
        return CORRECT
    if ")" in gold or ")" in answer:
        gold, answer = respelling.without_remark(gold), respelling.without_remark(answer)
        first, second = clean(gold), clean(answer)
    if max(len(gold), len(answer)) > MAX_STRUCTURED:
        if words.has_words(answer):
            return _sentence(gold, answer, None)
        return Pending(gold, answer)
    if _SAID.search(answer) and names_other_things(answer) and value(gold) is not None:
        return WRONG
    decided: Verdict | Pending | None = same_numbers(gold, answer)
    if decided is None:
        decided = _choice_content(first, second)
    if decided is not None:
        return decided
    prose = words.has_words(canonical(answer))
    verdict = _approximate(gold, answer)
    if verdict is None:
        verdict = _structured(gold, answer)
    if verdict == CORRECT:
        return undecided(CONDITIONS) if _conditions_differ(gold, answer) else verdict
    if verdict is not None and verdict.reason == NAMES:
        return verdict
    if prose:
        return _sentence(gold, answer, verdict)
    if verdict is None or verdict == WRONG:
        return _doubted(gold, answer, verdict)
    return verdict


def _conditions_differ(gold: str, answer: str) -> bool:
    """Whether both answers end in a condition, such as `5 at x = 2`, and the conditions differ."""
    conditions = [
        unconditional(canonical(text))[1] if len(text) < MAX_CONDITIONED else ""
        for text in (gold, answer)
    ]
    if all(conditions) and decide(conditions[0], conditions[1]) == WRONG:
        return True
    domains = [_DOMAIN.fullmatch(canonical(text)) for text in (gold, answer)]
    ours, theirs = (domain and domain.group(1) for domain in domains)
    if not ours or not theirs or re.search(r"(?<![A-Za-z])[knm](?![A-Za-z])", ours):
        return False  # the terms of a family may be counted from another number
    return decide(ours, theirs) == WRONG


_DOMAIN = re.compile(
    r"[^<>≤≥∈]*[A-Za-z][^<>≤≥∈]*,\s*([^,=]*[<>≤≥][^,=]*|[A-Za-z] ?∈ ?[\[(][^,=]*,[^,=]*[\])])"
)
"""A formula and the values of its variable: `y = 60 - 5t, 0 ≤ t ≤ 12`."""


def _choice_content(gold: str, answer: str) -> Verdict | Pending | None:
    """`(C) 12` for a gold answer 12, and 12 for `(C) 12`."""
    ours, theirs = words.content(gold), words.content(answer)
    if (ours is None) == (theirs is None):
        return None
    if words.content(ours or theirs or "") is not None:
        return None  # a letter after a letter
    found = decide(ours or gold, theirs or answer)
    return found if found == CORRECT else None


def _structured(gold: str, answer: str) -> Verdict | None:
    try:
        found = compare(read(gold), read(answer), limited(LEAVES))
        apart = [_signs_apart(text) for text in (gold, answer)]
        if apart == [None, None]:
            return found
        gold, answer = (other or text for other, text in zip(apart, (gold, answer), strict=True))
        every = compare(read(gold), read(answer), limited(LEAVES))
        if every == CORRECT or found != CORRECT:
            return every
        return undecided("signs in step or each on its own")
    except RecursionError:
        return undecided("nested too deeply")
    except TooManyError:
        return undecided("too many parts to compare")


def _signs_apart(text: str) -> str | None:
    """`±1 ± √2` as the list of its four values; None for a text without two double signs."""
    text = canonical(text)
    if text.count("±") < 2:
        return None
    if enclosed(text) and text[0] in "⦃{[":
        text = text[1:-1]
    pieces = [p.strip() for piece in split(text, ANY_COMMA) for p in split(piece, CONJUNCTION)]
    apart = [every_sign(piece) for piece in pieces]
    if not any(apart):
        return None
    both = zip(apart, pieces, strict=True)
    return ", ".join(text for texts, piece in both for text in texts or [piece])


def _doubted(gold: str, answer: str, verdict: Verdict | None) -> Verdict | Pending:
    """The final verdict where the comparison said "wrong" or nothing.

    A misreading must not make a right answer wrong: where words, dots or declared parameters
    remain that the comparison did not understand, the pair is undecided.
    """
    texts = [canonical(gold), canonical(answer)]
    if all(map(words.only_words, (gold, answer))):
        return undecided("cannot compare the words") if verdict is None else verdict
    if any(map(_UNREADABLE.search, texts)):
        return Pending(gold, answer)
    if any(map(words.has_words, texts)):
        return undecided("words in the answer")
    if verdict is None:
        return Pending(gold, answer)
    return verdict


def _sentence(gold: str, answer: str, verdict: Verdict | None) -> Verdict | Pending:
    """A sentence is correct if what it names last is, and wrong only if it names one number."""
    if verdict == WRONG and words.only_words(gold) and words.only_words(answer):
        return verdict
    if verdict is not None and verdict.undecided and words.only_words(answer):
        return verdict
    if (kept := without_contrast(answer)) != answer and (kept := kept.strip()):
        rest = decide(gold, kept)
        return SENTENCE if isinstance(rest, Pending) else rest
    if names_other_things(answer):
        return SENTENCE
    statement, condition = unconditional(canonical(answer))
    named = mentions(answer)
    if condition and len(answer) < MAX_CONDITIONED:
        named += mentions(statement)
    found = [decide(gold, text) for text in named if len(text) < len(answer)]
    if negated(answer):
        return SENTENCE
    if CORRECT in found:
        return undecided(CONDITIONS) if _conditions_differ(gold, answer) else CORRECT
    unequal = bool(found) and all(state == WRONG for state in found)
    if unequal and numbers_in(answer) == 1 and value(gold) is not None:
        return WRONG
    pending = [state for state in found if isinstance(state, Pending)]
    return Pending(pending[0].gold, pending[0].answer) if pending else SENTENCE


def _approximate(gold: str, answer: str) -> Verdict | None:
    """`\\frac{\\pi}{2} \\approx 1.57`: either form may be the one that was asked for."""
    sides = [split(canonical(text), _APPROXIMATELY) for text in (gold, answer)]
    if all(len(side) == 1 for side in sides):
        return None
    found = [
        decide(ours, theirs)
        for ours in sides[0]
        for theirs in sides[1]
        if ours.strip() and theirs.strip()
    ]
    if CORRECT in found:
        return CORRECT
    doubts = [state for state in found if isinstance(state, Verdict) and state.undecided]
    if doubts or any(isinstance(state, Pending) for state in found):
        return doubts[0] if doubts else None
    return WRONG if found else None
