"""Sentences that state an answer: what they name, and final sentences without an announcement."""

from __future__ import annotations

import re

from scdpo.grading.quantities.units import is_unit

DELIMITED = (
    re.compile(r"\$\$(.+?)\$\$", re.DOTALL),
    re.compile(r"(?<!\\)\$((?:\\.|[^$\\\n])+)\$"),
    re.compile(r"\\\((.+?)\\\)", re.DOTALL),
    re.compile(r"\\\[(.+?)\\\]", re.DOTALL),
)
_NUMBER = re.compile(
    r"(?<![\d:])\d{1,2}:\d{2}(?![\d:])(?: ?[ap]\.?m\.?)?|"
    r"(?<![A-Za-z0-9_.])-?[$¥€£]? ?\d+(?:[,.]\d+)*(?:/\d+)?"
    r"(?: ?(?:\\?%|[$€£¥]|[\u4e00-\u9fff]{1,2}(?=[。.,，]|$)))?"
)
_TRAILER = re.compile(r"\s*I hope (?:it|this) is correct\.?(?:\s*<\|[^|]*\|>\w*)?\s*$")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mbox)\w*\s*\{([^{}]*)\}")
_SENTENCES = re.compile(r"(?<=[.!?。])\$*\s+")
_VERB = re.compile(r"\b(?:is|are|equals?|be)\b|(?<=[A-Za-z])'s\b|为|是|等于", re.IGNORECASE)
_PREDICATE = re.compile(r"[ :]*([^.。]*(?:\.\d[^.。]*)*)")
"""What follows the last verb of a sentence."""
_QUALIFIED = re.compile(
    r"(?:\b(?:not|less|more|greater|fewer|least|most|than|over|under|about|negative|minus|between"
    r"|from"
    r"|to|either|or|out of|in|except|besides|multiples?|powers?|factors?|divisors?|divisible"
    r"|multiplied|divided|times|twice|thrice|double|half|triple|square|cube|root|sum|product"
    r"|reciprocal"
    r"|opposite|greater|larger|smaller|up|until|before|after|within|nearly|almost|below|above"
    r"|approximately|around|roughly|cannot|can't|isn't|never|neither|nor|base|mod|modulo|first"
    r"|last|next|top|question"
    r"|problem|step|exercise|equation|figure|(?:divisible|multiplied|divided) by"
    r"|(?:multiples?|powers?|factors?|divisors?|half|square|cube|root|percent|part|inverse"
    r"|complement"
    r"|supplement|logarithm|log|negation|conjugate|digits?|remainder|negative"
    r"|third|quarter) of)"
    r"|不|非|没|无|少于|多于|大于|小于|至少|至多|最多|最少|约|超过|低于|高于|除|除了|整除|被|负|零下|第|题)"
    r"\W*$",
    re.IGNORECASE,
)
_QUALIFIED_BEHIND = re.compile(
    r"\s*(?:个|的)?(?:的.{0,6}(?:倍|幂|次方|约数|因数|因子|方根|倒数|相反数)|的?(?:倍|约数|因数|因子|幂|次方|(?:平方"
    r"|立方)(?![厘分毫千公]?[米里])|[一二两三四五六七八九十]+倍|一半|整除|分之|倍数|以上|以下|以内|左右|多(?!少))"
    r"|times (?:as|the|more|that|of)\b|or (?:more|less|fewer)|(?:st|nd|rd|th)\b"
    r"|percent(?:age)? (?:of|more|less)"
    r"|(?:tenths?|hundredths?|thirds?|quarters?|halves|fifths?|dozen|hundred|thousand|million"
    r"|billion)\b|more|less|fewer|squared|cubed|below zero)",
    re.IGNORECASE,
)
_FORMULA_QUALIFIED = re.compile(
    r"(?:\b(?:not|less|more|greater|fewer|least|most|than|except|besides|twice|half|cannot|never"
    r"|(?:multiples?|powers?|factors?|divisors?|squares?|roots?|opposite|reciprocal|inverse"
    r"|complement"
    r"|supplement|logarithm|negation|conjugate|digits?|negative)\s+of"
    r"|divisible by)|不|非|没|少于|多于|大于|小于|至少|至多|除|被)\W*$",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?:\b(?:not|cannot|can't|isn't|aren't|except|never|neither|nor|impossible|unable|exclud\w+"
    r"|without|avoid\w*)\b|n't\b|不是|不能|不为|不等于|除了)"
    r"[^.,;\d]{0,25}-?[$¥€£]? ?\d[\d,.]*\W*$"
)


def mentions(text: str) -> list[str]:
    """The texts that a sentence may give as its answer.

    They are what follows its last verb, and its only formula or number. A number does not count
    if it is part of a formula, or if words beside it qualify it (less than 20, multiples of 3).
    """
    text = _WRAPPED.sub(r" \1 ", _TRAILER.sub("", text)).replace("\\$", "$")
    formulas = list(dict.fromkeys(m.group(1).strip() for p in DELIMITED for m in p.finditer(text)))
    found = formulas if len(formulas) == 1 and not _formula_qualified(text) else []
    verbs = list(_VERB.finditer(text))
    if verbs and (predicate := _PREDICATE.match(text, verbs[-1].end())) is not None:
        said = predicate.group(1).strip()
        found += [said, *(m.group(1).strip() for p in DELIMITED for m in p.finditer(said))]
        found += alone(said)
    elif not formulas:
        found += alone(text)
    if len(sentences := _SENTENCES.split(text.strip())) > 1:
        found += alone(sentences[-1])
    return [text for text in dict.fromkeys(found) if text]


_OTHER_THINGS = re.compile(
    r"(?:the answer is |they are |it is |is )?(?:(?:all|any|every|each|the"
    r"|positive|negative|even|odd)"
    r" )*(?:(?:integer|whole|natural|real)? ?(?:numbers? )?)?(?:(?:that|which) (?:is|are) )?"
    r"(?:(?:multiples|powers|factors|divisors) of|divisible by|except(?: for)?"
    r"|(?:less|greater|more|fewer|larger|smaller|bigger|higher|lower) than) \W*N\W*"
    r"|(?:all|any|every|each) (?:(?:positive|negative|even|odd|real|whole|natural|perfect) )*"
    r"(?:integers?|(?:real )?numbers?|values?|primes?|squares?|cubes?|composites?)[a-z ]* \W*N\W*"
    r"|.{0,60}\b(?:cannot|can't|can not|is not|isn't|are not|not|never|impossible)"
    r"(?: to (?:be|get|have|obtain|reach|make|equal|form))?(?: be)?(?: equal)?(?: to)?"
    r" \W*N\W*"
    r"|.{0,40}\b(?:any|all|every|each|anything|everything)"
    r"(?:[a-z ]*) (?:but|except|other than|besides)"
    r"(?: for)? \W*N\W*"
    r"|(?:所有|全部|任意|能|不能|可以|是|为|被)*N ?的(?:正|所有|整)?"
    r"(?:倍数|因数|约数|因子|幂|次幂|次方)"
    r"|.{0,4}(?:小于|大于|不超过|不小于|不大于|少于|多于|不少于|不多于)(?:或等于)? ?N ?的"
    r"[^\d]{0,6}数"
    r"|(?:所有|全部|不?能?被)+N整除的?(?:数|整数|自然数)?|除了?N(?:以外|之外|外).{0,10}"
    r"|.{0,12}(?:不是|不等于|不能是|不为|不能为|不可能是) ?N",
    re.IGNORECASE | re.DOTALL,
)
"""Sets of numbers, and numbers that an answer excludes; N is the only number."""


_CONTRASTED = re.compile(
    r"\b(?:not|isn't)(?: equal to)? (?P<wrong>\$?-?[\d.,/]+\$?),? but(?: rather)?"
    r" (?:is |it is |it's )?(?=\$?-?\d)"
    r"|不是 ?(?P<cn>-?[\d.]+)[^\d，,]{0,3}[，,]? ?而是 ?(?=-?\d)",
    re.IGNORECASE,
)
_INSTEAD = re.compile(
    r"(?<=[\d}$%])(?: [a-z]{2,12})?,? \(?(?:and )?(?:not|instead of|rather than)"
    r" \$?-?[\d.,/]*\d\$?(?: [a-z]{2,12})?\)?\.?\s*$"
    r"|(?<=\d)[^\d，,]{0,3}[，,] ?(?:而)?不是 ?-?[\d.]+.{0,3}$",
    re.IGNORECASE,
)


def without_contrast(text: str) -> str:
    """A sentence without the number that it rejects: `not 3 but 2`, `x = 3, not 4`."""
    if len(text) > MOST_CONCLUDING or not re.search(r"not|n't|instead|rather|不是", text):
        return text
    return _INSTEAD.sub("", _CONTRASTED.sub("", text))


def names_other_things(text: str) -> bool:
    """Whether a text with a single number speaks of other numbers: all multiples of 3, not 5."""
    if len(text) > MOST_CONCLUDING:
        return False
    text = _undelimited(text).strip().rstrip(".。")
    numbers = list(_PLAIN_NUMBER.finditer(text))
    if len(numbers) != 1:
        return False
    at = numbers[0]
    return _OTHER_THINGS.fullmatch(f"{text[: at.start()]}N{text[at.end() :]}") is not None


_PLAIN_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])-?\d+(?:[,.]\d+)*")


