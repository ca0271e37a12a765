"""A parser for formulas as answers write them: LaTeX, Unicode and Python.

It parses what can be evaluated at a point: arithmetic, roots, powers, elementary functions,
binomials, factorials, floors. Everything else (integrals, sums, prose) raises NotAFormulaError and
is left to the symbolic layer. No text is ever executed.
"""

from __future__ import annotations

import re
from fractions import Fraction

from scdpo.grading.formulas.notation import FUNCTIONS, GREEK, tokens
from scdpo.grading.formulas.tree import FLOAT, Node, NotAFormulaError, number, variable
from scdpo.grading.quantities.rationals import FLOAT_DECIMALS

MAX_LENGTH = 1_000
"""Longest text read as a formula, in characters."""
MAX_DEPTH = 60
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan", "ctg": "cot"}
_SEVERAL = frozenset(("max", "min", "gcd", "lcm", "binomial"))
_REPEATING = re.compile(r"(\d*)\.(\d*)\s*\\(?:overline|bar|dot)\s*\{?(\d+)\}?")


def formula(text: str) -> Node:
    """The tree of a formula. Raises NotAFormulaError for anything else."""
    if len(text) > MAX_LENGTH:
        raise NotAFormulaError("too long")
    parser = _Parser(tokens(text))
    node = parser.sum()
    if parser.peek():
        raise NotAFormulaError(f"unexpected {parser.peek()}")
    return node


def _key(node: Node) -> str:
    """A text for a tree that does not depend on the order of its terms and factors."""
    if node.op == "number":
        return str(node.value)
    if node.op in ("variable", "constant", "degree"):
        return node.name or node.op
    if node.op == "divide" and all(n.op == "number" for n in node.args) and node.args[1].value:
        return str(node.args[0].value / node.args[1].value)
    if node.op in ("add", "multiply"):
        return f"{node.op}({','.join(sorted(map(_key, _operands(node, node.op))))})"
    return f"{node.op} {node.name}({','.join(map(_key, node.args))})"


def _operands(node: Node, op: str) -> list[Node]:
    if node.op != op:
        return [node]
    return [operand for inner in node.args for operand in _operands(inner, op)]


