"""Preference training (arXiv 2407.00782, Sec. 3.3): a policy, its pairs, a trained policy."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from scdpo.errors import InputError
from scdpo.policies import Policy, load_policy, save_policy
from scdpo.records import Pair
from scdpo.training.checkpoints import Progress, TrainingFolder, fit
from scdpo.training.collate import (
    MaskedIds,
    PairDataset,
    SequenceBatch,
    score,
    takes_logits_to_keep,
)
from scdpo.training.dpo_config import DPOConfig, PreferenceMetrics, TrainingReport
from scdpo.training.losses import dpo_loss
from scdpo.training.pair_trainer import PairTrainer
from scdpo.training.references import (
    ReferenceCache,
    policy_key,
    reference_logps,
    score_sequences,
    sequence_key,
)
from scdpo.training.subnormals import subnormals_as_zero
from scdpo.training.tokens import PairTokens, Tokenised, tokenise

__all__ = ["DPOConfig", "PreferenceMetrics", "TrainingReport", "preference_metrics", "train_dpo"]


@subnormals_as_zero()
def train_dpo(
    policy: str | Path,
    pairs: Sequence[Pair],
    config: DPOConfig,
    out: Path,
    *,
    heldout: Sequence[Pair] = (),
    references: Path | None = None,
    progress: Progress | None = None,
) -> TrainingReport:
    """Train `policy` on preference pairs; its initial weights are the reference policy.

    The trained policy is written to `out/policy`. A training that was killed goes on from its
    last checkpoint when it is called again in the same way; one that is finished returns its
    report. `references` is the file that keeps reference log-probs, by default in `out`;
    trainings of the same policy can share it.
    Raises InputError when no pair can be trained on, StoreError when `out` holds another
    training, PolicyError for a folder without a policy.
    """
    started = time.perf_counter()
    loaded = load_policy(policy)
    _no_dropout(loaded.model)
    train = _tokenise(loaded, pairs, config)
    if not train.pairs:
        raise InputError(_nothing_left(len(pairs), train.dropped))
    held = _tokenise(loaded, heldout, config)
    autocast = config.bf16 and torch.cuda.is_available()
    weights = policy_key(loaded.model, "bf16 autocast" if autocast else "fp32")
    folder = TrainingFolder(out, _fingerprint(config, train.pairs, held.pairs, weights))
    if done := folder.report(TrainingReport):
        return done

    scorer = _scorer(loaded.model, autocast)
    cache = ReferenceCache(references or out / "references.npz")
    rows = 2 * config.micro_batch_size
    reference = reference_logps(scorer, _sequences(train.pairs), weights, cache, rows)
    held_reference = reference_logps(scorer, _sequences(held.pairs), weights, cache, rows)
    reference_seconds = time.perf_counter() - started

    trainer = PairTrainer(
        loaded.model, PairDataset(train.pairs, _by_pair(reference)), config, folder.checkpoints
    )
    resumed_at_step = fit(trainer, folder, progress)
    loaded.model.train(False)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    after = score_sequences(scorer, _sequences(held.pairs), rows)
    save_policy(loaded, folder.policy)
    report = TrainingReport(
        policy=str(folder.policy),
        initial_policy=str(policy),
        n_pairs=len(train.pairs),
        n_naive=sum(pair.kind == "naive" for pair in train.pairs),
        n_step_controlled=sum(pair.kind == "step_controlled" for pair in train.pairs),
        dropped=train.dropped,
        steps=trainer.state.global_step,
        resumed_at_step=resumed_at_step,
        seconds=time.perf_counter() - started,
        reference_seconds=reference_seconds,
        first_loss=losses[0],
        final_loss=losses[-1],
        heldout_dropped=held.dropped,
        heldout_before=preference_metrics(held_reference, held_reference, config.beta),
        heldout_after=preference_metrics(after, held_reference, config.beta),
    )
    folder.finish(report)
    return report


def preference_metrics(
    policy_logps: Sequence[float], reference: Sequence[float], beta: float
) -> PreferenceMetrics | None:
    """Metrics of n pairs from 2n log-probs (all chosen ones first); None when there are none."""
    if not policy_logps:
        return None
    policy_chosen, policy_rejected = torch.tensor(policy_logps).chunk(2)
    ref_chosen, ref_rejected = torch.tensor(reference).chunk(2)
    out = dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return PreferenceMetrics(
        n_pairs=len(out.loss_B),
        loss=out.loss_B.mean().item(),
        margin=out.margin_B.mean().item(),
        accuracy=out.won_B.mean().item(),
        chosen_likelier=(policy_chosen > policy_rejected).float().mean().item(),
    )


def _tokenise(policy: Policy, pairs: Sequence[Pair], config: DPOConfig) -> Tokenised:
    context = getattr(policy.model.config, "max_position_embeddings", None)
    tokenised = tokenise(
        pairs,
        policy.encode,
        max_length=min(config.max_length, context or config.max_length),
        score_output=config.score_output,
    )
    embeddings = policy.model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    for pair in tokenised.pairs:
        largest = max(max(pair.chosen[0]), max(pair.rejected[0]))
        if largest >= embeddings.num_embeddings:
            raise InputError(
                f"pair {pair.pair_id}: token id {largest}, but {policy.name} has"
                f" {embeddings.num_embeddings} tokens: was it sampled from another policy?"
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
    for sequence in (*_sequences(train), *_sequences(held)):
        digest.update(sequence_key(sequence, weights).encode())
    digest.update(str((len(train), len(held))).encode())
    return digest.hexdigest()


def _scorer(model: PreTrainedModel, autocast: bool) -> Callable[[SequenceBatch], Tensor]:
    """Scores batches with the model as it then is, in the number format of the training."""
    partial = takes_logits_to_keep(model)

    def scorer(batch: SequenceBatch) -> Tensor:
        on_device = SequenceBatch(
            input_ids=batch["input_ids"].to(model.device),
            mask=batch["mask"].to(model.device),
            keep=batch["keep"],
        )
        context: AbstractContextManager[Any] = (
            torch.autocast("cuda", torch.bfloat16) if autocast else nullcontext()
        )
        with context:
            return score(model, on_device, partial=partial)

    return scorer


def _no_dropout(model: PreTrainedModel) -> None:
    """Turn dropout off for good: policy and reference have to be the same function."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            vars(module)["attention_dropout"] = 0.0


def _sequences(pairs: Sequence[PairTokens]) -> Sequence[MaskedIds]:
    """All chosen sequences, then all rejected ones."""
    return [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]


def _by_pair(logps: Sequence[float]) -> list[tuple[float, float]]:
    half = len(logps) // 2
    return list(zip(logps[:half], logps[half:], strict=True))
