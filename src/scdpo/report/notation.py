"""How numbers are written in all tables."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"


def percent(share: float) -> str:
    """A fraction in per cent, with one decimal and no unit: 0.4604 → `46.0`."""
    return f"{100 * share:.1f}"


def percent_interval(low: float, high: float) -> str:
    """Two fractions in per cent: `[42.9, 49.2]`."""
    return f"[{percent(low)}, {percent(high)}]"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign: 0.014 → `+1.4`.

    A difference that rounds to zero has no sign.
    """
    text = f"{abs(100 * difference):.1f}"
    if float(text) == 0:
        return text
    return f"{'+' if difference > 0 else MINUS}{text}"


def points_interval(low: float, high: float) -> str:
    """Two differences in percentage points: `[−0.4, +2.0]`."""
    return f"[{points(low)}, {points(high)}]"


def p_value(p: float) -> str:
    """A p-value to two significant digits: `p=0.048`, `p=1.0`; below 0.0001, only the bound."""
    if p < 0.0001:
        return "p<0.0001"
    exponent = int(f"{p:.1e}".split("e")[1])
    return f"p={p:.{1 - exponent}f}"


def count(number: int) -> str:
    """A whole number with thousands separators: 12345 → `12,345`."""
    return f"{number:,}"


def duration(seconds: float) -> str:
    """A duration: `0.4 s`, `47 s`, `3 min 05 s`, `2 h 14 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
