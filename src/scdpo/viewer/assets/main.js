// The page: keeps the state in the address, draws what it says, and asks for what is new.

import { read, written } from "./address.js";
import { block, el, line, number } from "./dom.js";
import { compiled, FilterError, matches } from "./filter.js";
import { fillHelp } from "./help.js";
import { List } from "./list.js";
import { keyActions } from "./keys.js";
import { overview } from "./overview.js";
import { answersView, solutionView } from "./solution.js";
import { source } from "./source.js";
import { Tables } from "./tables.js";
import { legend, solutionsOf, tree } from "./tree.js";

const EVERY_MS = 1000;
const rows = source();
const tables = new Tables();
const $ = (id) => document.getElementById(id);
const input = $("filter");
const detailBox = $("detail");
const view = {
  state: read(location.hash), match: { problems: [], hits: null, rows: 0 }, condition: null,
  openSteps: "own", detail: null, lanes: [], asked: 0,
};
const list = new List($("list"), $("rows"), (p) => openProblem(p));

// ---- the state

function problemNumber() { return tables.number.get(view.state.problem) ?? -1; }

function chosenRow() {
  const { solution, policy } = view.state;
  if (solution !== null) return tables.rowNumber.get(solution) ?? -1;
  if (policy !== null) return tables.answers[problemNumber()]?.get(policy) ?? -1;
  return -1;
}

// Two policies to compare: the chosen ones, else SCDPO (or the last) against the one before it.
function comparedPolicies() {
  const names = [...new Set([...tables.evaluated, ...tables.credited])];
  const usual = ["scdpo", "dpo", ...names.toReversed()].filter((name) => names.includes(name));
  const { a, b, policy } = view.state;
  const left = names.includes(policy) ? policy : names.includes(a) ? a : usual[0];
  const right = names.includes(b) && b !== left ? b : usual.find((name) => name !== left);
  return { left, right };
}

function creditShown() {
  if (["off", "one", "two"].includes(view.state.credit)) return view.state.credit;
  return window.innerWidth < 760 ? "one" : "two";
}

function go(changes, { replace = false } = {}) {
  const before = view.state.problem;
  Object.assign(view.state, changes);
  const address = written(view.state);
  if (address !== location.hash) {
    history[replace ? "replaceState" : "pushState"](null, "", address);
  }
  render(before !== view.state.problem);
}

function openProblem(p, { replace = false } = {}) {
  go({ problem: tables.problems.id[p], solution: null, policy: null, step: null }, { replace });
}

function openRow(r, { replace = false } = {}) {
  const evaluated = tables.stage(r) === "evaluations";
  go({ problem: tables.problems.id[tables.rows.problem[r]], step: null,
    solution: evaluated ? null : tables.rows.id[r], policy: evaluated ? tables.policy(r) : null },
  { replace });
}

function setFilter(text, { replace = false } = {}) {
  input.value = text;
  go({ filter: text }, { replace });
  applyFilter();
}

// ---- the filter and the list

function applyFilter() {
  const text = view.state.filter;
  $("clear").hidden = !text;
  let complaint = "";
  try {
    view.condition = compiled(text, tables);
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    complaint = error.message; // the list stays as it was
  }
  view.match = matches(view.condition, tables);
  input.setAttribute("aria-invalid", String(Boolean(complaint)));
  $("filter-note").className = complaint ? "error" : "";
  const count = `${number(view.match.problems.length)} of ${number(tables.problems.id.length)} problems`;
  $("filter-note").textContent = complaint ? line(complaint, 400)
    : view.condition ? `${count}, ${number(view.match.rows)} rows` : count;
  list.show(tables, view.match.problems, problemNumber());
  // What did not change is left alone, with what is selected and folded in it.
  if (view.detail && view.detail.drawn !== shownOf(view.detail.number)) drawDetail();
}

// What an open problem shows of the tables.
function shownOf(p) {
  const { hits } = view.match;
  return tables.rowsOf[p].map((r) => `${r}${hits ? hits[r] : ""}:${tables.pairsOf.get(r)?.length ?? 0}`)
    .join();
}

// ---- the problem

async function render(moved = true) {
  const p = problemNumber();
  document.body.classList.toggle("reading", view.state.problem !== null);
  document.body.classList.remove("home");
  document.title = view.state.problem === null
    ? `${line(tables.info.run, 60)} · scdpo` : `${line(view.state.problem, 60)} · scdpo`;
  if (list.current !== p) {
    list.show(tables, view.match.problems, p);
    list.reveal();
  }
  if (view.state.problem === null) {
    view.detail = null;
    detailBox.replaceChildren(overview(tables, { ...comparedPolicies() }, actions));
    return;
  }
  if (p < 0) {
    view.detail = null;
    detailBox.replaceChildren(back(), el("p", { class: "note" },
      tables.info.complete ? "No such problem in this run." : "Not read yet."));
    return;
  }
  if (!moved && view.detail?.number === p) {
    drawDetail();
    return;
  }
  await fetchDetail(p);
}

