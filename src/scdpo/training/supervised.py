"""Supervised fine-tuning of a policy on solutions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from scdpo.errors import InputError
from scdpo.errors.validation import settings_from_keywords
from scdpo.policies import Policy
from scdpo.records import Solution
from scdpo.training.adapters import save_adapter_and_merged, save_merged, with_adapter
from scdpo.training.card import sft_card
from scdpo.training.checkpoints import TrainingFolder, fit, save_trained
from scdpo.training.examples import Usable, examples_of, usable
from scdpo.training.loading import (
    AnyPolicy,
    context_of,
    embedding_count,
    evaluation_mode_after,
    initial_policy,
)
from scdpo.training.processes import broadcast_from_main, process_group
from scdpo.training.references import policy_key, sequence_key
from scdpo.training.sft_config import HeldoutLoss, SFTConfig, SFTReport
from scdpo.training.sft_trainer import HELDOUT_LOSS, SFTTrainer
from scdpo.training.subnormals import subnormals_as_zero
from scdpo.training.tree import MaskedIds
from scdpo.waiting import Note, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@subnormals_as_zero()
def sft(
    policy: AnyPolicy,
    data: Iterable[Solution | MaskedIds],
    out: str | Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    config: SFTConfig | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    heldout: Iterable[Solution | MaskedIds] = (),
    new_tokens: Sequence[int] = (),
    keep_epochs: bool = False,
    base: str | None = None,
    progress: Progress | None = None,
    note: Note | None = None,
    **settings: Any,
) -> SFTReport:
    """Fine-tune a policy on solutions; the loss is the mean over the counted tokens of a step.

    `policy` is a folder, a hub name, a `Policy`, or a loaded model with its `tokenizer`; what is
    loaded is trained in place. `data` are sampled or recorded `Solution`s, of which the good ones
    are taken (`examples_from_solutions`), or `(ids, mask)` examples. `settings` are fields of
    SFTConfig and take the place of those in `config`. `callbacks` are the Trainer's; `progress`
    is called with the optimizer steps done and their total, and `note` before the training with a
    line that says how many solutions it takes. `heldout` are examples whose loss is
    measured before the training and after every epoch. With `config.lora`, an adapter is trained,
    with the embeddings of `new_tokens`. `keep_epochs` also writes the policy after every epoch
    but the last, to `out/epochs/N/policy`. `base` names the initial policy in the model card.

    The trained policy is written to `out/policy`, an adapter also to `out/adapter`. A training
    that was stopped resumes from its last checkpoint when it is called again with the same
    arguments; a finished one returns its report and changes nothing. Launched as several
    processes, each has to make the same call.

    Raises InputError for an unknown setting and when no example can be trained on, StoreError
    when `out` holds another training, PolicyError for a folder without a policy.
    """
    started = time.perf_counter()
    settled = settings_from_keywords(SFTConfig, config, settings)
    quantize = settled.lora is not None and settled.lora.quantize
    initial = initial_policy(policy, tokenizer, quantize=quantize)
    rows = list(data)
    trained, held = _trained_on(rows, initial, settled), _heldout(heldout, initial, settled)
    fingerprint = _fingerprint(initial, trained.examples, held, settled)
    with process_group().main_process_first():
        folder = TrainingFolder(Path(out), fingerprint)
    if done := folder.report(SFTReport):
        return done
    if note is not None:
        note(trained.text)
    with evaluation_mode_after(initial):
        trainer = SFTTrainer(
            with_adapter(initial, settled.lora, settled.seed, new_tokens),
            trained.examples,
            settled,
            folder.checkpoints,
            callbacks=callbacks,
            progress=progress,
            heldout=held,
            at_epoch=_keeping(initial, folder, settled) if keep_epochs else None,
        )
        resumed_at_step = fit(trainer, folder)
    figures = _figures(trainer, trained, len(held))
    figures["epochs"] = _save(trainer, policy, initial, folder, settled)
    seconds = time.perf_counter() - started
    report = SFTReport(
        policy=str(folder.policy), resumed_at_step=resumed_at_step, seconds=seconds, **figures
    )
    if process_group().is_main_process:
        sft_card(folder.policy, base or initial.name, rows, report, settled)
    folder.finish(report)
    return report


def _trained_on(rows: Sequence[Solution | MaskedIds], policy: Policy, config: SFTConfig) -> Usable:
    """The examples to train on. Raises InputError if there are none, or if they are not this
    policy's."""
    found = _usable(rows, policy, config)
    if not found.examples:
        reasons = ", ".join(f"{n} {reason}" for reason, n in found.dropped.items() if n)
        raise InputError(
            f"supervised training: none of {sum(found.dropped.values())} solutions can be used: "
            f"{reasons or 'no examples'}"
        )
    return found


