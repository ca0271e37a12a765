"""Preference training (arXiv 2407.00782, Sec. 3.3): a policy, its pairs, a trained policy."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from scdpo.errors import InputError
from scdpo.errors.validation import settings_from_keywords
from scdpo.pairs.rows import pairs_from_rows
from scdpo.policies import Policy
from scdpo.records import Pair
from scdpo.training.adapters import save_adapter_and_merged, with_adapter
from scdpo.training.card import preference_card
from scdpo.training.checkpoints import TrainingFolder, fit, save_trained
from scdpo.training.dpo_config import DPOConfig, PreferenceMetrics, TrainingReport
from scdpo.training.loading import (
    AnyPolicy,
    context_length,
    embedding_count,
    evaluation_mode_after,
    initial_policy,
)
from scdpo.training.losses import dpo_loss
from scdpo.training.preference_trainer import PreferenceTrainer, pair_sides
from scdpo.training.processes import broadcast_from_main, process_group
from scdpo.training.references import ReferenceCache, policy_key, sequence_key
from scdpo.training.subnormals import subnormals_as_zero
from scdpo.training.tokens import PairTokens, Tokenised, tokenise
from scdpo.waiting import Note, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@subnormals_as_zero()
def train(
    policy: AnyPolicy,
    pairs: Iterable[Pair | Mapping[str, Any]],
    out: str | Path,
    *,
    heldout: Iterable[Pair | Mapping[str, Any]] = (),
    callbacks: Sequence[TrainerCallback] = (),
    config: DPOConfig | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    references: Path | None = None,
    progress: Progress | None = None,
    reference_progress: Progress | None = None,
    note: Note | None = None,
    **settings: Any,
) -> TrainingReport:
    """Train a policy on preference pairs; its initial weights are the reference policy.

    `policy` is a folder, a hub name, a `Policy`, or a loaded model with its `tokenizer`; what is
    loaded is trained in place. `pairs` are `Pair`s, or rows in the layouts of `pairs_from_rows`;
    those with split `heldout` are measured with `heldout` and not trained on. `settings` are
    fields of DPOConfig (`beta=0.1`) and replace those of `config`; `callbacks` are the Trainer's.

    The trained policy is written to `out/policy`, an adapter also to `out/adapter`. A stopped
    training resumes from its last checkpoint when called again with the same arguments; a
    finished one returns its report and changes nothing. `references` is the file of reference
    log-probs, by default in `out`; trainings of one policy can share it. `progress` is called
    with optimizer steps, `reference_progress` with scored sequences (done, total), `note` with a
    line where the model cannot be trained over token trees. Every launched process makes the
    same call. Raises InputError for an unknown setting, when no pair can be trained on, when the
    model cannot be trained as configured and when the training changed no weight; DataError
    for a row in no known layout; StoreError when `out` holds another training; PolicyError for a
    folder without a policy.
    """
    started = time.perf_counter()
    settled = settings_from_keywords(DPOConfig, config, settings)
    quantize = settled.lora is not None and settled.lora.quantize
    initial = initial_policy(policy, tokenizer, quantize=quantize)
    with evaluation_mode_after(initial):
        records = _records(pairs, initial)
        data = _Data(initial, records, _records(heldout, initial), settled)
        with process_group().main_process_first():
            folder = TrainingFolder(Path(out), data.fingerprint)
        if done := folder.report(TrainingReport):
            return _changed(done, settled)
        trainer = data.trainer(
            initial,
            folder,
            references,
            callbacks=callbacks,
            progress=progress,
            reference_progress=reference_progress,
            note=note,
        )
        resumed_at_step = fit(trainer, folder)
        figures = _figures(trainer, data, initial, folder)
        figures["unchanged"] = _save(trainer, policy, initial, folder, data.weights)
    seconds = time.perf_counter() - started
    report = TrainingReport(resumed_at_step=resumed_at_step, seconds=seconds, **figures)
    if process_group().is_main_process:
        preference_card(folder.policy, records, report, settled)
    folder.finish(report)
    return _changed(report, settled)


class _Data:
    """Pairs to train on and held-out ones as token ids, and the hashes that identify them."""

    def __init__(
        self, policy: Policy, pairs: Sequence[Pair], heldout: Sequence[Pair], config: DPOConfig
    ):
        train = [pair for pair in pairs if pair.split == "train"]
        held = [pair for pair in pairs if pair.split == "heldout"]
        self.train = _tokenise(policy, train, config)
        if not self.train.pairs:
            raise InputError(_nothing_left(len(train), self.train.dropped))
        self.held = _tokenise(policy, [*held, *heldout], config)
        # A launcher may have one process alone load the weights and hand them out later.
        self.weights = broadcast_from_main(policy_key(policy.model, _precision(config)))
        self.fingerprint = _fingerprint(config, self.train.pairs, self.held.pairs, self.weights)
        self.config = config

    def trainer(
        self, policy: Policy, folder: TrainingFolder, references: Path | None, **options: Any
    ) -> PreferenceTrainer:
        """The trainer of the policy, with an adapter if the config asks for one."""
        return PreferenceTrainer(
            with_adapter(policy, self.config.lora, self.config.seed),
            self.train.pairs,
            self.config,
            folder.checkpoints,
            heldout=self.held.pairs,
            references=ReferenceCache(references or folder.path / "references.npz"),
            weights=self.weights,
            **options,
        )


def _records(pairs: Iterable[Pair | Mapping[str, Any]], policy: Policy) -> list[Pair]:
    """Pairs as they are, rows as pairs."""
    rows = list(pairs)
    records = [row for row in rows if isinstance(row, Pair)]
    if len(records) == len(rows):
        return records
    if records:
        raise InputError("pairs: either Pair records or rows, not both")
    return pairs_from_rows(rows, tokenizer=policy.tokenizer)  # type: ignore[arg-type]


def _save(
    trainer: PreferenceTrainer,
    source: AnyPolicy,
    initial: Policy,
    folder: TrainingFolder,
    before: str,
) -> bool:
    """Write the trained policy, and its adapter if it has one; every process has to call it.

    Returns, in the main process, whether not a bit differs from the initial weights, whose
    `policy_key` is `before`.
    """
    if trainer.config.lora:
        weights = save_adapter_and_merged(trainer, source, initial, folder)
    else:
        weights = save_trained(trainer, initial, folder.policy)
    if not trainer.is_world_process_zero():
        return False
    if trainer.config.lora:
        # An adapter begins with this factor at zero, and adds nothing as long as it is.
        factors = [tensor for name, tensor in weights.items() if "lora_B" in name]
        return bool(factors) and not any(bool(factor.any()) for factor in factors)
    return policy_key(initial.model, _precision(trainer.config), weights) == before


def _changed(report: TrainingReport, config: DPOConfig) -> TrainingReport:
    """The report of a training that changed the policy. Raises InputError for any other."""
    if not report.unchanged:
        return report
    rate = config.learning_rate
    raise InputError(
        f"{report.policy} is the initial policy, bit for bit: {report.steps} optimizer steps on "
        f"{report.n_pairs} pairs at learning rates up to {rate:g} changed no weight; raise "
        f"learning_rate (scdpo train --redo --set train.learning_rate={10 * rate:g}) and look "
        "whether the two sides of the pairs differ (scdpo show --kind pairs)"
    )


def _figures(
    trainer: PreferenceTrainer, data: _Data, policy: Policy, folder: TrainingFolder
) -> dict[str, Any]:
    """What a report says about a training that is done; every process has to call it."""
    kinds = [pair.kind for pair in trainer.pairs]
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    before = trainer.reference.heldout
    after = trainer.score_all(*pair_sides(data.held.pairs), initial=False)
    return {
        "policy": str(folder.policy),
        "initial_policy": policy.name,
        "n_pairs": len(kinds),
        "n_naive": kinds.count("naive"),
        "n_step_controlled": kinds.count("step_controlled"),
        "dropped": data.train.dropped,
        "heldout_dropped": data.held.dropped,
        "steps": trainer.state.global_step,
        "reference_seconds": trainer.reference.seconds,
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "heldout_before": preference_metrics(before, before, trainer.config.beta),
        "heldout_after": preference_metrics(after, before, trainer.config.beta),
        "computation": trainer.computation,
        "tokens_saved": trainer.tokens_saved,
        "references_computed": trainer.references.computed,
        "references_reused": trainer.references.reused,
    }


def preference_metrics(
    policy_logps: Sequence[float], reference: Sequence[float], beta: float
) -> PreferenceMetrics | None:
    """Metrics of n pairs from 2n log-probs (chosen, rejected, chosen, …); None for no pairs."""
    if not policy_logps:
        return None
    policy_chosen, policy_rejected = (
        torch.tensor(policy_logps, dtype=torch.float64).view(-1, 2).unbind(1)
    )
    ref_chosen, ref_rejected = torch.tensor(reference, dtype=torch.float64).view(-1, 2).unbind(1)
    out = dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return PreferenceMetrics(
        n_pairs=len(out.loss_B),
        loss=out.loss_B.mean().item(),
        margin=out.margin_B.mean().item(),
        accuracy=out.won_B.mean().item(),
        chosen_likelier=(policy_chosen > policy_rejected).float().mean().item(),
    )


def _tokenise(policy: Policy, pairs: Sequence[Pair], config: DPOConfig) -> Tokenised:
    tokenised = tokenise(
        pairs,
        policy.encode,
        max_length=context_length(policy, config.max_length),
        score_output=config.score_output,
        score_shared=config.score_shared,
    )
    size = embedding_count(policy.model)
    for pair in tokenised.pairs:
        largest = max(max(pair.chosen[0]), max(pair.rejected[0]))
        if largest >= size:
            raise InputError(
                f"pair {pair.pair_id}: token id {largest}, but {policy.name} has {size} tokens:"
                " was it sampled from another policy?"
            )
    return tokenised


def _nothing_left(n_pairs: int, dropped: dict[str, int]) -> str:
    if not n_pairs:
        return "no pairs to train on"
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
    return f"none of {n_pairs} pairs can be trained on: {reasons}"


def _fingerprint(
    config: DPOConfig,
    train: Sequence[PairTokens],
    held: Sequence[PairTokens],
    weights: str,
) -> str:
    digest = hashlib.sha256(config.model_dump_json().encode())
    for sequence in (*pair_sides(train)[0], *pair_sides(held)[0]):
        digest.update(sequence_key(sequence, weights).encode())
    digest.update(str((len(train), len(held))).encode())
    return digest.hexdigest()


def _precision(config: DPOConfig) -> str:
    """What reference log-probs depend on besides weights and tokens."""
    precision = "bf16 autocast" if config.bf16 and torch.cuda.is_available() else "fp32"
    return f"{precision}, nf4" if config.lora and config.lora.quantize else precision
