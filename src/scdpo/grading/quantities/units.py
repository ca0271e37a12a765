"""Units of measure, with their dimensions and sizes, so that 1 m is 100 cm."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

Dimensions = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """`scale` times the base unit of `dimensions` (meter, gram, second, dollar, …).

    Counted things (apples, 个) have no dimensions.
    """

    scale: Fraction = Fraction(1)
    dimensions: Dimensions = ()

    def times(self, other: Unit, power: int = 1) -> Unit:
        """The product with a power of another unit."""
        total = dict(self.dimensions)
        for name, exponent in other.dimensions:
            total[name] = total.get(name, 0) + power * exponent
        kept = tuple(sorted((name, exponent) for name, exponent in total.items() if exponent))
        return Unit(self.scale * other.scale**power, kept)


COUNT = Unit()

# dimension: {scale: names}
_TABLE: dict[str, dict[str, str]] = {
    "length": {
        "1/1000000000": "nm nanometer nanometers",
        "1/1000000": "μm micrometer micrometers micron microns",
        "1/1000": "mm millimeter millimeters millimetre millimetres 毫米",
        "1/100": "cm cms centimeter centimeters centimetre centimetres 厘米 公分",
        "1/10": "dm decimeter decimeters decimetre decimetres 分米",
        "1": "m meter meters metre metres 米",
        "1000": "km kms kilometer kilometers kilometre kilometres 千米 公里",
        "254/10000": "in inch inches 英寸",
        "3048/10000": "ft foot feet 英尺",
        "9144/10000": "yd yds yard yards 码",
        "1609344/1000": "mi mile miles 英里",
    },
    "mass": {
        "1/1000": "mg milligram milligrams 毫克",
        "1": "g gram grams 克",
        "500": "斤",
        "1000": "kg kgs kilo kilogram kilograms 千克 公斤",
        "1000000": "tonne tonnes t 吨",
        "907184740/1000": "ton tons",
        "45359237/100000": "lb lbs pound pounds 磅",
        "45359237/1600000": "oz ounce ounces 盎司",
    },
    "volume": {
        "1/1000": "ml mL milliliter milliliters millilitre millilitres 毫升",
        "1/100": "cl cL centiliter centiliters centilitre centilitres",
        "1/10": "dl dL deciliter deciliters decilitre decilitres 分升",
        "1": "l L liter liters litre litres 升",
        "3785411784/1000000000": "gal gallon gallons 加仑",
        "946352946/1000000000": "quart quarts qt",
        "473176473/1000000000": "pint pints",
        "2365882365/10000000000": "cup cups",
    },
    "time": {
        "1/1000000000": "ns nanosecond nanoseconds 纳秒",
        "1/1000000": "μs µs microsecond microseconds 微秒",
        "1/1000": "ms millisecond milliseconds 毫秒",
        "1": "s sec secs second seconds 秒 秒钟",
        "60": "min mins minute minutes 分钟",
        "3600": "h hr hrs hour hours 小时 时 个小时",
        "86400": "day days 天 日",
        "604800": "week weeks wk wks 周 星期 个星期",
    },
    "month": {"1": "month months 月 个月", "12": "year years yr yrs 年 岁"},
    "dollar": {"1": "dollar dollars USD $ 美元 bucks", "1/100": "cent cents ¢ 美分"},
    "yuan": {"1": "yuan RMB CNY ¥ 元 块 块钱 元钱", "1/10": "角 毛", "1/100": "分钱"},
    "euro": {"1": "euro euros EUR € 欧元"},
    "pound": {"1": "£ GBP 英镑"},
    "rupee": {"1": "Rs Rs. INR rupee rupees ₹"},
    "angle": {"1": "degree degrees deg ° 度", "1/60": "arcminutes arcminute"},
    "radian": {"1": "radian radians rad rads 弧度"},
    "temperature": {"1": "℃ °C celsius"},
    "fahrenheit": {"1": "℉ °F fahrenheit"},
    "area": {"1": "acre acres"},
    "hectare": {"1": "hectare hectares ha 公顷"},
    "mu": {"1": "亩"},
    "am": {"1": "am AM a.m. A.M."},
    "pm": {"1": "pm PM p.m. P.M."},
    "current": {
        "1/1000": "mA milliamp milliamps milliampere milliamperes",
        "1": "ampere amperes amp amps",
    },
    "voltage": {
        "1/1000": "mV millivolt millivolts",
        "1": "volt volts",
        "1000": "kV kilovolt kilovolts",
    },
    "force": {"1": "newton newtons N"},
    "energy": {
        "1": "joule joules J",
        "1000": "kJ kilojoule kilojoules",
        "1000000": "MJ megajoules",
    },
    "power": {
        "1/1000": "mW milliwatt milliwatts",
        "1": "watt watts W",
        "1000": "kW kilowatt kilowatts",
        "1000000": "MW megawatt megawatts",
        "1000000000": "GW gigawatt gigawatts",
    },
    "frequency": {
        "1": "Hz hertz",
        "1000": "kHz kilohertz",
        "1000000": "MHz megahertz",
        "1000000000": "GHz gigahertz",
    },
    "data": {
        "1": "byte bytes",
        "1000": "kB KB kilobyte kilobytes",
        "1000000": "MB megabyte megabytes",
        "1000000000": "GB gigabyte gigabytes",
        "1000000000000": "TB terabyte terabytes",
    },
    "resistance": {"1": "ohm ohms Ω", "1000": "kΩ kilohm kilohms"},
    "pressure": {"1": "Pa pascal pascals", "1000": "kPa", "1000000": "MPa"},
    "amount": {"1": "mol mole moles"},
}
_SPEEDS = {
    "mph": ("mile", "hour"),
    "kmh": ("km", "hour"),
    "kph": ("km", "hour"),
    "km/h": ("km", "hour"),
}
_UNITS: dict[str, Unit] = {
    name: Unit(Fraction(scale), ((dimension, 1),))
    for dimension, sizes in _TABLE.items()
    for scale, names in sizes.items()
    for name in names.split()
}
# A litre is a cubic decimetre, so volumes are cubic lengths.
for _name, _unit in list(_UNITS.items()):
    if _unit.dimensions == (("volume", 1),):
        _UNITS[_name] = Unit(_unit.scale / 1000, (("length", 3),))
    elif _unit.dimensions == (("hectare", 1),):
        _UNITS[_name] = Unit(Fraction(10_000), (("length", 2),))
    elif _unit.dimensions == (("mu", 1),):
        _UNITS[_name] = Unit(Fraction(2000, 3), (("length", 2),))
for _name, (_over, _under) in _SPEEDS.items():
    _UNITS[_name] = _UNITS[_over].times(_UNITS[_under], -1)

SYMBOLS = frozenset(name for name in _UNITS if len(name) <= 3 and name.isascii())
"""Abbreviations, which may also be variables: m, s, kg."""

_POWER = re.compile(r"(.*?)(?:\^\s*\{?\s*(-?\d)\s*\}?|([²³])|(?<=[a-z])([23]))?")
_SQUARE = re.compile(r"(?:square|sq\.?|平方)\s*(.+)|(.+?)\s+squared")
_CUBIC = re.compile(r"(?:cubic|cu\.?|立方)\s*(.+)|(.+?)\s+cubed")
_JOINT = re.compile(r"\s*(?:/|\bper\b|\ban?\b(?= )|每)\s*")
_FACTOR = re.compile(r"\s*[·*⋅]\s*|\s*\\cdot\s*|\s+")
_WORD = re.compile(r"[A-Za-zÀ-ž$€£¥₹°℃℉μΩ¢.\u4e00-\u9fff'’\-]+")


@lru_cache(maxsize=4096)
def unit(text: str) -> Unit | None:
    """The unit that a whole text names; COUNT for words of things, None for anything else.

    Reads `cm`, `cm^2`, `square feet`, `m/s`, `km per hour`, `kg·m/s^2`, `平方厘米`, `千米/时`.
    """
    text = text.replace("\\cdot", "·")
    text = text.strip().rstrip(".") if text not in _UNITS else text
    if not text:
        return COUNT
    if text in _UNITS:
        return _UNITS[text]
    over, *unders = _JOINT.split(text)
    found = _product(over) if over else COUNT
    for under in unders:
        part = _product(under)
        if found is None or part is None:
            return None
        # Dollars per apple are compared as dollars.
        found = found.times(part, -1)
    return found


def _product(text: str) -> Unit | None:
    text = text.strip().strip("()")
    for pattern, power in ((_SQUARE, 2), (_CUBIC, 3)):
        match = pattern.fullmatch(text)
        if match is not None:
            base = _single((match.group(1) or match.group(2)).strip())
            return None if base is None else COUNT.times(base, power)
    if text in _UNITS or text.lower() in _UNITS:
        return _single(text)
    total = COUNT
    for factor in _FACTOR.split(text):
        match = _POWER.fullmatch(factor)
        if match is None or not match.group(1):
            return None
        base = _single(match.group(1))
        if base is None:
            return None
        power = {"²": 2, "³": 3}.get(
            match.group(3) or "", int(match.group(2) or match.group(4) or 1)
        )
        total = total.times(base, power)
    return total


def _single(name: str) -> Unit | None:
    if name in _UNITS:
        return _UNITS[name]
    if len(name) > 3 and name.lower() in _UNITS:
        return _UNITS[name.lower()]
    return COUNT if _WORD.fullmatch(name) else None


def is_unit(text: str) -> bool:
    """Whether a text names a unit of measure, rather than counted things."""
    found = unit(text)
    return found is not None and bool(found.dimensions)
