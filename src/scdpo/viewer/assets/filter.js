// The filter's language: parsed into closures over the columns; nothing is evaluated as code.
//
//   or      := and ("or" and)*
//   and     := not ("and" not)*
//   not     := "not" not | compare
//   compare := sum ((== | != | < | <= | > | >= | ~) sum | "in" "(" value, … ")")?
//   sum     := product (("+" | "-") product)*
//   product := unary (("*" | "/") unary)*
//   unary   := "-" unary | number | "text" | none | field | question("policy") | "(" or ")"

import { FIELDS, QUESTIONS } from "./fields.js";

const TOKEN = /\s*(?:(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|([A-Za-z_]\w*)|(==|!=|<=|>=|[<>~()+*\/,=-])|(\S))/giy;
const MAX_LENGTH = 2000;
const MAX_DEPTH = 100;

export class FilterError extends Error {}

function tokens(text) {
  const found = [];
  TOKEN.lastIndex = 0;
  for (let part = TOKEN.exec(text); part && part[0].trim(); part = TOKEN.exec(text)) {
    const [whole, num, string, word, sign, other] = part;
    const at = part.index + whole.length - whole.trimStart().length;
    if (other) {
      throw new FilterError(/["']/.test(other)
        ? `column ${at + 1}: the text has no closing ${other}`
        : `column ${at + 1}: unexpected ${other}`);
    }
    const kind = num ? "number" : string ? "text" : word ? "word" : "sign";
    const value = num ? Number(num)
      : string ? string.slice(1, -1).replace(/\\(.)/g, "$1") : word ?? sign;
    found.push({ kind, value, at, shown: whole.trim() });
  }
  found.push({ kind: "end", value: "", at: text.length, shown: "the end" });
  return found;
}

const COMPARE = {
  "==": (a, b) => a === b,
  "!=": (a, b) => a !== b,
  "<": (a, b) => a !== null && b !== null && a < b,
  "<=": (a, b) => a !== null && b !== null && a <= b,
  ">": (a, b) => a !== null && b !== null && a > b,
  ">=": (a, b) => a !== null && b !== null && a >= b,
};
const COMPUTE = {
  "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b,
};

// The nearest name, for "did you mean".
function nearest(name, names) {
  const distance = (a, b) => {
    let last = Array.from({ length: b.length + 1 }, (_, n) => n);
    for (let i = 1; i <= a.length; i += 1) {
      const next = [i];
      for (let j = 1; j <= b.length; j += 1) {
        next.push(Math.min(last[j] + 1, next[j - 1] + 1,
          last[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
      }
      last = next;
    }
    return last[b.length];
  };
  const best = names.map((other) => [distance(name, other), other]).sort((a, b) => a[0] - b[0])[0];
  return best && best[0] <= 2 ? `; did you mean ${best[1]}?` : "";
}

class Parser {
  constructor(text, tables) {
    this.tokens = tokens(text);
    this.tables = tables;
    this.depth = 0;
  }

  get next() { return this.tokens[0]; }
  is(value) { return this.next.value === value && ["sign", "word"].includes(this.next.kind); }
  take(value) { return this.is(value) ? this.tokens.shift() : null; }

  fail(message, token = this.next) {
    throw new FilterError(`column ${token.at + 1}: ${message}`);
  }

  expect(value) {
    return this.take(value) ?? this.fail(`${value} is missing before ${this.next.shown}`);
  }

  nested(parse) {
    this.depth += 1;
    if (this.depth > MAX_DEPTH) this.fail("nested too deeply");
    const found = parse();
    this.depth -= 1;
    return found;
  }

  condition(made, token) {
    if (made.type === "condition") return made.of;
    return this.fail(`a ${made.type} is no condition; compare it, as in ${made.example}`, token);
  }

  whole() {
    const token = this.next;
    const of = this.condition(this.or(), token);
    if (this.next.kind !== "end") this.fail(`unexpected ${this.next.shown}`);
    return of;
  }

  joined(parse, word, join) {
    const token = this.next;
    let left = parse();
    while (this.take(word)) {
      const a = this.condition(left, token);
      const second = this.next;
      const b = this.condition(parse(), second);
      left = { type: "condition", of: join(a, b) };
    }
    return left;
  }

  or() {
    return this.joined(() => this.and(), "or", (a, b) => (r, p) => a(r, p) || b(r, p));
  }

  and() {
    return this.joined(() => this.not(), "and", (a, b) => (r, p) => a(r, p) && b(r, p));
  }

  not() {
    if (!this.take("not")) return this.compare();
    const token = this.next;
    const a = this.condition(this.nested(() => this.not()), token);
    return { type: "condition", of: (r, p) => !a(r, p) };
  }

  compare() {
    const left = this.sum();
    const sign = this.next;
    if (sign.kind === "sign" && sign.value === "=") this.fail("write == to compare");
    if (this.take("~")) return this.contains(left, sign);
    if (this.take("in")) return this.among(left, sign);
    if (sign.kind !== "sign" || !(sign.value in COMPARE)) return left;
    this.tokens.shift();
    const right = this.sum();
    this.alike(left, right, sign);
    const [a, b, test] = [left.of, right.of, COMPARE[sign.value]];
    if (right.type === "text" && right.constant && ["==", "!="].includes(sign.value)) {
      const value = b(-1, -1);
      return sign.value === "=="
        ? { type: "condition", of: (r, p) => a(r, p) === value }
        : { type: "condition", of: (r, p) => a(r, p) !== value };
    }
    return { type: "condition", of: (r, p) => test(a(r, p), b(r, p)) };
  }

  alike(left, right, sign) {
    const types = [left.type, right.type];
    if (types.includes("condition")) this.fail("a condition cannot be compared", sign);
    if (types.includes("none") && !["==", "!="].includes(sign.value)) {
      this.fail("none can only be compared with == and !=", sign);
    }
    if (!types.includes("none") && left.type !== right.type) {
      this.fail(`${left.shown} is a ${left.type} and ${right.shown} a ${right.type}`, sign);
    }
  }

  contains(left, sign) {
    const right = this.sum();
    if (left.type !== "text" || right.type !== "text") this.fail("~ looks for a text in a text", sign);
    return { type: "condition", of: (r, p) => {
      const [text, part] = [left.of(r, p), right.of(r, p)];
      return text !== null && part !== null && text.toLowerCase().includes(part.toLowerCase());
    } };
  }

  among(left, sign) {
    this.expect("(");
    const values = new Set();
    do {
      const value = this.sum();
      if (!value.constant) this.fail("in (…) takes numbers and texts", sign);
      this.alike(left, value, { ...sign, value: "==" });
      values.add(value.of(-1, -1));
    } while (this.take(","));
    this.expect(")");
    return { type: "condition", of: (r, p) => values.has(left.of(r, p)) };
  }

  computed(parse, signs) {
    let left = parse();
    while (this.next.kind === "sign" && signs.includes(this.next.value)) {
      const sign = this.tokens.shift();
      const right = parse();
      if (left.type !== "number" || right.type !== "number") {
        this.fail(`${sign.value} takes two numbers`, sign);
      }
      const [a, b, compute] = [left.of, right.of, COMPUTE[sign.value]];
      left = { type: "number", example: "k + 1 > 2", shown: "the left side",
        constant: left.constant && right.constant,
        of: (r, p) => {
          const [x, y] = [a(r, p), b(r, p)];
          return x === null || y === null ? null : compute(x, y);
        } };
    }
    return left;
  }

  sum() { return this.computed(() => this.product(), "+-"); }
  product() { return this.computed(() => this.unary(), "*/"); }

  unary() {
    const token = this.next;
    if (this.take("-")) {
      const value = this.nested(() => this.unary());
      if (value.type !== "number") this.fail("- takes a number", token);
      return { ...value, shown: `-${value.shown}`, of: (r, p) => {
        const x = value.of(r, p);
        return x === null ? null : -x;
      } };
    }
    if (this.take("(")) {
      const inner = this.nested(() => this.or());
      this.expect(")");
      return inner;
    }
    this.tokens.shift();
    if (token.kind === "number" || token.kind === "text") {
      return { type: token.kind, constant: true, shown: token.shown, of: () => token.value,
        example: "k >= 2" };
    }
    if (token.kind === "word") return this.word(token);
    return this.fail(token.kind === "end"
      ? "the expression is not complete" : `unexpected ${token.shown}`, token);
  }

  word(token) {
    const name = token.value;
    const { tables } = this;
    if (name === "none" || name === "None") {
      return { type: "none", constant: true, shown: "none", of: () => null, example: "level == none" };
    }
    if (this.is("(")) return this.question(token);
    if (!Object.hasOwn(FIELDS, name)) {
      const names = Object.keys(FIELDS);
      this.fail(`no field ${name}${nearest(name, names) || `; there are ${names.join(", ")}`}`, token);
    }
    const [type, , get] = FIELDS[name];
    return { type, shown: name, of: (r, p) => get(tables, r, p),
      example: type === "number" ? `${name} >= 2` : `${name} == "…"` };
  }

  question(token) {
    const name = token.value;
    this.expect("(");
    if (!Object.hasOwn(QUESTIONS, name)) {
      this.fail(`no question ${name}(…); there are ${Object.keys(QUESTIONS).join(", ")}`, token);
    }
    const policy = this.next;
    if (policy.kind !== "text") this.fail(`${name}(…) takes a policy's name in quotes`);
    const known = [...this.tables.evaluated];
    if (!known.includes(policy.value)) {
      this.fail(`no evaluated policy ${policy.shown}; there are ${known.join(", ") || "none"}`);
    }
    this.tokens.shift();
    this.expect(")");
    const test = QUESTIONS[name][1](policy.value);
    return { type: "condition", of: (r, p) => test(this.tables, r, p) };
  }
}

// A condition on (row, problem), row −1 for a problem without rows. Throws FilterError.
export function compiled(text, tables) {
  if (text.length > MAX_LENGTH) throw new FilterError(`longer than ${MAX_LENGTH} characters`);
  return text.trim() ? new Parser(text, tables).whole() : null;
}

// The problems with a row that fits, the rows that do, and how many.
export function matches(condition, tables) {
  const count = tables.problems.id.length;
  if (!condition) {
    return { problems: Array.from({ length: count }, (_, p) => p), hits: null, rows: 0 };
  }
  const hits = new Uint8Array(tables.rows.id.length);
  const problems = [];
  let rows = 0;
  for (let p = 0; p < count; p += 1) {
    const own = tables.rowsOf[p];
    let any = own.length === 0 && condition(-1, p);
    for (const r of own) {
      if (condition(r, p)) {
        hits[r] = 1;
        rows += 1;
        any = true;
      }
    }
    if (any) problems.push(p);
  }
  return { problems, hits, rows };
}