def negated(text: str) -> bool:
    """Whether a sentence says what its answer is not."""
    return _NEGATED.search(text) is not None


def _formula_qualified(text: str) -> bool:
    """Whether words beside a sentence's only formula qualify it: multiples of $3$."""
    for pattern in DELIMITED:
        if (match := pattern.search(text)) is not None:
            before, after = text[: match.start()].rstrip(), text[match.end() :]
            return bool(_FORMULA_QUALIFIED.search(before) or _QUALIFIED_BEHIND.match(after))
    return False


LONGEST_QUALIFYING = 20
"""Most characters of what `_QUALIFIED` finds, without those at its end that are of no word."""


def _qualified(before: str) -> bool:
    """Whether the last words of a text qualify the number behind it."""
    end = len(before)
    while end and not (before[end - 1].isalnum() or before[end - 1] == "_"):
        end -= 1
    return _QUALIFIED.search(before, max(0, end - LONGEST_QUALIFYING)) is not None


_JOINING = tuple("\\{}^_/*+=(|<>≤≥")
"""What joins a number to the formula before it."""


def alone(text: str) -> list[str]:
    """The number of a text, if it has only one and no words qualify it."""
    numbers = list(_NUMBER.finditer(text))
    if len({match.group().strip() for match in numbers}) != 1:
        return []
    match = numbers[-1]
    before, after = text[: match.start()], text[match.end() :]
    if before.rstrip().endswith(_JOINING) or _qualified(before):
        return []
    if re.match(r"\s*[}^_/*+=!|<>≤≥]|-[a-z]", after) or _QUALIFIED_BEHIND.match(after):
        return []
    if match.group().endswith(("的", "倍", "约", "因", "数", "幂")):
        return []
    return [match.group().strip()]


