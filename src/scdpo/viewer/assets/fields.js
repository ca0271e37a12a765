// What a filter can ask about: fields of a row or of its problem, and questions about policies.

const row = (get) => (t, r, p) => (r < 0 ? null : get(t, r, p));

export const FIELDS = {
  verdict: ["text", "correct, wrong or undecided", row((t, r) => t.verdict(r))],
  k: ["number", "steps shared with the parent; 0 for a naive sample", row((t, r) => t.rows.k[r])],
  mean_logp: ["number", "mean log-prob per token after k, at temperature 1",
    row((t, r) => t.rows.mean_logp[r])],
  temperature: ["number", "temperature of the first step after k",
    row((t, r) => t.rows.temperature[r])],
  steps: ["number", "steps, shared ones included", row((t, r) => t.rows.steps[r])],
  tokens: ["number", "tokens that the policy wrote", row((t, r) => t.rows.tokens[r])],
  finish: ["text", "finished, or what cut it: step_tokens, max_steps, context, sandbox",
    row((t, r) => t.finish(r))],
  flags: ["text", "reasons to keep it out of pairs, with commas",
    row((t, r) => t.names.flags[t.rows.flags[r]])],
  answer: ["text", "the answer that was found", row((t, r) => t.rows.answer[r])],
  attempt: ["number", "which attempt it was", row((t, r) => t.rows.attempt[r])],
  stage: ["text", "solutions, imports, branches, evaluations or credit (sampled by `scdpo credit`)", row((t, r) => t.stage(r))],
  policy: ["text", "the policy that wrote it", row((t, r) => t.policy(r))],
  id: ["text", "id of the solution", row((t, r) => t.rows.id[r])],
  side: ["text", "chosen or rejected in some pair, or none", row(sideOf)],
  pairs: ["number", "pairs that it is in", row((t, r) => t.pairsOf.get(r)?.length ?? 0)],
  credit: ["number", "policies with token credit of it",
    row((t, r) => t.creditOf.get(r)?.length ?? 0)],
  problem: ["text", "id of the problem", (t, r, p) => t.problems.id[p]],
  part: ["text", "train, test or a benchmark", (t, r, p) => t.problems.part[p]],
  dataset: ["text", "data set of the problem", (t, r, p) => t.problems.dataset[p]],
  level: ["text", "level of the problem", (t, r, p) => t.problems.level[p]],
  subject: ["text", "subject of the problem", (t, r, p) => t.problems.subject[p]],
  question: ["text", "the first 300 characters of the question",
    (t, r, p) => t.problems.question[p]],
  gold: ["text", "the gold answer", (t, r, p) => t.problems.answer[p]],
  n_correct: ["number", "correct solutions to the problem", (t, r, p) => t.counts[p].correct],
  n_wrong: ["number", "wrong solutions to the problem", (t, r, p) => t.counts[p].wrong],
  n_undecided: ["number", "undecided solutions to the problem",
    (t, r, p) => t.counts[p].undecided],
  n_branches: ["number", "continuations in the problem's tree", (t, r, p) => t.counts[p].branches],
};

function sideOf(t, r) {
  const n = t.pairsOf.get(r)?.[0];
  if (n === undefined) return null;
  return t.pairs.chosen[n] === r ? "chosen" : "rejected";
}

const answered = (verdict) => (name) => (t, r, p) => t.answered(p, name) === verdict;

export const QUESTIONS = {
  right: ["the policy answered the problem correctly", answered("correct")],
  wrong: ["the policy answered it wrongly", answered("wrong")],
  undecided: ["the policy's answer could not be judged", answered("undecided")],
  only: ["the policy is the only one that answered it correctly", (name) => (t, r, p) => {
    if (t.answered(p, name) !== "correct") return false;
    for (const other of t.answers[p].keys()) {
      if (other !== name && t.answered(p, other) === "correct") return false;
    }
    return true;
  }],
};
