"""Times of day and dates: `3:30 PM`, `15:30`, `下午3时30分`, `June 20th`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from scdpo.grading.quantities.number_words import number_in_words

_CLOCK = re.compile(
    r"(?:at )?(\d{1,2})(?::(\d{2}))?(?::(\d{2}))? ?(a\.?m\.?|p\.?m\.?|noon|midnight|o'clock"
    r"|in the (?:morning|afternoon|evening)|at night)?",
    re.IGNORECASE,
)
_CHINESE = re.compile(
    r"(?:(上午|下午|早上|凌晨|晚上|中午|傍晚)?(\d{1,2})(?:时|点)(?:(\d{1,2})分?|整)?(半)?"
    r"|(上午|下午|早上|凌晨|晚上|中午|傍晚) ?(\d{1,2}):(\d{2}))"
)
_MORNING, _AFTERNOON = frozenset(("上午", "早上", "凌晨")), frozenset(("下午", "晚上", "傍晚"))


@dataclass(frozen=True, slots=True)
class Clock:
    """Minutes since midnight; `sure` is False if the time may also be in the afternoon (3:30).

    `padded` is True for 03:30, which is in the morning on a 24-hour clock but may be in the
    afternoon if the other answer says 3:30 PM. `halved`: the half of the day is stated.
    """

    minutes: int
    sure: bool
    seconds: int = 0
    padded: bool = False
    halved: bool = False

    def same(self, other: Clock) -> bool:
        """Whether two times may be the same; a time without a half of the day fits both halves."""
        if self.seconds != other.seconds:
            return False
        if self.sure and other.sure:
            return self.minutes == other.minutes
        return self.minutes % 720 == other.minutes % 720

    def perhaps(self, other: Clock) -> bool:
        """Whether the times are written 03:30 and 3:30 PM, and may be the same."""
        written = (self.padded and other.halved) or (self.halved and other.padded)
        return written and replace(self, sure=False).same(other)


def clock(text: str) -> Clock | None:
    """The time of day in a cleaned text, or None; a bare number is not a time."""
    match = _CLOCK.fullmatch(text)
    if match is not None and (match.group(2) or match.group(4)):
        hour, minute = int(match.group(1)), int(match.group(2) or 0)
        half = (match.group(4) or "").lower().replace(".", "")
        half = {"in the morning": "am"}.get(half, "pm" if half[:3] in ("in ", "at ") else half)
        half = half if half in ("am", "pm") else ""
        padded = not half and match.group(1).startswith("0") and hour > 0
        seconds = int(match.group(3) or 0)
        found = _clock(hour, minute, "am" if padded else half, seconds)
        return found and replace(found, padded=padded, halved=bool(half))
    chinese = _CHINESE.fullmatch(text)
    if chinese is None:
        return None
    half, hour_text, minute_text, thirty, *colon = chinese.groups()
    if colon[0]:
        half, hour_text, minute_text = colon
    minute = 30 if thirty else int(minute_text or 0)
    name = "am" if half in _MORNING else "pm" if half in _AFTERNOON else ""
    found = _clock(int(hour_text), minute, name)
    return found and replace(found, halved=bool(name))


def _clock(hour: int, minute: int, half: str, seconds: int = 0) -> Clock | None:
    if hour > 24 or minute > 59:
        return None
    if half and hour > 12:
        half = ""
    sure = bool(half) or hour > 12 or hour == 0
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    return Clock(hour * 60 + minute, sure, seconds)


_MONTHS = (
    "january february march april may june july august september october november december".split()
)
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_MONTH = r"([A-Za-z]{3,9})\.?"
_DATES = (
    re.compile(rf"{_MONTH} {_DAY}(?:,? ?(\d{{4}}))?()"),
    re.compile(rf"()(?:the )?{_DAY}(?: of)? {_MONTH}(?:,? ?(\d{{4}}))?"),
)
_CHINESE_DATE = re.compile(
    r"(?:(\d{4})年)?(\d{1,2}|[一二三四五六七八九十]{1,2})月(\d{1,2}|[一二三四五六七八九十]{1,3})[日号]?"
)


@dataclass(frozen=True, slots=True)
class Date:
    """A day of the year; the year is None if it is not stated."""

    month: int
    day: int
    year: int | None

    def same(self, other: Date) -> bool:
        """Whether two dates may be the same; a date without a year fits any year."""
        years = {self.year, other.year} - {None}
        return (self.month, self.day) == (other.month, other.day) and len(years) < 2


def date(text: str) -> Date | None:
    """The date in a cleaned text (`June 20th`, `20 June 2024`, `6月20日`), or None."""
    chinese = _CHINESE_DATE.fullmatch(text)
    if chinese is not None:
        year, *rest = chinese.groups()
        month, day = (int(part) if part.isdecimal() else number_in_words(part) for part in rest)
        if month is None or day is None:
            return None
        return Date(int(month), int(day), int(year) if year else None)
    for pattern in _DATES:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        parts = [part for part in match.groups() if part]
        name = next(part for part in parts if part.isalpha())
        numbers = [int(part) for part in parts if part.isdigit()]
        months = [n for n, month in enumerate(_MONTHS, 1) if month.startswith(name.lower())]
        if len(months) == 1 and numbers and numbers[0] <= 31:
            return Date(months[0], numbers[0], numbers[1] if len(numbers) > 1 else None)
    return None
