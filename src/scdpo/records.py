"""The typed records that stages exchange. All are frozen; a JSONL row is one of them.

Words: a *step* is what the policy writes before the host or a step boundary takes over;
a code step carries the output of its execution. A *branch step* k is the number of steps a
continuation shares with its parent, so k = 0 shares only the question and is a naive sample.
(The paper, arXiv 2407.00782, counts from zero: its k is ours minus one.)
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

StepKind = Literal["text", "code"]
"""`text`: natural language. `code`: has a program that the host executed."""

Finish = Literal["finished", "step_tokens", "max_steps", "context", "sandbox"]
"""Why a rollout ended. Only `finished` is a whole solution; the others are cut by a limit:
tokens in one step, number of steps, context length, or a session that was killed."""

VerdictName = Literal["correct", "wrong", "undecided"]
PairKind = Literal["naive", "step_controlled"]
Split = Literal["train", "heldout"]
Side = Literal["chosen", "rejected"]

ERROR_WORD = "error_word"
"""Flags that begin so mark a step that shows an error or a correction. They bar a solution from
being preferred only; every other flag bars it from both sides."""


class Record(BaseModel):
    """Base of all records: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """A question with its gold answer.

    `alternatives` are further gold answers that also count as right. `several` says that the
    question asks for several values and `answer` is one of them (many questions of simuleq): see
    `grading.several`. `solution` is a worked reference solution, or empty.
    """

    id: str
    dataset: str
    question: str
    answer: str
    alternatives: tuple[str, ...] = ()
    several: bool = False
    solution: str = ""
    level: str | None = None
    subject: str | None = None


class WorkedStep(Record):
    """One step of a worked solution, free of any format: a sentence, and the program and its
    output where the step computes something."""

    text: str
    code: str | None = None
    output: str | None = None


class Demonstration(Record):
    """A problem with a worked solution to learn from; `formats.compose` writes it in a format."""

    problem: Problem
    steps: tuple[WorkedStep, ...]


class Verdict(Record):
    """Whether an answer equals the gold answer; `undecided` always has a reason.

    A verdict has no truth value, since `if verdict` would take wrong ones for correct:
    TypeError is raised.
    """

    name: VerdictName
    reason: str = ""

    @property
    def correct(self) -> bool:
        """Whether the answer equals the gold answer."""
        return self.name == "correct"

    @property
    def wrong(self) -> bool:
        """Whether the answer was understood and differs from the gold answer."""
        return self.name == "wrong"

    @property
    def undecided(self) -> bool:
        """Whether the answer could not be judged; `reason` says why."""
        return self.name == "undecided"

    def __bool__(self) -> bool:
        raise TypeError("a verdict has three values; use verdict.correct")


CORRECT = Verdict(name="correct")
WRONG = Verdict(name="wrong")


def undecided(reason: str) -> Verdict:
    """The verdict on an answer that cannot be judged, with the reason."""
    return Verdict(name="undecided", reason=reason)


class Step(Record):
    """One reasoning step.

    `text` is exactly what the policy wrote, markers included, and `token_ids` are the ids it
    sampled for it (empty for recorded solutions). `output` is what the execution returned,
    `cut` why it was not kept whole (see `sandbox.Cut`), and `host_text`, `host_ids` are what the
    host appended for it, markers included. `mean_logp` is the mean log-prob per sampled token
    under the policy that sampled it, at temperature 1 (nats per token).
    """

    kind: StepKind
    text: str
    token_ids: tuple[int, ...] = ()
    output: str | None = None
    cut: str = ""
    host_text: str = ""
    host_ids: tuple[int, ...] = ()
    temperature: float | None = None
    mean_logp: float | None = None


class Solution(Record):
    """One rollout (attempt) on a problem, graded, with everything needed to draw it again.

    `steps` hold the whole solution, shared prefix included. `parent` and `branch_step` are set
    for continuations: the first `branch_step` steps are the parent's. `flags` name the reasons
    that keep a solution out of pairs although its answer was graded (see `pairs`).
    """

    id: str
    problem_id: str
    dataset: str
    question: str
    format: str
    policy: str
    prompt: str
    prompt_ids: tuple[int, ...] = ()
    steps: tuple[Step, ...]
    finish: Finish
    answer: str | None
    verdict: Verdict
    flags: tuple[str, ...] = ()
    attempt: int
    seed: int
    parent: str | None = None
    branch_step: int = 0

    @property
    def text(self) -> str:
        """The solution as one string, execution outputs included, prompt excluded."""
        return "".join(step.text + step.host_text for step in self.steps)

    def side(self, *, truncated_is_wrong: bool = False) -> Side | None:
        """The side of a preference pair that this solution may take, if any (`placement`)."""
        return self.placement(truncated_is_wrong=truncated_is_wrong)[0]

    def placement(self, *, truncated_is_wrong: bool = False) -> tuple[Side | None, str]:
        """The side of a preference pair that this solution may take, or None and the reason.

        Chosen: correct, finished and without a flag. Rejected: wrong and finished, with flags
        for error words at most. Undecided solutions take no side, because a correct solution on
        the rejected side teaches the opposite. With `truncated_is_wrong` a solution that a limit
        cut or that has no answer counts as wrong, as in the code released with arXiv 2407.00782.
        """
        verdict = self.verdict.name
        cut = self.finish != "finished"
        if truncated_is_wrong and (cut or self.answer is None):
            verdict = "wrong"
        elif cut:
            return None, "unfinished"
        if verdict == "undecided":
            return None, "undecided"
        side: Side = "chosen" if verdict == "correct" else "rejected"
        for flag in self.flags:
            if side == "chosen" or not flag.startswith(ERROR_WORD):
                return None, f"{side}_flag:{flag}"
        return side, ""


class Pair(Record):
    """A preferred (`chosen`) and a dispreferred (`rejected`) continuation of one prefix.

    The prefix is the prompt and `shared` (the first `branch_step` steps, none for naive
    pairs); only `chosen` and `rejected` count in the loss (Eq. 4).
    """

    id: str
    problem_id: str
    dataset: str
    question: str
    kind: PairKind
    format: str
    prompt: str
    prompt_ids: tuple[int, ...] = ()
    shared: tuple[Step, ...] = ()
    chosen: tuple[Step, ...]
    rejected: tuple[Step, ...]
    branch_step: int = 0
    chosen_id: str
    rejected_id: str
    split: Split = "train"


class Evaluation(Record):
    """One question answered greedily by one policy."""

    problem_id: str
    dataset: str
    policy: str
    level: str | None = None
    subject: str | None = None
    gold: str
    answer: str | None
    verdict: Verdict
    finish: Finish
    n_steps: int
    n_tokens: int
    text: str
