// A problem's solutions as a tree: a lane for each solution, which leaves its parent's lane after
// step k. Branches from late steps lie nearest to their parent, so that no two lines cross.

import { el, line, mark, number } from "./dom.js";

const [STEP, LANE, LEFT, TOP] = [38, 26, 22, 20];
const NAMES = "http://www.w3.org/2000/svg";

// The solutions of a problem in the order of their lanes, with all their steps.
export function solutionsOf(detail, tables) {
  const known = new Map();
  const roots = [];
  for (const found of detail.rows) {
    if (!found.steps) continue;
    const parent = known.get(tables.rows.parent[found.row]) ?? null;
    const shared = parent ? parent.steps.slice(0, found.shared) : [];
    const solution = { ...found, parent, children: [], steps: [...shared, ...found.steps],
      k: parent ? tables.rows.k[found.row] : 0 };
    known.set(found.row, solution);
    (parent ? parent.children : roots).push(solution);
  }
  const lanes = [];
  const place = (solution) => {
    lanes.push(solution);
    solution.children.sort((a, b) => b.k - a.k || a.row - b.row);
    solution.children.forEach(place);
  };
  roots.forEach(place);
  return lanes;
}

function svg(tag, props, ...children) {
  const node = document.createElementNS(NAMES, tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

function titled(node, text) {
  node.append(svg("title", {}, text));
  return node;
}

const x = (n) => LEFT + n * STEP;

export function tree(lanes, tables, state) {
  const y = new Map(lanes.map((solution, n) => [solution, TOP + n * LANE]));
  const longest = Math.max(1, ...lanes.map((solution) => solution.steps.length));
  const width = x(longest) + 190;
  const height = TOP + lanes.length * LANE;
  const box = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": `${lanes.length} solutions` });
  // In this order they lie on each other.
  for (const solution of lanes) box.append(ground(solution, y.get(solution), state));
  for (const solution of lanes) box.append(bend(solution, y));
  for (const solution of lanes) box.append(path(solution, y, tables, state));
  box.append(titled(svg("circle", { class: "root", cx: LEFT, cy: TOP, r: 6 }), "the question"));
  for (const solution of lanes) box.append(lane(solution, y.get(solution), tables, state));
  return el("div", { class: "tree", tabindex: "-1" }, box);
}

function kindOf(solution, tables) {
  const verdict = tables.verdict(solution.row);
  return tables.finish(solution.row) === "finished" ? verdict : `${verdict} unfinished`;
}

function ground(solution, at, state) {
  const start = x(solution.k) + 3;
  return svg("rect", { class: solution.row === state.row ? "ground current" : "ground",
    "data-row": solution.row, x: start, y: at - LANE / 2, rx: 4, height: LANE,
    width: x(solution.steps.length) + 187 - start });
}

// From the parent down to the lane; several lie on each other, so they look alike.
function bend(solution, y) {
  const at = y.get(solution);
  const from = solution.parent ? y.get(solution.parent) : TOP;
  return svg("path", { class: "bend", d: at > from ? `M${x(solution.k)} ${from}V${at - 7}q0 7 7 7` : "" });
}

function path(solution, y, tables, state) {
  const at = y.get(solution);
  const start = x(solution.k) + (at > TOP ? 7 : 0);
  const missed = state.hits && !state.hits[solution.row] ? " missed" : "";
  return svg("path", { class: `line ${kindOf(solution, tables)}${missed}`,
    d: `M${start} ${at}H${x(solution.steps.length)}` });
}

function lane(solution, at, tables, state) {
  const { row, steps, k } = solution;
  const hit = !state.hits || state.hits[row];
  const chosen = row === state.row;
  const group = svg("g", { class: `lane${hit ? "" : " missed"}${chosen ? " current" : ""}`,
    "data-row": row });
  let last = null;
  for (let n = k + 1; n <= steps.length; n += 1) {
    const step = steps[n - 1];
    if (step.temperature !== null && step.temperature !== last) {
      last = step.temperature;
      group.append(svg("text", { class: "temperature", x: x(n) - 14, y: at - 5 },
        String(Number(last.toFixed(2)))));
    }
    group.append(node(step, n, at, chosen && state.step === n));
  }
  const verdict = tables.verdict(row);
  const finish = tables.finish(row);
  const answer = tables.rows.answer[row];
  const end = svg("text", { class: `end ${verdict}`, x: x(steps.length) + 12, y: at + 4 },
    `${mark(verdict, finish)} ${answer === null ? "no answer" : line(answer, 16)}`);
  const side = sides(row, tables);
  if (side) end.append(svg("tspan", { class: "side", dx: 6 }, side));
  group.append(end);
  return titled(group, `${line(tables.rows.id[row])}: ${verdict}, ${finish}` +
    (solution.parent ? `, leaves its parent after step ${k}` : "") + (side ? `, ${side}` : ""));
}

function sides(row, tables) {
  const found = tables.pairsOf.get(row);
  if (!found) return "";
  return tables.pairs.chosen[found[0]] === row ? "chosen" : "rejected";
}

function node(step, n, at, chosen) {
  const code = step.kind === "code";
  const name = `node ${step.kind}${step.cut ? " cut" : ""}${chosen ? " current" : ""}` +
    (code && step.output === null ? " idle" : "");
  const shape = code
    ? svg("rect", { class: name, "data-step": n, x: x(n) - 5, y: at - 5, width: 10, height: 10 })
    : svg("circle", { class: name, "data-step": n, cx: x(n), cy: at, r: 5 });
  const about = [`step ${n}`, code ? "code" : "text"];
  if (step.mean_logp !== null) about.push(`log-prob ${number(step.mean_logp, 2)}`);
  if (step.temperature !== null) about.push(`temperature ${step.temperature}`);
  if (step.cut) about.push(`execution cut: ${line(step.cut, 40)}`);
  return titled(shape, about.join(", "));
}

export function legend() {
  const sample = (name, d) => {
    const box = svg("svg", { width: 28, height: 12, "aria-hidden": "true" });
    box.append(d ? svg("path", { class: `line ${name}`, d }) : name);
    return box;
  };
  const stroke = "M1 6H27";
  const square = svg("rect", { class: "node code", x: 9, y: 1, width: 10, height: 10 });
  const circle = svg("circle", { class: "node text", cx: 14, cy: 6, r: 5 });
  return el("p", { class: "legend" },
    el("span", {}, sample("correct", stroke), "✓ correct"),
    el("span", {}, sample("wrong", stroke), "✗ wrong"),
    el("span", {}, sample("undecided", stroke), "? undecided, … unfinished"),
    el("span", {}, sample(circle), "text step"),
    el("span", {}, sample(square), "executed step"),
    el("span", {}, "1.1 temperature"));
}
