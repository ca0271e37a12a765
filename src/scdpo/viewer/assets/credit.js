// Token credit: the implicit reward of each token (Eq. 7), of one policy or of two side by side.

import { el, line, number, signif, visible } from "./dom.js";

const MAX_TOKENS = 6000;

// Rewards of a solution by policy, or null if it has too many tokens to be drawn.
export function creditOf(detail, row) {
  const found = new Map();
  let tokens = 0;
  for (const part of detail.credit) {
    if (part.row !== row) continue;
    found.set(part.policy, part);
    for (const step of part.steps) tokens += step.tokens.length;
  }
  return { found, tooMany: tokens > MAX_TOKENS };
}

// The reward that gets the full colour: the 98th percentile of absolute rewards.
export function scaleOf(parts) {
  const all = parts.flatMap((part) => part.steps.flatMap((step) => step.rewards))
    .filter((reward) => reward !== null).map(Math.abs).sort((a, b) => a - b);
  return all.length ? all[Math.floor(0.98 * (all.length - 1))] || 1e-9 : 1;
}

const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);

export function stepTotals(part) {
  return part.steps.map((step) => sum(step.rewards));
}

function shade(node, reward, scale) {
  const share = Math.min(1, Math.abs(reward) / scale);
  node.style.setProperty("--share", `${Math.round(share * 100)}%`);
  node.classList.add(reward < 0 ? "down" : "up");
}

// The tokens of step n (from 0) under each policy, in columns; the lowest step is marked.
export function creditColumns(parts, n, scale) {
  return el("div", { class: `credit columns-${parts.length}` }, parts.map((part) => {
    const step = part.steps[n] ?? { tokens: [], rewards: [], logps: [] };
    const totals = stepTotals(part);
    const total = totals[n] ?? 0;
    const lowest = step.tokens.length && total === Math.min(...totals);
    const pre = el("pre", { dir: "ltr" });
    step.tokens.forEach((text, at) => {
      const token = el("span", { class: "token", "data-at": `${n}.${at}` }, visible(text));
      shade(token, step.rewards[at] ?? 0, scale);
      pre.append(token);
    });
    const mean = step.tokens.length ? total / step.tokens.length : null;
    const bar = el("span", { class: "bar" });
    shade(bar, total, Math.max(...totals.map(Math.abs), 1e-9));
    return el("div", { class: "column" },
      el("div", { class: lowest ? "column-head lowest" : "column-head" },
        el("b", {}, line(part.policy, 40)), " ", bar,
        ` sum ${signif(total)}, mean ${signif(mean)}`,
        lowest ? el("b", {}, " ◂ lowest step") : null),
      pre);
  }));
}

// Shows the numbers of the token under the pointer, and marks it in all columns.
export function followTokens(box, parts, note) {
  const clear = () => {
    for (const token of box.querySelectorAll(".token.here")) token.classList.remove("here");
  };
  const follow = (event) => {
    const token = event.target.closest?.(".token");
    if (!token) return;
    clear();
    for (const same of box.querySelectorAll(`.token[data-at="${token.dataset.at}"]`)) {
      same.classList.add("here");
    }
    const [n, at] = token.dataset.at.split(".").map(Number);
    const step = parts[0].steps[n];
    const rewards = parts.map(
      (part) => `${line(part.policy, 30)} ${signif(part.steps[n]?.rewards[at])}`);
    note.replaceChildren(
      el("code", {}, visible(JSON.stringify(step.tokens[at]))),
      ` reward ${rewards.join(", ")}; log-prob of the reference ${number(step.logps[at], 2)}`);
  };
  box.addEventListener("pointerover", follow);
  box.addEventListener("click", follow); // where there is no pointer that hovers
}

export function creditLegend(scale) {
  const sample = (reward) => {
    const token = el("span", { class: "token" }, signif(reward));
    shade(token, reward, scale);
    return token;
  };
  return el("p", { class: "legend" }, "Implicit reward in nats: ",
    sample(-scale), sample(-scale / 2), sample(0), sample(scale / 2), sample(scale),
    el("span", {}, "underlined: below 0. Execution output has no reward."));
}
