"""Supervised fine-tuning of a policy on solutions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from scdpo.errors import InputError
from scdpo.policies import Policy, load_policy
from scdpo.records import Solution
from scdpo.training.checkpoints import AtBegin, Progress, TrainingFolder, fit, save_trained
from scdpo.training.probe import candidates, find_way
from scdpo.training.processes import from_main, joined
from scdpo.training.references import policy_key, sequence_key
from scdpo.training.scoring import Way, attending
from scdpo.training.sft_config import SFTConfig, SFTReport
from scdpo.training.sft_trainer import SFTTrainer
from scdpo.training.subnormals import subnormals_as_zero
from scdpo.training.tokens import Encode, solution_tokens
from scdpo.training.tree import MaskedIds

__all__ = ["SFTConfig", "SFTReport", "examples_from_solutions", "sft_policy", "train_sft"]


def examples_from_solutions(
    solutions: Iterable[Solution], encode: Encode, *, score_output: bool = False
) -> list[MaskedIds]:
    """Token ids and loss masks of the solutions worth learning from.

    Those are the finished ones with the correct answer and without a flag, as for the preferred
    side of pairs; of equal ones on one problem only the first is taken.
    """
    taken: dict[tuple[str, str, str], Solution] = {}
    for solution in solutions:
        correct = solution.verdict.name == "correct" and solution.finish == "finished"
        if correct and not solution.flags:
            taken.setdefault((solution.problem_id, solution.prompt, solution.text), solution)
    return [
        solution_tokens(s.prompt, s.prompt_ids, s.steps, encode, score_output)
        for s in taken.values()
    ]


def sft_policy(
    policy: str | Path,
    solutions: Iterable[Solution],
    config: SFTConfig,
    out: Path,
    *,
    progress: Progress | None = None,
) -> SFTReport:
    """Train a policy on the good ones of sampled or recorded solutions (rejection sampling).

    The trained policy is written to `out/policy`; see `examples_from_solutions` and `train_sft`.
    Raises PolicyError for a folder without a policy, and what `train_sft` raises.
    """
    loaded = load_policy(policy)
    examples = examples_from_solutions(solutions, loaded.encode, score_output=config.score_output)
    if not examples:
        raise InputError("supervised training: no correct, finished solution without a flag")
    return train_sft(loaded, examples, config, out, progress=progress)


@subnormals_as_zero()
def train_sft(
    policy: Policy,
    examples: Sequence[MaskedIds],
    config: SFTConfig,
    out: Path,
    *,
    progress: Progress | None = None,
) -> SFTReport:
    """Train `policy` on token ids of solutions, in place, and write it to `out/policy`.

    The loss of an optimizer step is the mean over its counted tokens (nats per token). A
    training that was killed goes on from its last checkpoint when it is called again in the
    same way; of one that is finished the report is returned and `policy` is left as it is.
    Raises InputError when no example can be trained on, StoreError when `out` holds another
    training.
    """
    started = time.perf_counter()
    processes = joined()
    kept, dropped = _usable(policy, examples, config)
    if not kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items() if n)
        raise InputError(
            f"supervised training: none of {len(examples)} solutions can be used: {reasons}"
        )
    fingerprint = _fingerprint(policy, kept, config)
    with processes.main_process_first():
        folder = TrainingFolder(out, fingerprint)
    if done := folder.report(SFTReport):
        return done
    trainer = SFTTrainer(policy.model, kept, config, folder.checkpoints)
    with ExitStack() as attention:

        def begin() -> None:
            trainer.way = _packed_way(trainer, config)
            backend = trainer.way.backend if trainer.way else None
            attention.enter_context(attending(trainer.model_wrapped, backend))
            if config.compile:
                trainer.compile_decoder()

        trainer.add_callback(AtBegin(begin))
        resumed_at_step = fit(trainer, folder, progress)
    policy.model.train(False)
    save_trained(trainer, policy, folder.policy)
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
    if processes.is_main_process:
        folder.finish(report)
    processes.wait_for_everyone()
    return report


def _packed_way(trainer: SFTTrainer, config: SFTConfig) -> Way | None:
    """How packed rows are scored. Raises InputError for a model that cannot do it."""
    if config.pack_length is None:
        return None
    backends = candidates("auto", config.gradient_checkpointing, torch.cuda.is_available())
    model = trainer.model_wrapped
    way, reason = find_way(model, [[example] for example in trainer.examples], backends)
    if way is None:
        raise InputError(f"pack_length: this model's solutions cannot share a row ({reason})")
    return way


def _usable(
    policy: Policy, examples: Sequence[MaskedIds], config: SFTConfig
) -> tuple[list[MaskedIds], dict[str, int]]:
    """The examples that can be trained on, and how many cannot, by reason."""
    context = getattr(policy.model.config, "max_position_embeddings", None)
    longest = min(config.max_length, context or config.max_length)
    embeddings = policy.model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    size = embeddings.num_embeddings
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
    return kept, dropped


def _fingerprint(policy: Policy, examples: Sequence[MaskedIds], config: SFTConfig) -> str:
    digest = hashlib.sha256(config.model_dump_json().encode())
    weights = from_main(policy_key(policy.model, ""))
    for example in examples:
        digest.update(sequence_key(example, weights).encode())
    return digest.hexdigest()


def _tokens(trainer: SFTTrainer) -> int:
    """Tokens of all examples that the finished training saw."""
    seen = trainer.steps[: trainer.state.global_step]
    return sum(len(trainer.examples[index][0]) for step in seen for index in step.examples)
