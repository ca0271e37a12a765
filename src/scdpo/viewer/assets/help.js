// Keys, and what a filter can ask about.

import { el } from "./dom.js";
import { FIELDS, QUESTIONS } from "./fields.js";

const KEYS = [
  ["j k", "next, previous problem"], ["g G", "first, last problem"],
  ["n p", "next, previous solution that the filter fits"],
  ["[ ]", "previous, next sibling branch"], ["/", "to the filter"],
  ["Enter", "open the first problem; in a problem, its first solution"],
  ["Esc", "leave the filter, the solution, the problem"],
  ["e x", "expand, collapse all steps"], ["c", "token credit: off, one policy, two"],
  ["?", "this page"],
];

function list(pairs) {
  return el("dl", {}, pairs.flatMap(([name, text]) =>
    [el("dt", {}, el("code", {}, name)), el("dd", {}, text)]));
}

export function fillHelp(dialog) {
  dialog.replaceChildren(
    el("form", { method: "dialog" }, el("button", { class: "close", "aria-label": "Close" }, "×")),
    el("h2", {}, "Keys"), list(KEYS),
    el("h2", {}, "Filter"),
    el("p", {}, "A problem is listed if one of its solutions or answers fits. Conditions: ",
      el("code", {}, "== != < <= > >= ~ in and or not + - * /"),
      "; ~ looks for a text in a text, ", el("code", {}, 'verdict in ("wrong", "undecided")'),
      " for one of several. A missing value is none, and neither larger nor smaller than any."),
    list(Object.entries(FIELDS).map(([name, [, text]]) => [name, text])),
    el("h2", {}, "Questions about policies"),
    list(Object.entries(QUESTIONS).map(([name, [text]]) => [`${name}("scdpo")`, text])));
}
