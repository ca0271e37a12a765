// The columns of the run as they arrive: problems, rows (solutions and evaluations), pairs, credit.

const COLUMNS = {
  problems: ["id", "part", "dataset", "question", "answer", "level", "subject"],
  rows: ["stage", "problem", "id", "policy", "parent", "k", "verdict", "finish", "flags", "attempt",
    "steps", "tokens", "temperature", "mean_logp", "answer"],
  pairs: ["stage", "chosen", "rejected", "k"],
  credit: ["row", "policy"],
};

export class Tables {
  constructor() {
    this.generation = "";
    this.names = { stage: [], policy: [], verdict: [], finish: [], flags: [] };
    this.info = { run: "", stages: [], complete: false, writing: false };
    this.empty();
  }

  empty() {
    for (const [table, names] of Object.entries(COLUMNS)) {
      this[table] = Object.fromEntries(names.map((name) => [name, []]));
    }
    this.number = new Map(); // problem id → number
    this.rowNumber = new Map(); // row id → number
    this.rowsOf = []; // by problem
    this.answers = []; // by problem: policy → row of its evaluation
    this.counts = []; // by problem: verdicts of its solutions
    this.pairsOf = new Map(); // row → pairs
    this.creditOf = new Map(); // row → policies
    this.evaluated = new Set(); // policies
    this.credited = new Set();
  }

  sizes() {
    return Object.fromEntries(Object.entries(COLUMNS).map(
      ([table, names]) => [table, this[table][names[0]].length]));
  }

  // Returns whether anything was added.
  add(update) {
    if (update.generation !== this.generation) {
      this.generation = update.generation;
      this.empty();
    }
    const before = this.sizes();
    this.names = update.names;
    this.info = update;
    let added = false;
    for (const [table, names] of Object.entries(COLUMNS)) {
      if (update.from[table] !== before[table]) continue; // an answer that came twice
      for (const name of names) {
        const values = update[table][name];
        added ||= values.length > 0;
        if (this[table][name].length === 0) this[table][name] = values;
        else for (const value of values) this[table][name].push(value);
      }
    }
    this.connect(before);
    return added;
  }

  connect(before) {
    const { problems, rows, pairs, credit, names } = this;
    for (let p = before.problems; p < problems.id.length; p += 1) {
      this.number.set(problems.id[p], p);
      this.rowsOf.push([]);
      this.answers.push(null);
      this.counts.push({ correct: 0, wrong: 0, undecided: 0, branches: 0, solutions: 0 });
    }
    for (let r = before.rows; r < rows.id.length; r += 1) {
      const p = rows.problem[r];
      this.rowNumber.set(rows.id[r], r);
      this.rowsOf[p].push(r);
      const stage = names.stage[rows.stage[r]];
      if (stage === "evaluations") {
        (this.answers[p] ??= new Map()).set(names.policy[rows.policy[r]], r);
        this.evaluated.add(names.policy[rows.policy[r]]);
      } else {
        const counts = this.counts[p];
        counts.solutions += 1;
        counts[names.verdict[rows.verdict[r]]] += 1;
        if (stage === "branches") counts.branches += 1;
      }
    }
    for (let n = before.pairs; n < pairs.stage.length; n += 1) {
      for (const side of ["chosen", "rejected"]) {
        const r = pairs[side][n];
        if (r < 0) continue;
        if (!this.pairsOf.has(r)) this.pairsOf.set(r, []);
        this.pairsOf.get(r).push(n);
      }
    }
    for (let n = before.credit; n < credit.row.length; n += 1) {
      const r = credit.row[n];
      if (!this.creditOf.has(r)) this.creditOf.set(r, []);
      const policy = names.policy[credit.policy[n]];
      this.creditOf.get(r).push(policy);
      this.credited.add(policy);
    }
  }

  verdict(r) { return this.names.verdict[this.rows.verdict[r]]; }
  finish(r) { return this.names.finish[this.rows.finish[r]]; }
  stage(r) { return this.names.stage[this.rows.stage[r]]; }
  policy(r) { return this.names.policy[this.rows.policy[r]]; }

  // The verdict of a policy's answer to a problem, or null.
  answered(p, policy) {
    const r = this.answers[p]?.get(policy);
    return r === undefined ? null : this.verdict(r);
  }
}
