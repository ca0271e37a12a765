// The list of problems: only the rows in sight are in the page.

import { el, line, mark } from "./dom.js";

const HEIGHT = 64; // as .item in style.css
const BEYOND = 6;
const MAX_POLICIES = 4;
const MAX_ID = 22;

// Ids of a data set differ at their end.
function tail(id) {
  return id.length > MAX_ID ? "…" + line(id.slice(-MAX_ID)) : line(id);
}

export class List {
  constructor(box, rows, select) {
    Object.assign(this, { box, rows, select, tables: null, problems: [], current: -1 });
    this.items = new Map(); // position → element
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
    rows.addEventListener("click", (event) => {
      const item = event.target.closest(".item");
      if (item) select(Number(item.dataset.problem));
    });
  }

  show(tables, problems, current) {
    this.tables = tables;
    this.problems = problems;
    this.current = current;
    this.rows.style.height = `${problems.length * HEIGHT}px`;
    this.rows.replaceChildren();
    this.items.clear();
    this.draw();
  }

  position() { return this.problems.indexOf(this.current); }

  reveal() {
    const at = this.position();
    if (at < 0) return;
    const [top, height] = [this.box.scrollTop, this.box.clientHeight];
    if (at * HEIGHT < top) this.box.scrollTop = at * HEIGHT;
    else if ((at + 1) * HEIGHT > top + height) this.box.scrollTop = (at + 1) * HEIGHT - height;
    this.draw();
  }

  draw() {
    if (!this.tables) return;
    const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - BEYOND);
    const last = Math.min(this.problems.length,
      Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + BEYOND);
    for (const [at, item] of this.items) {
      if (at < first || at >= last) {
        item.remove();
        this.items.delete(at);
      }
    }
    for (let at = first; at < last; at += 1) {
      if (this.items.has(at)) continue;
      const item = this.item(this.problems[at], at);
      this.items.set(at, item);
      this.rows.append(item);
    }
  }

  item(p, at) {
    const { problems } = this.tables;
    const chosen = p === this.current;
    const item = el("div", {
      class: chosen ? "item current" : "item", role: "option", id: `item-${p}`,
      "aria-selected": String(chosen), "aria-posinset": at + 1,
      "aria-setsize": this.problems.length, "data-problem": p,
    },
    el("div", { class: "item-head" },
      el("span", { class: "item-id", title: line(problems.id[p]) }, tail(problems.id[p])), this.marks(p)),
    el("div", { class: "item-question" }, line(problems.question[p], 160)));
    item.style.transform = `translateY(${at * HEIGHT}px)`;
    if (chosen) this.box.setAttribute("aria-activedescendant", item.id);
    return item;
  }

  marks(p) {
    const marks = el("span", { class: "marks" });
    const put = (name, text, title) => marks.append(el("span", { class: name, title }, text));
    const counts = this.tables.counts[p];
    for (const verdict of ["correct", "wrong", "undecided"]) {
      if (counts[verdict]) {
        put(verdict, `${mark(verdict)}${counts[verdict]}`, `${counts[verdict]} ${verdict}`);
      }
    }
    const answers = this.tables.answers[p];
    if (answers && answers.size <= MAX_POLICIES) {
      for (const [policy, r] of answers) {
        const verdict = this.tables.verdict(r);
        put(verdict, `${line(policy, 12)}${mark(verdict)}`, `${line(policy)}: ${verdict}`);
      }
    } else if (answers) {
      const right = [...answers.values()].filter((r) => this.tables.verdict(r) === "correct").length;
      put("", `✓${right} of ${answers.size} policies`);
    }
    return marks;
  }
}