async function fetchDetail(p) {
  view.asked += 1;
  const mine = view.asked;
  try {
    const found = await rows.problem(tables.generation, p);
    if (mine !== view.asked) return; // another problem was opened in the meantime
    const same = view.detail?.number === p;
    view.detail = { ...found, number: p, size: tables.rowsOf[p].length, credits: creditsOf(p) };
    view.lanes = solutionsOf(found, tables);
    drawDetail();
    if (same) return; // it has grown while it was read
    detailBox.scrollTop = 0;
    reveal();
  } catch (error) {
    if (mine !== view.asked) return;
    view.detail = null;
    detailBox.replaceChildren(back(), el("p", { class: "error" }, line(error.message, 400)));
  }
}

function creditsOf(p) {
  return tables.rowsOf[p].reduce((n, r) => n + (tables.creditOf.get(r)?.length ?? 0), 0);
}

function back() {
  return el("button", { class: "back", onclick: () => actions.leave() }, "‹ Problems");
}

function drawDetail() {
  const { detail, lanes } = view;
  const p = detail.number;
  detail.drawn = shownOf(p);
  const r = chosenRow();
  const state = { ...comparedPolicies(), row: r, step: view.state.step, hits: view.match.hits,
    openSteps: view.openSteps, creditShown: creditShown() };
  const { problems } = tables;
  const facts = [problems.dataset[p], problems.part[p]].filter(Boolean);
  if (problems.level[p]) facts.push(`level ${problems.level[p]}`);
  if (problems.subject[p]) facts.push(problems.subject[p]);
  const top = detailBox.querySelector(".tree");
  const scrolled = top ? [top.scrollLeft, top.scrollTop] : [0, 0];
  const parts = [back(), el("h2", { class: "title" }, line(problems.id[p])),
    el("p", { class: "facts" }, line(facts.join(" · "), 300)),
    block(detail.problem.question ?? problems.question[p], "question"),
    el("p", { class: "gold" }, "Gold answer: ",
      el("b", {}, line(detail.problem.answer ?? problems.answer[p] ?? "none", 300)))];
  if (detail.missing) parts.push(el("p", { class: "error" }, line(detail.missing, 400)));
  if (detail.problem.solution) {
    parts.push(el("details", { class: "worked" }, el("summary", {}, "Worked solution"),
      block(detail.problem.solution)));
  }
  if (lanes.length) {
    const drawn = tree(lanes, tables, state);
    drawn.addEventListener("click", clickTree);
    parts.push(el("h2", {}, `Tree: ${number(lanes.length)} solutions`), drawn, legend());
  }
  parts.push(answersView(detail, tables, p, state, actions));
  const chosen = lanes.find((solution) => solution.row === r);
  if (chosen) parts.push(solutionView(chosen, detail, tables, state, actions));
  else if (view.state.solution !== null) {
    parts.push(el("p", { class: "note" }, "No such solution in this run."));
  } else if (lanes.length) {
    parts.push(el("p", { class: "note" }, "Choose a solution in the tree, or press n."));
  }
  if (detail.prompt) {
    parts.push(el("details", { class: "worked" }, el("summary", {}, "Prompt"),
      block(detail.prompt)));
  }
  detailBox.replaceChildren(...parts.filter(Boolean));
  const drawn = detailBox.querySelector(".tree");
  if (drawn) [drawn.scrollLeft, drawn.scrollTop] = scrolled;
}

function clickTree(event) {
  const lane = event.target.closest("[data-row]");
  if (!lane) return;
  const step = event.target.closest("[data-step]")?.dataset.step;
  const r = Number(lane.dataset.row);
  go({ solution: tables.rows.id[r], policy: null, step: step ? Number(step) : null });
  reveal();
}

// Scroll to the chosen solution in the tree, and to the chosen step.
function reveal() {
  const box = detailBox.querySelector(".tree");
  const lane = box?.querySelector(".lane.current");
  if (lane) {
    const [inner, outer] = [lane.getBoundingClientRect(), box.getBoundingClientRect()];
    if (inner.top < outer.top || inner.bottom > outer.bottom) {
      box.scrollTop += inner.top - outer.top - outer.height / 2;
    }
  }
  detailBox.querySelector(".step.current")?.scrollIntoView({ block: "nearest" });
}

// ---- what keys and buttons do

