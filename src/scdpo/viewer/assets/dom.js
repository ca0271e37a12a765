// Elements made of text. Text of a model gets into the page here and nowhere else: as text nodes,
// with what cannot be seen, or changes how other text is seen, written as an escape.

const INVISIBLE = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]+/gu;
const KNOWN = new Map([
  [0x1b, "escape"], [0x200e, "left-to-right mark"], [0x200f, "right-to-left mark"],
  [0x202a, "left-to-right embedding"], [0x202b, "right-to-left embedding"],
  [0x202c, "end of a direction"], [0x202d, "left-to-right override"],
  [0x202e, "right-to-left override"], [0x2066, "left-to-right isolate"],
  [0x2067, "right-to-left isolate"], [0x2068, "first strong isolate"], [0x2069, "end of an isolate"],
]);
const FIRST_CHARS = 20000;
const MORE_CHARS = 200000;

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function escapeOf(char) {
  const code = char.codePointAt(0);
  if (char === "\r") return "\\r";
  const hex = code.toString(16);
  if (code < 0x100) return "\\x" + hex.padStart(2, "0");
  return code < 0x10000 ? "\\u" + hex.padStart(4, "0") : `\\u{${hex}}`;
}

export function escaped(text) {
  return String(text).replace(INVISIBLE, (run) => Array.from(run, escapeOf).join(""));
}

// One line, for lists and titles.
export function line(text, chars = 200) {
  const whole = String(text);
  const cut = whole.length > chars ? whole.slice(0, chars) + "…" : whole;
  return escaped(cut.replace(/[\n\t]+/g, " "));
}

export function visible(text) {
  const part = document.createDocumentFragment();
  let at = 0;
  for (const found of text.matchAll(INVISIBLE)) {
    if (found.index > at) part.append(text.slice(at, found.index));
    const code = found[0].codePointAt(0);
    const name = `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
    const title = KNOWN.has(code) ? `${name}, ${KNOWN.get(code)}` : `${name}, not visible`;
    part.append(el("span", { class: "escape", title }, escaped(found[0])));
    at = found.index + found[0].length;
  }
  if (at < text.length) part.append(text.slice(at));
  return part;
}

// A text of any length; a long one is shown by and by.
export function block(text, name = "") {
  const pre = el("pre", { class: name, dir: "ltr" });
  let shown = 0;
  const more = el("button", { class: "more", onclick: () => show(MORE_CHARS) });
  const show = (count) => {
    let end = Math.min(text.length, shown + count);
    if (end < text.length && /[\ud800-\udbff]/.test(text[end - 1])) end += 1;
    more.before(el("span", { class: "piece" }, visible(text.slice(shown, end))));
    shown = end;
    if (shown >= text.length) more.remove();
    else more.textContent = `Show more (${number(shown)} of ${number(text.length)} characters)`;
  };
  pre.append(more);
  show(FIRST_CHARS);
  return pre;
}

export function number(value, digits) {
  if (value === null || value === undefined) return "–";
  const text = digits === undefined
    ? value.toLocaleString("en") : Math.abs(value).toFixed(digits);
  return digits !== undefined && value < 0 ? "−" + text : text;
}

// A number with so many significant digits.
export function signif(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const after = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return number(value, Math.min(after, 5));
}

const MARKS = { correct: "✓", wrong: "✗", undecided: "?" };

export function mark(verdict, finish = "finished") {
  return finish === "finished" ? MARKS[verdict] ?? "?" : "…";
}

export function badge(verdict, finish = "finished") {
  const word = finish === "finished" ? verdict : `${verdict}, unfinished`;
  return el("span", { class: `badge ${MARKS[verdict] ? verdict : "undecided"}` },
    `${mark(verdict, finish)} ${word}`);
}