class _Parser:
    """Recursive descent over tokens."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0

    def peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise NotAFormulaError(f"expected {expected or 'more'}, found {token or 'the end'}")
        self.at += 1
        return token

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotAFormulaError("nested too deeply")
        node = self.product()
        while self.peek() in ("+", "-"):
            sign = self.take()
            term = self.product()
            node = Node("add", (node, term if sign == "+" else Node("negate", (term,))))
        self.depth -= 1
        return node

    def product(self) -> Node:
        node = self.signed()
        while True:
            token = self.peek()
            if token in ("*", "/"):
                self.take()
                factor = self.signed()
                node = Node("multiply" if token == "*" else "divide", (node, factor))
            elif self._begins_factor(token):
                node = Node("multiply", (node, self.power()))
            else:
                return node

    def _begins_factor(self, token: str) -> bool:
        if token == "|":
            return self.bars == 0
        if token in ("\\%", "\\deg", "\\rfloor", "\\rceil"):
            return False
        return bool(token) and (token[0].isalnum() or token[0] in "(.[{\\")

    def signed(self) -> Node:
        sign = False
        while self.peek() in ("+", "-"):
            sign ^= self.take() == "-"
        node = self.power()
        return Node("negate", (node,)) if sign else node

    def power(self) -> Node:
        node = self.postfix(self.primary())
        if self.peek() != "^":
            return node
        self.take()
        return self.postfix(Node("power", (node, self.script())))

    def postfix(self, node: Node) -> Node:
        while self.peek() in ("!", "%", "\\%", "\\deg"):
            token = self.take()
            if token == "!" and self.peek() == "!":
                self.take()
                node = Node("call", (node,), name="double factorial")
            elif token == "!":
                node = Node("call", (node,), name="factorial")
            elif token == "\\deg":
                node = Node("multiply", (node, Node("degree")))
            else:
                node = Node("divide", (node, number(100)))
        return node

    def script(self) -> Node:
        """An exponent: braces, a single token as in LaTeX, or a signed Python number."""
        token = self.peek()
        if token in ("{", "("):
            return self.primary()
        if token in ("-", "+"):
            return self.signed()
        if token.isdigit() or token[:1] == "\\" or token.isalpha():
            return self.primary(scripts=False)
        return self.power()

    def primary(self, scripts: bool = True) -> Node:
        token = self.take()
        if token in ("(", "{", "["):
            node = self.sum()
            self.take({"(": ")", "{": "}", "[": "]"}[token])
            return node
        if token == "|":
            self.bars += 1
            node = self.sum()
            self.bars -= 1
            self.take("|")
            return Node("call", (node,), name="abs")
        if token[0].isdigit() or token[0] == ".":
            return self.numeral(token)
        if token.startswith("\\mark{"):
            return variable(token[6:-1])
        if token[0] == "\\":
            return self.command(token[1:])
        if token.isalpha():
            return self.symbol(token, scripts)
        raise NotAFormulaError(f"unexpected {token}")

    def numeral(self, token: str) -> Node:
        repeating = _REPEATING.fullmatch(token)
        if repeating is not None:
            whole, fixed, period = repeating.groups()
            shift = 10 ** len(fixed)
            value = Fraction(int(whole + fixed or "0"), shift)
            return number(value + Fraction(int(period), shift * (10 ** len(period) - 1)))
        value = Fraction(token)
        if len(token.partition(".")[2]) >= FLOAT_DECIMALS:
            return number(value, FLOAT)
        if token.isdigit() and self.peek() == "\\frac" and (part := self._proper_fraction()):
            return number(value + part)
        return number(value)

    def _proper_fraction(self) -> Fraction | None:
        """The fraction of a mixed number, if the next tokens are a proper fraction in digits."""
        start = self.at
        self.take()
        over, under = self.argument(), self.argument()
        if (over.op, under.op) == ("number", "number") and 0 < over.value < under.value:
            return over.value / under.value
        self.at = start
        return None

    def command(self, name: str) -> Node:
        name = _ALIASES.get(name, name)
        if name == "frac":
            return Node("divide", (self.argument(), self.argument()))
        if name == "binom":
            return Node("call", (self.argument(), self.argument()), name="binomial")
        if name == "sqrt":
            return self.root()
        if name == "uroot":  # √65 is the root of 65, whereas \sqrt65 is that of 6, times 5
            if self.peek() == "[":
                return self.root()
            inside = self.primary(scripts=False)
            return Node("power", (inside, Node("divide", (number(1), number(2)))))
        if name in ("lfloor", "lceil"):
            node = self.sum()
            self.take(f"\\r{name[1:]}")
            return Node("call", (node,), name="floor" if name == "lfloor" else "ceil")
        if name in ("pi", "infty", "deg"):
            return Node("degree") if name == "deg" else Node("constant", name=name)
        if name in FUNCTIONS and (name not in ("Gamma", "zeta") or self.peek() == "("):
            return self.function(name)
        if name in GREEK:
            return self.symbol(name.removeprefix("var"), scripts=True)
        raise NotAFormulaError(f"unknown command {name}")

    def argument(self) -> Node:
        """The argument of a command: braces, or a single digit or token."""
        token = self.peek()
        if token.isdigit() and len(token) > 1:  # \frac12
            self.tokens[self.at : self.at + 1] = list(token)
        if self.peek() == "{":
            return self.primary()
        return self.primary(scripts=False)

    def root(self) -> Node:
        index = number(2)
        if self.peek() == "[":
            self.take()
            index = self.sum()
            self.take("]")
        inside = self.argument()
        return Node("power", (inside, Node("divide", (number(1), index))))

    def function(self, name: str) -> Node:
        exponent: Node | None = None
        base: Node | None = None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                exponent = self.script()
            else:
                base = self.script()
        if exponent == Node("negate", (number(1),)) and name in _INVERSES:
            name, exponent = _INVERSES[name], None
        node = Node("call", self.arguments(name), name=name)
        if base is not None:
            if name != "log":
                raise NotAFormulaError(f"a base for {name}")
            node = Node(
                "divide",
                (Node("call", node.args, name="ln"), Node("call", (base,), name="ln")),
            )
        return node if exponent is None else Node("power", (node, exponent))

    def arguments(self, name: str) -> tuple[Node, ...]:
        if self.peek() in ("(", "{") and (name in _SEVERAL or self.peek() == "("):
            closing = {"(": ")", "{": "}"}[self.take()]
            found = [self.sum()]
            while self.peek() == ",":
                self.take()
                found.append(self.sum())
            self.take(closing)
            if (len(found) > 1) != (name in _SEVERAL) and not (name == "log" and len(found) == 2):
                raise NotAFormulaError(f"{len(found)} arguments for {name}")
            if self.peek() == "^" and name not in _SEVERAL:  # \sin(x)^2 is the square of the sine
                return tuple(found)
            return tuple(found)
        if name in _SEVERAL:
            raise NotAFormulaError(f"{name} without arguments")
        node = self.signed()
        while self._begins_factor(self.peek()) and self._plain(self.peek()):
            node = Node("multiply", (node, self.power()))
        return (node,)

    def _plain(self, token: str) -> bool:
        """Whether a factor still belongs to the argument of a function without parentheses."""
        name = _ALIASES.get(token.removeprefix("\\"), token.removeprefix("\\"))
        return token not in ("(", "[", "|") and name not in FUNCTIONS

    def symbol(self, name: str, scripts: bool) -> Node:
        while self.peek() == "'":
            name += self.take()
        if scripts and self.peek() == "_":
            self.take()
            name += "_" + self._subscript()
        if name == "e":
            return Node("constant", name="e")
        if name == "i":
            return Node("constant", name="i")
        if name in ("f", "g", "h", "F", "G") and self.peek() == "(":
            self.take("(")
            argument = self.sum()
            self.take(")")
            return variable(f"{name}({_key(argument)})")
        return variable(name)

    def _subscript(self) -> str:
        if self.peek() != "{":
            return self.take()
        start, depth = self.at, 0
        while True:
            depth += {"{": 1, "}": -1}.get(self.take(), 0)
            if depth == 0:
                return "".join(self.tokens[start + 1 : self.at - 1])
