"""The typed records that stages exchange. All are frozen; a JSONL row is one of them.

Words: a *step* is what the policy writes before the host or a step boundary takes over;
a code step carries the output of its execution. A *branch step* k is the number of steps a
continuation shares with its parent, so a solution with k = 0 shares only the question and is a
naive sample. (The paper, arXiv 2407.00782, counts from zero: its k is ours minus one.)
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

StepKind = Literal["text", "code"]
"""`text`: natural language. `code`: contains a program that the host executed."""

Finish = Literal["finished", "step_tokens", "max_steps", "context", "sandbox"]
"""Why a rollout ended. Only `finished` marks a complete solution. The other values name what cut
it: tokens in one step, number of steps, context length, or a killed session."""

VerdictName = Literal["correct", "wrong", "undecided"]
PairKind = Literal["naive", "step_controlled"]
Split = Literal["train", "heldout"]
Side = Literal["chosen", "rejected"]

ERROR_WORD = "error_word"
"""Prefix of the flags for steps that show an error or a correction. Such a flag keeps a solution
only from being preferred; any other flag keeps it out of pairs entirely."""
NOISE = "noise"
"""Prefix of the flags of a garbled solution."""


class Record(BaseModel):
    """Base of all records: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """A question with its gold answer.

    `alternatives` are other gold answers that also count as correct. `several` means that the
    question asks for several values and `answer` is only one of them, as in many simuleq
    questions (see `grading.several`). `solution` is a worked reference solution, or empty.
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
    """One format-free step of a worked solution: a sentence and, if the step computes something,
    its program and output."""

    text: str
    code: str | None = None
    output: str | None = None


class Demonstration(Record):
    """A problem with a worked solution to learn from; `formats.compose` writes it in a format."""

    problem: Problem
    steps: tuple[WorkedStep, ...]


class Verdict(Record):
    """Whether an answer equals the gold answer; `undecided` always comes with a reason.

    `bool(verdict)` raises TypeError, because `if verdict` would treat wrong answers as correct.
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
    """The verdict on an answer that cannot be judged, and why."""
    return Verdict(name="undecided", reason=reason)


_HALF = 2
"""Bytes of a float16."""
_LOWEST_HALF = -65504.0


def pack_logps(logps: Sequence[float]) -> str:
    """Finite log-probs as base64 of little-endian float16 numbers.

    That takes 2.7 bytes a token, in files and in memory, where decimals take 5 and more; the error
    is below 0.05 % (and 3e-8). To read them elsewhere:
    `numpy.frombuffer(base64.b64decode(step["logps"]), "<f2")`.
    """
    halves = (min(max(logp, _LOWEST_HALF), -_LOWEST_HALF) for logp in logps)
    return base64.b64encode(struct.pack(f"<{len(logps)}e", *halves)).decode()


class Step(Record):
    """One reasoning step.

    `text` is exactly what the policy wrote, markers included, and `token_ids` are the ids it
    sampled (empty for recorded solutions). `output` is what the execution returned, and `cut`
    says why that output is incomplete (see `sandbox.Cut`). `host_text` and `host_ids` are what
    the host appended, markers included. `mean_logp` is the mean log-prob per sampled token under
    the policy that sampled the step, at temperature 1 (nats per token), and `logps` are those of
    the single tokens, packed (see `pack_logps`); `token_logps` unpacks them. `logps` is empty for
    recorded solutions and in rows of runs that were made before it was kept.
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
    logps: str = ""

    @property
    def token_logps(self) -> tuple[float, ...]:
        """The log-prob of each id in `token_ids` (nats, temperature 1); empty if not known."""
        data = base64.b64decode(self.logps)
        return struct.unpack(f"<{len(data) // _HALF}e", data)

    @model_validator(mode="after")
    def _one_logp_per_token(self) -> Self:
        n_bytes = len(self.logps) // 4 * 3 - self.logps.count("=")
        if self.logps and n_bytes != _HALF * len(self.token_ids):
            raise ValueError(f"logps of {n_bytes // _HALF} tokens, but {len(self.token_ids)} ids")
        return self


def mean_logp(steps: Sequence[Step]) -> float | None:
    """Mean log-prob per sampled token (nats) of the steps for which it is known."""
    known = [(step.mean_logp, len(step.token_ids)) for step in steps if step.mean_logp is not None]
    tokens = sum(n for _, n in known)
    return sum(mean * n for mean, n in known) / tokens if tokens else None


class _Placed:
    """What decides which side of a pair a solution may take."""

    if TYPE_CHECKING:  # else pydantic takes them for fields, before those of the record
        finish: Finish
        answer: str | None
        verdict: Verdict
        flags: tuple[str, ...]

    def side(self, *, truncated_is_wrong: bool = False) -> Side | None:
        """The side of a preference pair that this solution may take, if any (`placement`)."""
        return self.placement(truncated_is_wrong=truncated_is_wrong)[0]

    def placement(self, *, truncated_is_wrong: bool = False) -> tuple[Side | None, str]:
        """The side of a preference pair that this solution may take, or None and the reason.

        Chosen: correct, finished and without a flag. Rejected: wrong and finished, with no flags
        other than those for error words. Undecided solutions take no side: if one were in fact
        correct, rejecting it would teach the opposite. With `truncated_is_wrong`, a solution
        without an answer or cut by a limit counts as wrong, as in the code released with arXiv
        2407.00782.
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


class Solution(Record, _Placed):
    """One graded rollout (attempt) on a problem, with everything needed to sample it again.

    `steps` hold the whole solution, shared prefix included. `parent` and `branch_step` are set
    for continuations: the first `branch_step` steps are the parent's. `flags` are the reasons to
    keep a graded solution out of pairs (see `placement`).
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


class SolutionHead(Record, _Placed):
    """A solution without its text: all that stop rules and counts need, and fast to read.

    Read it from the row of a `Solution`, whose other fields are passed over.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    problem_id: str
    finish: Finish
    answer: str | None
    verdict: Verdict
    flags: tuple[str, ...] = ()
    attempt: int
    parent: str | None = None
    branch_step: int = 0


class Pair(Record):
    """A preferred (`chosen`) and a dispreferred (`rejected`) continuation of the same prefix.

    The prefix is the prompt plus `shared`, the first `branch_step` steps (none for naive pairs).
    Only `chosen` and `rejected` enter the loss (Eq. 4).
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
    """A policy's greedy answer to one question."""

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
