"""Supervised fine-tuning of a policy on solutions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from scdpo.errors import InputError
from scdpo.errors.validation import settings_from_keywords
from scdpo.policies import Policy
from scdpo.records import Solution
from scdpo.training.card import sft_card
from scdpo.training.checkpoints import TrainingFolder, fit, save_trained
from scdpo.training.loading import (
    AnyPolicy,
    context_length,
    embedding_count,
    evaluation_mode_after,
    initial_policy,
)
from scdpo.training.processes import broadcast_from_main, process_group
from scdpo.training.references import policy_key, sequence_key
from scdpo.training.sft_config import SFTConfig, SFTReport
from scdpo.training.sft_trainer import SFTTrainer
from scdpo.training.subnormals import subnormals_as_zero
from scdpo.training.tokens import Encode, solution_tokens
from scdpo.training.tree import MaskedIds
from scdpo.waiting import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def examples_from_solutions(
    solutions: Iterable[Solution], encode: Encode, *, score_output: bool = False
) -> list[MaskedIds]:
    """Token ids and loss masks of the solutions worth learning from.

    Those are the ones that may be the preferred side of a pair (`Solution.side`): correct,
    finished and without a flag. Of equal solutions of a problem only the first is taken.
    """
    taken: dict[tuple[str, str, str], Solution] = {}
    for solution in solutions:
        if solution.side() == "chosen":
            taken.setdefault((solution.problem_id, solution.prompt, solution.text), solution)
    return [
        solution_tokens(s.prompt, s.prompt_ids, s.steps, encode, score_output)
        for s in taken.values()
    ]


@subnormals_as_zero()
def sft(
    policy: AnyPolicy,
    data: Iterable[Solution | MaskedIds],
    out: str | Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    config: SFTConfig | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> SFTReport:
    """Fine-tune a policy on solutions; the loss is the mean over the counted tokens of a step.

    `policy` is a folder, a hub name, a `Policy`, or a loaded model with its `tokenizer`; what is
    loaded is trained in place. `data` are sampled or recorded `Solution`s, of which the good ones
    are taken (`examples_from_solutions`), or `(ids, mask)` examples. `settings` are fields of
    SFTConfig and take the place of those in `config`. `callbacks` are the Trainer's; `progress`
    is called with the optimizer steps done and their total.

    The trained policy is written to `out/policy`. A training that was stopped resumes from its
    last checkpoint when it is called again with the same arguments; a finished one returns its
    report and changes nothing. Launched as several processes, each has to make the same call.

    Raises InputError for an unknown setting and when no example can be trained on, StoreError
    when `out` holds another training, PolicyError for a folder without a policy.
    """
    started = time.perf_counter()
    settled = settings_from_keywords(SFTConfig, config, settings)
    initial = initial_policy(policy, tokenizer)
    rows = list(data)
    kept, dropped = _usable(initial, _examples(rows, initial, settled), settled)
    fingerprint = _fingerprint(initial, kept, settled)
    with process_group().main_process_first():
        folder = TrainingFolder(Path(out), fingerprint)
    if done := folder.report(SFTReport):
        return done
    with evaluation_mode_after(initial):
        trainer = SFTTrainer(
            initial.model, kept, settled, folder.checkpoints, callbacks=callbacks, progress=progress
        )
        resumed_at_step = fit(trainer, folder)
    save_trained(trainer, initial, folder.policy)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    report = SFTReport(
        policy=str(folder.policy),
        n_examples=len(kept),
        dropped=dropped,
        steps=trainer.state.global_step,
        resumed_at_step=resumed_at_step,
        tokens=_tokens(trainer),
        seconds=time.perf_counter() - started,
        first_loss=losses[0],
        final_loss=losses[-1],
    )
    if process_group().is_main_process:
        sft_card(folder.policy, initial.name, rows, report, settled)
    folder.finish(report)
    return report


def _examples(
    data: Iterable[Solution | MaskedIds], policy: Policy, config: SFTConfig
) -> list[MaskedIds]:
    """Examples as they are, and those of the good solutions."""
    rows = list(data)
    solutions = [row for row in rows if isinstance(row, Solution)]
    if not solutions:
        return [row for row in rows if not isinstance(row, Solution)]
    if len(solutions) < len(rows):
        raise InputError("supervised training: either solutions or (ids, mask) examples, not both")
    examples = examples_from_solutions(solutions, policy.encode, score_output=config.score_output)
    if not examples:
        raise InputError("supervised training: no correct, finished solution without a flag")
    return examples


def _usable(
    policy: Policy, examples: Sequence[MaskedIds], config: SFTConfig
) -> tuple[list[MaskedIds], dict[str, int]]:
    """The examples that can be trained on, and how many cannot, by reason. Raises InputError."""
    longest = context_length(policy, config.max_length)
    size = embedding_count(policy.model)
    kept: list[MaskedIds] = []
    dropped = {"too_long": 0, "nothing_counts": 0}
    for ids, mask in examples:
        if len(ids) > longest:
            dropped["too_long"] += 1
        elif not any(mask[1:]):
            dropped["nothing_counts"] += 1
        elif max(ids) >= size:
            raise InputError(
                f"supervised training: token id {max(ids)}, but {policy.name} has {size} tokens:"
                " was the solution sampled from another policy?"
            )
        else:
            kept.append((ids, mask))
    if not kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items() if n) or "no examples"
        raise InputError(
            f"supervised training: none of {len(examples)} solutions can be used: {reasons}"
        )
    return kept, dropped


def _fingerprint(policy: Policy, examples: Sequence[MaskedIds], config: SFTConfig) -> str:
    digest = hashlib.sha256(config.model_dump_json().encode())
    weights = broadcast_from_main(policy_key(policy.model, ""))
    for example in examples:
        digest.update(sequence_key(example, weights).encode())
    return digest.hexdigest()


def _tokens(trainer: SFTTrainer) -> int:
    """Tokens of all examples that the finished training saw."""
    seen = trainer.steps[: trainer.state.global_step]
    return sum(len(trainer.examples[index][0]) for step in seen for index in step.examples)
