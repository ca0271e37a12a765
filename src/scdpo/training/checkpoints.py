"""The folder of a training, which can be stopped at any moment and resumed.

OUT/training.json      a hash of settings, examples and initial policy
OUT/checkpoints/       the Trainer's last checkpoint, while the training is unfinished
OUT/log.jsonl          one row per optimizer step
OUT/epochs/N/          the policy after epoch N, if it is asked for
OUT/policy/            the trained policy
OUT/report.json        written last: the training is finished
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from torch import Tensor
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar

from scdpo.errors import ScdpoError, StoreError
from scdpo.policies import Policy, carry_format
from scdpo.records import Record
from scdpo.store import write_atomic
from scdpo.training.processes import process_group
from scdpo.training.scoring import model_inside

R = TypeVar("R", bound=Record)


class TrainingFolder:
    """The folder of one training; creating it claims the folder for `fingerprint`.

    Raises StoreError when the folder holds a training with another fingerprint.
    """

    def __init__(self, path: Path, fingerprint: str):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.policy = path / "policy"
        self.epochs = path / "epochs"
        self.log = path / "log.jsonl"
        self._report = path / "report.json"
        path.mkdir(parents=True, exist_ok=True)
        claim = path / "training.json"
        if not claim.exists():
            write_atomic(claim, json.dumps({"fingerprint": fingerprint}))
        elif claim.read_text() != json.dumps({"fingerprint": fingerprint}):
            raise StoreError(
                f"{path}: holds a training with other settings, examples or initial policy;"
                " delete the folder or choose another"
            )

    def report(self, kind: type[R]) -> R | None:
        """The report of a finished training, or None while it is unfinished."""
        if not self._report.exists():
            return None
        try:
            return kind.model_validate_json(self._report.read_bytes())
        except ValidationError as error:
            raise StoreError(f"{self._report}: not a report of this kind of training") from error

    def finish(self, report: Record) -> None:
        """Write the report and delete the checkpoints, in the main process; all wait for it."""
        processes = process_group()
        if processes.is_main_process:
            write_atomic(self._report, report.model_dump_json(indent=2) + "\n")
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        processes.wait_for_everyone()

    def last_checkpoint(self) -> str | None:
        """The newest complete checkpoint: one whose state file, written last, can be read."""
        found: list[tuple[int, Path]] = []
        for path in self.checkpoints.glob("checkpoint-*"):
            step = re.fullmatch(r"checkpoint-(\d+)", path.name)
            if step and _is_json(path / "trainer_state.json"):
                found.append((int(step[1]), path))
        return str(max(found)[1]) if found else None


class StepLog(TrainerCallback):
    """Writes every logged step to a JSONL file; a resumed training drops the rows that it redoes.

    Raises ScdpoError at the first loss that is not finite.
    """

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the file with the steps of the checkpoint."""
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in state.log_history))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Append a step."""
        row = state.log_history[-1]
        loss = next((row[key] for key in ("loss", "heldout_loss") if key in row), None)
        if loss is None:
            return
        if not abs(loss) < float("inf"):
            raise ScdpoError(f"the loss is {loss} at step {row['step']}: lower learning_rate")
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def fit(trainer: Trainer, folder: TrainingFolder) -> int:
    """Train to the end from the last checkpoint; returns the step of that checkpoint, or 0."""
    # Saving weights would print a progress bar among ours.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    if trainer.is_world_process_zero():
        trainer.add_callback(StepLog(folder.log))
    checkpoint = folder.last_checkpoint()
    trainer.accelerator.wait_for_everyone()
    trainer.train(resume_from_checkpoint=checkpoint)
    return int(checkpoint.rpartition("-")[2]) if checkpoint else 0


def save_trained(trainer: Trainer, policy: Policy, path: Path) -> Mapping[str, Tensor]:
    """Write the trained model (or only its adapter, if it has one) and the tokenizer.

    Sharded weights are gathered first, so every process has to call it. Returns the weights; only
    in the main process are they surely whole.
    """
    wrapped = trainer.model_wrapped
    weights = trainer.accelerator.get_state_dict(wrapped)
    if trainer.is_world_process_zero():
        model_inside(wrapped).save_pretrained(path, state_dict=weights)
        policy.tokenizer.save_pretrained(path)
        carry_format(policy.name, path)
    return cast("Mapping[str, Tensor]", weights)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True
