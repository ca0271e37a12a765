// One solution: what is known of it, its steps, their executions, and token credit.

import { badge, block, el, line, number } from "./dom.js";
import { creditColumns, creditLegend, creditOf, followTokens, scaleOf } from "./credit.js";

function fact(name, value) {
  return el("span", { class: "fact" }, el("i", {}, name), " ", value);
}

export function solutionView(solution, detail, tables, state, actions) {
  const { row } = solution;
  const finish = tables.finish(row);
  const found = el("section", { class: "solution" });
  found.append(el("h3", {}, line(tables.rows.id[row])));
  const facts = [
    badge(tables.verdict(row), finish),
    fact("answer", solution.answer === null ? "none" : line(solution.answer, 300)),
    fact("policy", line(tables.policy(row))),
    fact("tokens", number(tables.rows.tokens[row])),
    fact("log-prob", number(tables.rows.mean_logp[row], 3)),
  ];
  if (solution.verdict?.reason) facts.push(fact("because", line(solution.verdict.reason, 300)));
  if (finish !== "finished") facts.push(fact("cut by", line(finish)));
  if (solution.flags?.length) facts.push(fact("flags", line(solution.flags.join(", "), 300)));
  if (solution.parent) {
    facts.push(el("button", { class: "link", onclick: () => actions.choose(solution.parent.row) },
      `leaves ${line(tables.rows.id[solution.parent.row])} after step ${solution.k}`));
  }
  found.append(el("p", { class: "facts" }, facts), pairsView(row, tables, actions));
  const credit = creditOf(detail, row);
  const parts = credit.tooMany ? [] : chosenParts(credit.found, state);
  if (credit.tooMany) found.append(el("p", { class: "note" }, "Too many tokens to draw credit."));
  const scale = scaleOf(parts);
  if (parts.length) found.append(creditLegend(scale));
  const steps = el("div", { class: "steps" });
  solution.steps.forEach((step, n) => {
    steps.append(stepView(step, n, solution, parts, scale, state, actions));
  });
  found.append(steps);
  if (parts.length) {
    const note = el("p", { class: "token-note", role: "status" },
      "Point at a token to read its reward.");
    followTokens(steps, parts, note);
    found.append(note);
  }
  return found;
}

// The policies whose credit is shown: none, the first, or two.
function chosenParts(found, state) {
  const count = { off: 0, one: 1, two: 2 }[state.creditShown];
  const wanted = [state.left, state.right].filter((name) => found.has(name));
  const rest = [...found.keys()].filter((name) => !wanted.includes(name));
  return [...wanted, ...rest].slice(0, count).map((name) => found.get(name));
}

function pairsView(row, tables, actions) {
  const box = el("p", { class: "pairs" });
  for (const n of tables.pairsOf.get(row) ?? []) {
    const chosen = tables.pairs.chosen[n] === row;
    const other = chosen ? tables.pairs.rejected[n] : tables.pairs.chosen[n];
    const stage = tables.names.stage[tables.pairs.stage[n]].replace(/^pairs\//, "");
    box.append(el("button", { class: "link", disabled: other < 0,
      onclick: () => actions.choose(other) },
    `${chosen ? "chosen" : "rejected"} (${line(stage)}, k ${tables.pairs.k[n]}) against ` +
      (other < 0 ? "a solution that is not here" : line(tables.rows.id[other]))), " ");
  }
  return box;
}

function stepView(step, n, solution, parts, scale, state, actions) {
  const shared = n < solution.k;
  const chosen = state.step === n + 1;
  const head = [el("b", {}, `Step ${n + 1}`), step.kind === "code" ? "code" : "text"];
  if (shared) head.push("shared");
  if (step.temperature !== null) head.push(`T ${Number(step.temperature.toFixed(3))}`);
  if (step.mean_logp !== null) head.push(`log-prob ${number(step.mean_logp, 2)}`);
  if (step.tokens) head.push(`${number(step.tokens)} tokens`);
  const open = state.openSteps === "all" || chosen || (state.openSteps === "own" && !shared);
  const summary = el("summary", {},
    el("span", { class: "step-head" }, head.flatMap((part, at) => (at ? [" · ", part] : [part]))),
    el("span", { class: "snippet" }, line(step.text, 120)));
  summary.addEventListener("click", () => actions.step(n + 1));
  const body = parts.length
    ? creditColumns(parts, n, scale)
    : block(step.text, step.kind === "code" ? "code" : "");
  const box = el("details", { class: `step${shared ? " shared" : ""}${chosen ? " current" : ""}`,
    open, "data-step": n + 1 }, summary, body);
  if (step.output !== null) {
    box.append(el("div", { class: "output" },
      el("span", { class: "output-head" },
        step.cut ? `output, cut: ${line(step.cut, 80)}` : "output"),
      block(step.output)));
  } else if (step.host_text) {
    box.append(el("div", { class: "output" },
      el("span", { class: "output-head" }, "added by the host"), block(step.host_text)));
  }
  return box;
}

// The answers of two policies side by side, and a button for each policy.
export function answersView(detail, tables, p, state, actions) {
  const answers = tables.answers[p];
  if (!answers) return null;
  const texts = new Map(detail.rows.filter((found) => !found.steps)
    .map((found) => [tables.policy(found.row), found]));
  const shown = [state.left, state.right].filter((name) => texts.has(name));
  for (const name of texts.keys()) {
    if (shown.length < 2 && !shown.includes(name)) shown.push(name);
  }
  const buttons = el("p", { class: "policies", role: "group", "aria-label": "Policies" });
  for (const [name, r] of answers) {
    const at = shown.indexOf(name);
    buttons.append(el("button", { class: "policy", "aria-pressed": String(at === 0),
      onclick: () => actions.policy(name) },
    el("b", {}, line(name, 40)), " ", badge(tables.verdict(r), tables.finish(r)),
    ` ${tables.rows.answer[r] === null ? "no answer" : line(tables.rows.answer[r], 24)}`,
    at >= 0 ? el("small", {}, at === 0 ? " left" : " right") : null));
  }
  const columns = el("div", { class: "answers" }, shown.map((name) => {
    const r = answers.get(name);
    return el("section", { class: "answer" },
      el("h3", {}, line(name, 60), " ", badge(tables.verdict(r), tables.finish(r))),
      el("p", { class: "facts" }, fact("answer", line(texts.get(name).answer ?? "none", 300)),
        fact("steps", number(tables.rows.steps[r])), fact("tokens", number(tables.rows.tokens[r])),
        fact("finish", line(tables.finish(r)))),
      block(texts.get(name).text ?? ""));
  }));
  return el("section", {}, el("h2", {}, "Answers of the policies"), buttons, columns);
}
