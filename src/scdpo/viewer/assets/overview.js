// The run as a whole: its stages, its policies, and policies compared question by question.

import { el, line, number } from "./dom.js";

const quoted = (name) => JSON.stringify(name);

export function overview(tables, state, actions) {
  const { info } = tables;
  const box = el("div", { class: "overview" }, el("h1", {}, line(info.run, 120)));
  if (info.malformed) {
    box.append(el("p", { class: "error" },
      `${number(info.malformed)} rows cannot be read: ${line(info.complaint, 300)}`));
  }
  const { problems, rows } = tables.sizes();
  box.append(el("p", {}, `${number(problems)} problems, ${number(rows)} solutions and answers, ` +
    `${number(tables.sizes().pairs)} pairs.` + (info.complete ? "" : " Still reading.")));
  if (tables.evaluated.size) box.append(policies(tables, actions));
  if (tables.evaluated.size > 1) box.append(compared(tables, state, actions));
  box.append(examples(tables, actions), stages(info.stages));
  return box;
}

function table(heads, lines) {
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, lines.map((cells) => el("tr", {}, cells.map((cell, n) =>
      el("td", { class: n === 4 && cell.length > 30 ? "long" : "" }, cell)))))));
}

function asking(text, filter, actions) {
  return el("button", { class: "link", title: filter, onclick: () => actions.filter(filter) }, text);
}

function policies(tables, actions) {
  const count = new Map([...tables.evaluated].map(
    (name) => [name, { correct: 0, wrong: 0, undecided: 0, only: 0 }]));
  for (const answers of tables.answers) {
    if (!answers) continue;
    const right = [];
    for (const [name, r] of answers) {
      count.get(name)[tables.verdict(r)] += 1;
      if (tables.verdict(r) === "correct") right.push(name);
    }
    if (right.length === 1) count.get(right[0]).only += 1;
  }
  const lines = [...count].map(([name, { correct, wrong, undecided, only }]) => {
    const total = correct + wrong + undecided;
    return [line(name, 60), `${((100 * correct) / total).toFixed(1)} %`,
      asking(`✓ ${number(correct)}`, `right(${quoted(name)})`, actions),
      asking(`✗ ${number(wrong)}`, `wrong(${quoted(name)})`, actions),
      asking(`? ${number(undecided)}`, `undecided(${quoted(name)})`, actions),
      asking(number(only), `only(${quoted(name)})`, actions)];
  });
  return el("section", {}, el("h2", {}, "Policies"),
    table(["policy", "accuracy", "right", "wrong", "undecided", "the only one right"], lines));
}

function compared(tables, state, actions) {
  const [a, b] = [state.left, state.right];
  const counts = [[0, 0], [0, 0]];
  let both = 0;
  for (const answers of tables.answers) {
    if (!answers?.has(a) || !answers.has(b)) continue;
    both += 1;
    const right = (name) => (tables.verdict(answers.get(name)) === "correct" ? 0 : 1);
    counts[right(a)][right(b)] += 1;
  }
  const select = (which, value) => el("select", { "aria-label": `policy ${which}`,
    onchange: (event) => actions.compare(which, event.target.value) },
  [...tables.evaluated].map((name) => el("option",
    { value: name, selected: name === value }, line(name, 60))));
  const cell = (i, j) => asking(number(counts[i][j]),
    `${i ? "not " : ""}right(${quoted(a)}) and ${j ? "not " : ""}right(${quoted(b)})` +
    (i && j ? ' and stage == "evaluations"' : ""), actions);
  return el("section", {}, el("h2", {}, "Two policies, question by question"),
    el("p", {}, select("a", a), " against ", select("b", b),
      ` on ${number(both)} questions that both answered`),
    table(["", `${line(b, 40)} ✓ right`, `${line(b, 40)} ✗ not right`], [
      [`${line(a, 40)} ✓ right`, cell(0, 0), cell(0, 1)],
      [`${line(a, 40)} ✗ not right`, cell(1, 0), cell(1, 1)]]));
}

function examples(tables, actions) {
  const filters = ['verdict == "wrong" and k >= 2 and mean_logp < -0.3',
    "n_correct == 0 and n_wrong > 0", 'finish != "finished"', 'side == "rejected" and k > 0',
    'stage == "branches" and temperature >= 1.3'];
  if (tables.credited.size) filters.push("credit > 0");
  return el("section", {}, el("h2", {}, "Filters to begin with"),
    el("ul", {}, filters.map((filter) => el("li", {},
      el("button", { class: "link", onclick: () => actions.filter(filter) },
        el("code", {}, filter))))));
}

function stages(found) {
  const lines = found.map((stage) => [line(stage.name, 80), line(stage.status, 40),
    number(stage.rows), stage.seconds === undefined ? "–" : `${number(Math.round(stage.seconds))} s`,
    Object.entries(stage.counts ?? {}).map(([name, n]) => `${line(name, 60)} ${number(n)}`).join(", ")
      || line(stage.note ?? "", 200)]);
  return el("section", {}, el("h2", {}, "Stages"),
    table(["stage", "status", "rows", "time", "counts"], lines));
}