def _heldout(
    data: Iterable[Solution | MaskedIds], policy: Policy, config: SFTConfig
) -> list[MaskedIds]:
    """The held-out examples that can be scored; there may be none."""
    rows = list(data)
    return _usable(rows, policy, config).examples if rows else []


def _usable(rows: Sequence[Solution | MaskedIds], policy: Policy, config: SFTConfig) -> Usable:
    examples = examples_of(rows, policy.encode, score_output=config.score_output)
    context = context_of(policy.model.config)
    found = usable(examples, max_length=config.max_length, context=context)
    size = embedding_count(policy.model)
    highest = max((max(ids) for ids, _ in found.examples), default=0)
    if highest >= size:
        raise InputError(
            f"supervised training: token id {highest}, but {policy.name} has {size} tokens: was"
            " the solution sampled from another policy?"
        )
    return found


def _figures(trainer: SFTTrainer, trained: Usable, n_heldout: int) -> dict[str, Any]:
    """What a report says about a training that is done."""
    history = trainer.state.log_history
    losses = [row["loss"] for row in history if "loss" in row]
    heldout = [
        HeldoutLoss(epochs=row["epoch"], step=row["step"], loss=row[HELDOUT_LOSS])
        for row in history
        if HELDOUT_LOSS in row
    ]
    return {
        "n_examples": len(trained.examples),
        "dropped": trained.dropped,
        "steps": trainer.state.global_step,
        "tokens": _tokens(trainer),
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "n_heldout": n_heldout,
        "heldout": tuple(heldout),
    }


def _keeping(
    initial: Policy, folder: TrainingFolder, config: SFTConfig
) -> Callable[[SFTTrainer, int], None]:
    """Writes the policy, or its adapter, after an epoch that is not the last."""

    def keep(trainer: SFTTrainer, epoch: int) -> None:
        if epoch != max(trainer.epoch_ends.values()):
            name = "adapter" if config.lora else "policy"
            save_trained(trainer, initial, folder.epochs / str(epoch) / name)

    return keep


def _save(
    trainer: SFTTrainer,
    source: AnyPolicy,
    initial: Policy,
    folder: TrainingFolder,
    config: SFTConfig,
) -> dict[int, str]:
    """Write the trained policy; returns the folders of the epochs that were kept.

    Every process has to call it.
    """
    kept = {int(path.name): path for path in folder.epochs.glob("*") if path.name.isdigit()}
    if config.lora is None:
        save_trained(trainer, initial, folder.policy)
    else:
        save_adapter_and_merged(trainer, source, initial, folder)
        for path in kept.values():
            if trainer.is_world_process_zero() and isinstance(source, (str, Path)):
                save_merged(source, path / "adapter", path / "policy")
    return {epoch: str(path / "policy") for epoch, path in sorted(kept.items())}


def _fingerprint(
    policy: Policy,
    examples: Sequence[MaskedIds],
    heldout: Sequence[MaskedIds],
    config: SFTConfig,
) -> str:
    # Without an adapter, as it was before there were adapters.
    settings = config.model_dump_json(exclude=None if config.lora else {"lora"})
    digest = hashlib.sha256(settings.encode())
    weights = broadcast_from_main(policy_key(policy.model, ""))
    if heldout:
        digest.update(f"{len(heldout)} held out".encode())
    for example in (*examples, *heldout):
        digest.update(sequence_key(example, weights).encode())
    return digest.hexdigest()


def _tokens(trainer: SFTTrainer) -> int:
    """Tokens of all examples that the finished training saw."""
    seen = trainer.steps[: trainer.state.global_step]
    return sum(len(trainer.examples[index][0]) for step in seen for index in step.examples)
