"""Preference training (arXiv 2407.00782, Sec. 3.3): a policy, its pairs, a trained policy."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from scdpo.errors import InputError, ScdpoError
from scdpo.policies import Policy, load_policy
from scdpo.records import Pair
from scdpo.training.adapters import load_in_four_bits, save_merged, with_adapter
from scdpo.training.checkpoints import AtBegin, Progress, TrainingFolder, fit, save_trained
from scdpo.training.dpo_config import DPOConfig, PreferenceMetrics, TrainingReport
from scdpo.training.losses import dpo_loss
from scdpo.training.preference_trainer import PreferenceTrainer
from scdpo.training.probe import candidates, find_way
from scdpo.training.processes import from_main, joined, process_count
from scdpo.training.references import ReferenceCache, policy_key, reference_logps, sequence_key
from scdpo.training.scoring import attending
from scdpo.training.steps import by_question
from scdpo.training.subnormals import subnormals_as_zero
from scdpo.training.tokens import PairTokens, Tokenised, tokenise
from scdpo.training.tree import MaskedIds

__all__ = ["DPOConfig", "PreferenceMetrics", "TrainingReport", "preference_metrics", "train_dpo"]

Note = Callable[[str], None]
"""Called with one line about how a training computes."""


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
    reference_progress: Progress | None = None,
    note: Note | None = None,
) -> TrainingReport:
    """Train `policy` on preference pairs; its initial weights are the reference policy.

    The trained policy is written to `out/policy` (with an adapter merged into its weights, and
    the adapter to `out/adapter`). A training that was killed goes on from its last checkpoint
    when it is called again in the same way; one that is finished returns its report.
    `references` is the file that keeps reference log-probs, by default in `out`; trainings of
    the same policy can share it. `progress` is told of optimizer steps, `reference_progress` of
    sequences scored under the reference policy, `note` of how the training computes where that
    is not as hoped. Of several launched processes each calls this in the same way.
    Raises InputError when no pair can be trained on or the model cannot be trained as
    configured, StoreError when `out` holds another training, PolicyError for a folder without a
    policy.
    """
    started = time.perf_counter()
    processes = joined()
    loaded = _load(policy, config)
    train = _tokenise(loaded, pairs, config)
    if not train.pairs:
        raise InputError(_nothing_left(len(pairs), train.dropped))
    held = _tokenise(loaded, heldout, config)
    # Launchers may have one process alone load the weights, and hand them out later.
    weights = from_main(policy_key(loaded.model, _precision(config)))
    with processes.main_process_first():
        folder = TrainingFolder(out, _fingerprint(config, train.pairs, held.pairs, weights))
    if done := folder.report(TrainingReport):
        return done

    model = with_adapter(loaded, config.lora, config.seed) if config.lora else loaded.model
    trainer = PreferenceTrainer(model, train.pairs, config, folder.checkpoints)
    beginning = _Beginning(
        trainer,
        held.pairs,
        weights,
        references or out / "references.npz",
        reference_progress if processes.is_main_process else None,
        note,
    )
    trainer.add_callback(AtBegin(beginning))
    with beginning.attention:
        resumed_at_step = fit(trainer, folder, progress)
        after = trainer.score_all(*_sequences(held.pairs), initial=False)
    save_trained(trainer, loaded, folder.path / "adapter" if config.lora else folder.policy)
    if config.lora and processes.is_main_process:
        save_merged(policy, folder.path / "adapter", folder.policy)
    report = TrainingReport(
        policy=str(folder.policy),
        initial_policy=str(policy),
        dropped=train.dropped,
        resumed_at_step=resumed_at_step,
        seconds=time.perf_counter() - started,
        heldout_dropped=held.dropped,
        heldout_after=preference_metrics(after, beginning.heldout, config.beta),
        **_figures(trainer, beginning),
    )
    if processes.is_main_process:
        folder.finish(report)
    processes.wait_for_everyone()
    return report


class _Beginning:
    """What happens once the model is as it will be trained (sharded, say) and before the first
    step: how to compute is found out, and the reference log-probs are computed."""

    def __init__(
        self,
        trainer: PreferenceTrainer,
        heldout: Sequence[PairTokens],
        weights: str,
        references: Path,
        progress: Progress | None,
        note: Note | None,
    ):
        self.attention = ExitStack()
        self.computation = "pairs"
        self.heldout: list[float] = []
        self.seconds = 0.0
        self._trainer = trainer
        self._held = heldout
        self._weights = weights
        self._references = references
        self._progress = progress
        self._note = note or (lambda text: None)

    def __call__(self) -> None:
        """Called by the Trainer when training begins or goes on."""
        started = time.perf_counter()
        self._choose_computation()
        if self._trainer.config.compile:
            self._trainer.compile_decoder()
        sequences, questions = _sequences([*self._trainer.pairs, *self._held])
        cache = ReferenceCache(self._references)

        def score(numbers: Sequence[int]) -> list[float]:
            if self._trainer.state.global_step and not self._trainer.config.lora:
                raise ScdpoError(
                    f"{self._references}: log-probs of the initial policy are gone and the"
                    " training has moved on; delete its folder to begin again"
                )
            chosen = [sequences[n] for n in numbers], [questions[n] for n in numbers]
            return self._trainer.score_all(*chosen, initial=True, progress=self._progress)

        main = self._trainer.accelerator.is_main_process
        logps = reference_logps(score, sequences, self._weights, cache, write=main)
        n_train = 2 * len(self._trainer.pairs)
        self._trainer.reference = np.asarray(logps[:n_train], dtype=np.float64).reshape(-1, 2)
        self.heldout = logps[n_train:]
        self.seconds = time.perf_counter() - started

    def _choose_computation(self) -> None:
        trainer, config = self._trainer, self._trainer.config
        if config.computation != "pairs":
            sequences, questions = _sequences(trainer.pairs)
            groups = [[sequences[n] for n in group] for group in by_question(questions)]
            again, on_gpu = config.gradient_checkpointing, torch.cuda.is_available()
            backends = candidates(config.attention, again, on_gpu)
            trainer.way, reason = find_way(trainer.model_wrapped, groups, backends)
            if trainer.way is not None:
                self.computation = f"tree, {trainer.way.backend} attention"
            elif config.computation == "tree":
                raise InputError(f"computation: the model cannot score token trees ({reason})")
            else:
                self._note(f"every pair by itself: the model cannot score token trees ({reason})")
        backend = trainer.way.backend if trainer.way else None
        for model in filter(None, (trainer.model_wrapped, trainer.initial)):
            self.attention.enter_context(attending(model, backend))


def _figures(trainer: PreferenceTrainer, beginning: _Beginning) -> dict[str, Any]:
    """What a report says of the training itself."""
    kinds = [pair.kind for pair in trainer.pairs]
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    before = beginning.heldout
    return {
        "n_pairs": len(kinds),
        "n_naive": kinds.count("naive"),
        "n_step_controlled": kinds.count("step_controlled"),
        "steps": trainer.state.global_step,
        "reference_seconds": beginning.seconds,
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "heldout_before": preference_metrics(before, before, trainer.config.beta),
        "computation": beginning.computation,
        "tokens_saved": trainer.tokens_saved,
    }


def preference_metrics(
    policy_logps: Sequence[float], reference: Sequence[float], beta: float
) -> PreferenceMetrics | None:
    """Metrics of n pairs from 2n log-probs (chosen, rejected, chosen …), None of no pairs."""
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
    context = getattr(policy.model.config, "max_position_embeddings", None)
    tokenised = tokenise(
        pairs,
        policy.encode,
        max_length=min(config.max_length, context or config.max_length),
        score_output=config.score_output,
        score_shared=config.score_shared,
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
    for sequence in (*_sequences(train)[0], *_sequences(held)[0]):
        digest.update(sequence_key(sequence, weights).encode())
    digest.update(str((len(train), len(held))).encode())
    return digest.hexdigest()


def _load(policy: str | Path, config: DPOConfig) -> Policy:
    """The initial policy; one of several processes leaves it to the Trainer to place it."""
    device = None if process_count() == 1 else "cpu"
    four_bits = config.lora is not None and config.lora.quantize
    loaded = load_in_four_bits(policy, device) if four_bits else load_policy(policy, device=device)
    _no_dropout(loaded.model)
    return loaded


def _precision(config: DPOConfig) -> str:
    """What reference log-probs depend on beside weights and tokens."""
    precision = "bf16 autocast" if config.bf16 and torch.cuda.is_available() else "fp32"
    return f"{precision}, nf4" if config.lora and config.lora.quantize else precision


def _no_dropout(model: PreTrainedModel) -> None:
    """Turn dropout off for good: policy and reference have to be the same function."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            vars(module)["attention_dropout"] = 0.0


def _sequences(pairs: Sequence[PairTokens]) -> tuple[list[MaskedIds], list[tuple[int, ...]]]:
    """All sequences (chosen, rejected, chosen …), and the question of each."""
    sequences: list[MaskedIds] = [side for p in pairs for side in (p.chosen, p.rejected)]
    return sequences, [pair.prompt_ids for pair in pairs for _ in range(2)]
