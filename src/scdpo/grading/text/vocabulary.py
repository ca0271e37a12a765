"""Words and phrases of answers that mean the same, in English and Chinese."""

from __future__ import annotations

import re
from functools import lru_cache

_NO = r"no|none|there (?:is|are) no|(?:it )?has no|there exists? no"
_CLASSES: dict[str, str] = {
    "unknown": r"(?:it )?(?:cannot be determined|can't be determined|not enough information"
    r"|cannot determine|insufficient information).{0,60}|.{0,20}(?:无法|不能)(?:确定|判断).{0,10}",
    "none": rf"∅|\\emptyset|none|(?:{_NO}) (?:such )?(?:\w+ )*?(?:real )?(?:integer )?"
    r"(?:solutions?|values?|roots?|answers?|numbers?|integers?|functions?|pairs?|triples?)"
    r"(?: exists?)?|(?:it )?does not exist|do not exist|doesn't exist|dne|impossible|not possible"
    r"|(?:no such [\w ]*|none )exists?|no such .{0,40}"
    r"|(?:the )?(?:limit|it|answer|value) does not exist"
    r"|there (?:does|do) not exist .{0,40}|there (?:is|are) no(?:ne| such) .{0,40}"
    r"|no solutions? exists?|(?:the )?empty set|null set|\{\}|undefined"
    r"|(?:the )?solution set is empty"
    r"|(?:该|原|此)?(?:方程组?|不等式组?)?(?:无|没有)(?:实数?)?(?:解|根)(?:,?[即故]?(?:该|原|此)?"
    r"(?:方程组?|不等式组?)?无(?:实数?)?解)?|不存在|无|没有|空集|不可能",
    "all": r"all reals?(?: numbers?)?|(?:any|every) real(?: number)?|all real values|ℝ|⟦R⟧"
    r"|(?:全体|任意|一切|所有)的?实数|\(-\\infty,\+?\\infty\)|x∈⟦R⟧",
    "nonnegative": r"(?:all |any )?non-?negative real(?: number)?s?|(?:全体|任意|所有)?非负实数",
    "positive": r"(?:all |any )?positive real(?: number)?s?|(?:全体|任意|所有)?正实数",
    "nonpositive": r"(?:all |any )?non-?positive real(?: number)?s?|(?:全体|任意|所有)?非正实数",
    "negative": r"(?:all |any )?negative real(?: number)?s?|(?:全体|任意|所有)?负实数",
    "many": r"(?:.{0,25}\b(?:has|have|are) )?(?:infinitely many|an? infinite number(?: of)?)"
    r"(?: (?:real )?solutions?)?|infinite(?: number(?: of solutions)?| solutions)?"
    r"|(?:方程组?)?有?无(?:数|穷|限)(?:多)?(?:个|组|种)?解?",
    "infinity": r"\+?\\infty|infinity|∞|正?无穷(?:大)?",
    "yes": r"(?:yes|true|correct|right)(?:,.{0,40})?|是的?|对|正确|√|\\checkmark|成立|可以|能|会",
    "no": r"(?:no|false|incorrect|not true)(?:,.{0,40})?|否|不是|错误?|不对|×|不成立|不正确|不可以"
    r"|不能(?:做到)?|做不到|不会|假",
    "quadrant 1": r"(?:the )?(?:first|1st) quadrant|quadrant (?:i|1|one)|第一象限",
    "quadrant 2": r"(?:the )?(?:second|2nd) quadrant|quadrant (?:ii|2|two)|第二象限",
    "quadrant 3": r"(?:the )?(?:third|3rd) quadrant|quadrant (?:iii|3|three)|第三象限",
    "quadrant 4": r"(?:the )?(?:fourth|4th) quadrant|quadrant (?:iv|4|four)|第四象限",
    "player 1": r"(?:the )?(?:first player|player (?:1|one|i))"
    r"(?: (?:wins?|has|can|will).{0,40})?",
    "player 2": r"(?:the )?(?:second player|player (?:2|two|ii))"
    r"(?: (?:wins?|has|can|will).{0,40})?",
}
_PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _CLASSES.items()}
_STATEMENT = re.compile(r"^(?:the )?(?:statement|answer|claim|it|this) is ", re.IGNORECASE)

_TABLE = """
even function: 偶函数; odd function: 奇函数; even: 偶数, 偶函数; odd: 奇数, 奇函数
neither: 非奇非偶函数; east: 东; west: 西; south: 南; north: 北; left: 左; right: 右
parabola: 抛物线; circle: 圆; ellipse: 椭圆; hyperbola: 双曲线; line: 直线; square: 正方形
rectangle: 长方形, 矩形; rhombus: 菱形; trapezoid: 梯形; parallelogram: 平行四边形
isosceles triangle: 等腰三角形; equilateral triangle: 等边三角形, 正三角形
right triangle: 直角三角形; isosceles right triangle: 等腰直角三角形
acute triangle: 锐角三角形; obtuse triangle: 钝角三角形
sufficient but not necessary: 充分不必要; necessary but not sufficient: 必要不充分
sufficient but not necessary condition: 充分不必要条件
necessary but not sufficient condition: 必要不充分条件
necessary and sufficient condition: 充要条件; sufficient and necessary condition: 充要条件
parallel: 平行, 互相平行; perpendicular: 垂直, 互相垂直; tangent: 相切; intersect: 相交
red: 红, 红色; blue: 蓝, 蓝色; green: 绿, 绿色; yellow: 黄, 黄色; black: 黑, 黑色
white: 白, 白色
increasing: 递增, 单调递增, 增函数; decreasing: 递减, 单调递减, 减函数
greater: 大于; less: 小于; equal: 相等, 等于
monday: 星期一, 周一; tuesday: 星期二, 周二; wednesday: 星期三, 周三; thursday: 星期四, 周四
friday: 星期五, 周五; saturday: 星期六, 周六; sunday: 星期日, 周日, 星期天
january: 1月, 一月; february: 2月, 二月; march: 3月, 三月; april: 4月, 四月; may: 5月, 五月
june: 6月, 六月; july: 7月, 七月; august: 8月, 八月; september: 9月, 九月; october: 10月, 十月
november: 11月, 十一月; december: 12月, 十二月
"""
TRANSLATED = frozenset(
    (english.strip(), chinese.strip())
    for entry in _TABLE.replace("\n", ";").split(";")
    if ":" in entry
    for english, _, several in [entry.partition(":")]
    for chinese in several.split(",")
)
"""Pairs of an English and a Chinese phrase that mean the same."""


@lru_cache(maxsize=8192)
def word_class(text: str) -> str:
    """The name of the class of phrases that a whole answer belongs to, or the empty string.

    Phrases of a class mean the same: `no solution` and 无解, all real numbers, yes, ….
    """
    text = _STATEMENT.sub("", text.strip(" .。"))
    for name, pattern in _PATTERNS.items():
        if text and pattern.fullmatch(text):
            return name
    return ""
