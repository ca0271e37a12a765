"""What a run records of a training: a row for its policy, and the counts of its stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scdpo.policies import policy_hash
from scdpo.records import Record
from scdpo.training.dpo_config import TrainingReport
from scdpo.training.sft_config import SFTReport


class TrainedPolicy(Record):
    """The result of a training: the hash of the trained policy, the pairs used, and the first and
    final loss (nats)."""

    policy: str
    weights: str
    n_pairs: int
    n_naive: int
    n_step_controlled: int
    steps: int
    first_loss: float
    final_loss: float


def trained_policy(method: str, report: TrainingReport, path: Path) -> TrainedPolicy:
    """The row of a training stage, from its report; `path` is the stage's folder."""
    return TrainedPolicy(
        policy=method,
        weights=policy_hash(path / "policy"),
        n_pairs=report.n_pairs,
        n_naive=report.n_naive,
        n_step_controlled=report.n_step_controlled,
        steps=report.steps,
        first_loss=report.first_loss,
        final_loss=report.final_loss,
    )


class EpochScore(Record):
    """The greedy accuracy of the policy after an epoch of fine-tuning on n validation questions,
    and whether that policy was kept."""

    epoch: int
    correct: int
    n: int
    kept: bool


class FineTunedPolicy(Record):
    """The result of the stage `sft`: the hash of the run's initial policy, the solutions that it
    was trained on, the first and final loss (nats per token), and which epoch was kept: the last,
    or the best of `epochs`."""

    policy: str
    weights: str
    n_examples: int
    steps: int
    first_loss: float
    final_loss: float
    epochs: tuple[EpochScore, ...] = ()


def fine_tuned_policy(
    report: SFTReport, path: Path, epochs: Sequence[EpochScore] = ()
) -> FineTunedPolicy:
    """The row of the stage `sft`, from its report; `path` is the stage's folder."""
    return FineTunedPolicy(
        policy="sft",
        weights=policy_hash(path / "policy"),
        n_examples=report.n_examples,
        steps=report.steps,
        first_loss=report.first_loss,
        final_loss=report.final_loss,
        epochs=tuple(epochs),
    )


def fine_tuning_counts(
    report: SFTReport, epochs: Sequence[EpochScore] = ()
) -> dict[str, int | float]:
    """The counts in the manifest of the stage `sft`."""
    counts: dict[str, int | float] = {
        "solutions": report.n_examples,
        "steps": report.steps,
        "tokens": report.tokens,
        "first_loss": round(report.first_loss, 4),
        "final_loss": round(report.final_loss, 4),
    }
    if report.heldout:
        counts["heldout"] = report.n_heldout
        counts["heldout_loss_before"] = round(report.heldout[0].loss, 4)
        counts["heldout_loss_after"] = round(report.heldout[-1].loss, 4)
    for score in epochs:
        if score.kept:
            counts["kept_epoch"] = score.epoch
    return counts | {f"dropped:{k}": n for k, n in report.dropped.items() if n}


def training_counts(report: TrainingReport) -> dict[str, int | float]:
    """The counts in the manifest of a training stage."""
    counts: dict[str, int | float] = {
        "pairs": report.n_pairs,
        "steps": report.steps,
        "first_loss": round(report.first_loss, 4),
        "final_loss": round(report.final_loss, 4),
    }
    if report.tokens_saved:
        counts["tokens_saved"] = round(report.tokens_saved, 3)
    return counts | {f"dropped:{k}": n for k, n in report.dropped.items()}