const actions = {
  filter: (text) => setFilter(text),
  compare: (which, name) => go({ [which]: name, policy: null }),
  choose: (r) => { openRow(r); reveal(); },
  policy: (name) => go({ policy: name, solution: null, step: null }),
  step: (n) => go({ step: n }, { replace: true }),
  leave() {
    if (view.state.solution !== null || view.state.policy !== null) {
      go({ solution: null, policy: null, step: null });
    } else go({ problem: null, step: null });
  },
  moveProblem(by) {
    const { problems } = view.match;
    if (!problems.length) return;
    const at = list.position();
    const next = at < 0 ? (by > 0 ? 0 : problems.length - 1) : at + by;
    if (problems[next] !== undefined) openProblem(problems[next], { replace: true });
  },
  endProblem(last) {
    const p = view.match.problems.at(last ? -1 : 0);
    if (p !== undefined) openProblem(p, { replace: true });
  },
  moveRow(by) {
    if (!view.detail) return;
    const order = [...view.lanes.map((solution) => solution.row),
      ...(tables.answers[view.detail.number]?.values() ?? [])];
    const { hits } = view.match;
    const open = hits && order.some((r) => hits[r]) ? order.filter((r) => hits[r]) : order;
    const at = open.indexOf(chosenRow());
    const next = at < 0 ? (by > 0 ? 0 : open.length - 1) : at + by;
    if (open[next] !== undefined) {
      openRow(open[next], { replace: true });
      reveal();
    }
  },
  moveSibling(by) {
    const own = view.lanes.find((solution) => solution.row === chosenRow());
    if (!own) return;
    const siblings = own.parent ? own.parent.children : view.lanes.filter((s) => !s.parent);
    const next = siblings[siblings.indexOf(own) + by];
    if (next) {
      openRow(next.row, { replace: true });
      reveal();
    }
  },
  applyFilter() {
    cancelAnimationFrame(typing);
    setFilter(input.value, { replace: true });
  },
  enter() {
    if (view.state.problem === null) actions.moveProblem(1);
    else if (chosenRow() < 0) actions.moveRow(1);
  },
  steps(which) {
    view.openSteps = which;
    if (view.detail) go({ step: null }, { replace: true });
  },
  credit() {
    const order = ["off", "one", "two"];
    go({ credit: order[(order.indexOf(creditShown()) + 1) % 3] }, { replace: true });
  },
  help: () => $("help").showModal(),
};

// ---- what is new

function showLive(problem = "") {
  const { info } = tables;
  const live = $("live");
  live.className = problem ? "error" : info.writing ? "writing" : "";
  live.textContent = problem || (!rows.live ? "a copy" : !info.complete ? "reading…"
    : info.writing ? "● being written" : "○ at rest");
  $("run").textContent = line(info.run || "scdpo", 40);
}

async function update() {
  const generation = tables.generation;
  const added = tables.add(await rows.tables(generation, tables.sizes()));
  const anew = tables.generation !== generation;
  showLive();
  if (!added && !anew) {
    if (view.state.problem === null) refreshOverview();
    return;
  }
  if (anew) view.detail = null;
  applyFilter();
  const p = problemNumber();
  const { detail } = view;
  const stale = !detail || detail.number !== p || detail.size !== tables.rowsOf[p].length
    || detail.credits !== creditsOf(p);
  if (view.state.problem === null) refreshOverview();
  else if (stale) await render(true);
}

// A page that did not change is left alone, so that a selection or an open list stays.
function refreshOverview() {
  const drawn = overview(tables, { ...comparedPolicies() }, actions);
  if (drawn.isEqualNode(detailBox.firstElementChild)) return;
  if (detailBox.contains(document.activeElement)) return;
  detailBox.replaceChildren(drawn);
}

async function watch() {
  for (;;) {
    let wait = EVERY_MS;
    try {
      if (!document.hidden || !tables.generation) await update();
      if (!tables.info.complete) wait = 50;
      else if (!performance.getEntriesByName("complete").length) performance.mark("complete");
    } catch (error) {
      showLive(error instanceof TypeError ? "no answer from the server" : line(error.message, 120));
    }
    if (!rows.live) return;
    await new Promise((resolve) => { setTimeout(resolve, wait); });
  }
}

let typing = 0;
input.addEventListener("input", () => {
  cancelAnimationFrame(typing);
  typing = requestAnimationFrame(() => setFilter(input.value, { replace: true }));
});
$("clear").addEventListener("click", () => setFilter(""));
$("home").addEventListener("click", () => {
  // On a phone the overview takes the place of the list; a second time brings that back.
  const again = view.state.problem === null && document.body.classList.contains("home");
  go({ problem: null, solution: null, policy: null, step: null });
  document.body.classList.toggle("home", !again);
  detailBox.scrollTop = 0;
});
$("help-button").addEventListener("click", () => actions.help());
document.addEventListener("keydown", keyActions(actions, input));
window.addEventListener("popstate", () => {
  const before = view.state.problem;
  view.state = read(location.hash);
  if (input.value !== view.state.filter) {
    input.value = view.state.filter;
    applyFilter();
  }
  render(before !== view.state.problem).then(reveal);
});

fillHelp($("help"));
input.value = view.state.filter;
watch();