def numbers_in(text: str) -> int:
    """The count of different numbers in a sentence."""
    return len({match.group().strip() for match in _NUMBER.finditer(text)})


_CONCLUDING = re.compile(
    r"(?:\W*(?:and|then)\s+)?\W*(?:so|thus|therefore|hence|consequently|finally|altogether|overall"
    r"|in total|in all|in conclusion|as a result|this means(?: that)?|we conclude"
    r"|(?:final )?(?:result|total|output|solution)(?= ?[:：=])|结果(?= ?[:：=])"
    r"|∴|所以|因此|因而|故|综上"
    r"(?:所述)?|于是|从而|即|总共|一共|共)(?![A-Za-z])",
    re.IGNORECASE,
)
_PREDICATED = re.compile(
    r"(?:\b(?:is|are|was|were|equals|equal to|be|totals)|=|为|是|等于)"
    r"\s*[:：]?\s*(?:therefore|thus|then|hence|exactly|only|just|simply|always)?\s*(?:\*\*|\$|\\\("
    r"|about )?\s*$"
)
_UNSURE = re.compile(
    r"\b(?:not|let|let's|need|must|suppose|assume|if|whether|would|could|might|may|next"
    r"|(?<![a-z] )first|first (?:we|let|find|note)|wait(?=[,.!:])"
    r"|check|try|perhaps|maybe|initially|each|every|per|remaining to|consider|when|where|which|what"
    r"|know|given|start(?:s|ed)?|there are|there is|there were|because|since|example|step|we have"
    r"|at least|at most|more than|less than|fewer than|between|or)\b|n't\b"
    r"|假设|如果|若|设|需要先|首先|接下来|下一步|因为|由于|每|已知|可能|不|或|至少|至多|最多|检查",
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*\s*(\$?[^*\n]{1,40}?)\s*\*\*")
_BEHIND = re.compile(
    r"\s*(?:\*\*|\$|\\\))?\s*((?:(?:square|cubic) )?[A-Za-z°]+(?:/[A-Za-z]+)?|[\u4e00-\u9fff]{1,2})"
)
MOST_CONCLUDING = 300
"""Longest final sentence that is searched for its number, in characters."""


def conclusion(text: str) -> str | None:
    """The number that the last sentence of a text states as the result, with its unit.

    The sentence begins with a word such as "so" or "therefore", puts its number in bold, or ends
    in its number ("the total cost is $29.00."), has a single number, and neither doubts nor
    qualifies it. None for every other sentence.
    """
    sentence = _last_sentence(text)
    if sentence is None:
        return None
    sentence = without_contrast(sentence)
    concluding = _CONCLUDING.match(sentence)
    found = _concluded(sentence, concluding)
    # What doubts a sentence is searched for last, since few sentences come so far.
    return None if found is None or _doubted(sentence, concluding is not None) else found


def _last_sentence(text: str) -> str | None:
    """The sentence that a text ends in; None for a question, and for one that is too long."""
    text = text.strip()[-2 * MOST_CONCLUDING :].rstrip()
    if "\\[" in text or "\\]" in text or "$$" in text:
        text = _in_line(text)
    body = text.rstrip(" \n.。!！*)")
    cut = body.rfind("\n")
    for stop in _STOP.finditer(body, cut + 1):
        cut = stop.end() - 1
    sentence = text[cut + 1 :].strip()
    if not sentence or len(sentence) > MOST_CONCLUDING or sentence.endswith(("?", ":", "：", "？")):
        return None
    return sentence


def _in_line(text: str) -> str:
    """A text with displayed formulas in the line of the sentence that ends in them."""
    *pieces, last = _BEFORE_DISPLAYED.split(text)
    lines = [re.sub(r"[:：]?$", "", piece.rstrip()).rstrip() for piece in pieces]
    return _WITHIN_DISPLAYED.sub(
        lambda found: f"{found['opening'] or ''} ", " ".join([*lines, last])
    )


def _doubted(sentence: str, concludes: bool) -> bool:
    """Whether a sentence has words of doubt, of which some are allowed in conclusions."""
    doubts = {match.group().lower() for match in _UNSURE.finditer(sentence)}
    if concludes or "**" in sentence:
        doubts -= _ALLOWED_IN_CONCLUSIONS
    return bool(doubts)


def _concluded(sentence: str, concluding: re.Match[str] | None) -> str | None:
    """The number or the formula of a final sentence."""
    bold = {m.group(1) for m in _BOLD.finditer(sentence)} if "**" in sentence else set()
    if len(bold) == 1 and (found := _stated_number(sentence, bold.pop())) is not None:
        return found
    if concluding is None and _DIGIT.search(sentence) is None:
        return None
    plain = _ORDINAL.sub(" ", _undelimited(sentence))
    if concluding is not None:
        plain = _COMPUTED.sub("", plain)
    number = alone(plain if concluding is None else _COMPARING.sub("", plain))
    if not number and concluding is not None:
        return _stated_value(plain[concluding.end() :]) or _stated_formula(sentence)
    if not number:
        return None
    before, _, after = plain.partition(number[0])
    if re.match(r"[A-Za-z\\(]", after) and _with_unit(number[0], after) == number[0]:
        return None  # 2x
    if _SUBJECT_OF.search(after):
        return None  # the word with a value of 715 is EKM
    ends = re.fullmatch(r"\W*(?:[A-Za-z°%]+(?: [a-z]+)?)?\W*", after) is not None
    if concluding is None and not (_PREDICATED.search(before) and ends):
        return None
    return _with_unit(number[0], after)


_DIGIT = re.compile(r"\d")
_COMPUTED = re.compile(
    r"(?<![\w).])[($€£\d](?:[-+*/×÷\d.,() $€£%!]|\\(?:times|cdot|div)(?![A-Za-z]))*="
    r" ?(?=[$€£]?-?\d)"
)
"""A computation before its result: `20 + 33 = 53`."""
_SUBJECT_OF = re.compile(
    r"[:：]\s*\S|\b(?:is|are|was|were)\b(?! (?:the|our|your|my|an?|what|how|all)\b)"
)
_ORDINAL = re.compile(r"(?<![\w.])\d+(?:st|nd|rd|th)(?![A-Za-z])")
_COMPARING = re.compile(r"(?<=\d) (?:more|fewer|less)(?= [a-z]{3,}\b)(?! than\b)")
"""A difference: `5 more apples than John`."""
_VALUE = re.compile(
    r"\W*?(?:(?:we )?(?:have|get|find|obtain)(?: that)? )?"
    r"(?:[A-Za-z](?:_\{?\w\}?)?|\\(?:sin|cos|tan|log|ln|angle) ?[A-Za-z]"
    r"|[A-Za-z]\([\w, -]{1,12}\)) ?= ?"
    r"((?:\\(?:[dt]?frac|sqrt|pi|cdot|times|circ)(?![A-Za-z])|[-\d.,/{}()^ +])+?)\s*[.。$]*\s*"
)


def _stated_value(text: str) -> str | None:
    """The value of `x = 5`, where a conclusion consists of it."""
    found = _VALUE.fullmatch(text)
    return None if found is None else found.group(1).strip()


_STOP = re.compile(
    r"[.?!。！？;；\]$](?:(?<=[。！？;；])|(?<=[.?])(?=\s)|(?<=!)(?<!\d!)(?=\s)"
    r"|(?<=\\\]|\$\$)(?=\s+[A-Z]))"
)
"""The end of a sentence; its last character comes first, as that makes the search fast."""
_BEFORE_DISPLAYED = re.compile(r"\n\s*(?=\\\[|\$\$)")
_WITHIN_DISPLAYED = re.compile(r"(?P<opening>\\\[)\s*\n|\n\s*(?=\\\])")
_ALLOWED_IN_CONCLUSIONS = frozenset(
    ("each", "every", "per", "there are", "there is", "there were", "每", "may", "we have")
)


def _undelimited(text: str) -> str:
    """A sentence without math delimiters and stars."""
    if "\\" not in text and "$" not in text:
        return text.replace("**", "")
    text = re.sub(r"\\[()\[\]]|\*\*", "", _WRAPPED.sub(r" \1 ", text))
    for pattern in DELIMITED[:2]:
        text = pattern.sub(r"\1", text)
    return text.replace("\\$", "$").replace("\\%", "%")


def _stated_number(sentence: str, bold: str) -> str | None:
    """The number in bold type: `**8**`, `**$29.00**`, `**8 apples**`."""
    numbers = alone(_undelimited(bold))
    if not numbers or _qualified(sentence[: sentence.find("**")]):
        return None
    at = _undelimited(sentence.replace("**", "")).find(numbers[0])
    if at < 0:
        return None
    return _with_unit(numbers[0], _undelimited(sentence.replace("**", ""))[at + len(numbers[0]) :])


def _stated_formula(sentence: str) -> str | None:
    """The formula that a sentence ends in: `so the value of $f(2)$ is $\\frac{2}{3}$.`"""
    found = sorted(
        (match for pattern in DELIMITED for match in pattern.finditer(sentence)),
        key=lambda match: match.start(),
    )
    if not found or re.fullmatch(r"[.。!\s*]*", sentence[found[-1].end() :]) is None:
        return None
    formula, before = found[-1].group(1).strip(), sentence[: found[-1].start()]
    if re.search(r"=|\\ne", formula) and not _SOLVED.match(formula):
        return None
    subject = before
    for pattern in DELIMITED:
        subject = pattern.sub(" ", subject)
    predicated = _PREDICATED.search(before)
    if predicated is None or re.search(r"\d", subject):
        return None
    if len(found) > 1 and len(_VERB.findall(_PASSIVE.sub("", subject))) != 1:
        return None
    return formula


_PASSIVE = re.compile(r"\b(?:is|are|be) (?:\w+ed|such)\b")
_SOLVED = re.compile(r"[A-Za-z](?:_\{?\w\}?)? ?=[^=A-Za-z]*$")
"""A value of an unknown: `x = 3`."""


def _with_unit(number: str, after: str) -> str:
    unit = _BEHIND.match(after)
    if unit is not None and unit.group(1) not in ("in", "a", "am") and is_unit(unit.group(1)):
        return f"{number} {unit.group(1)}"
    return number
