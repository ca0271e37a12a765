"""What a training leaves in its folder so that it can be stopped at any moment and go on.

OUT/training.json      a hash of what is trained, on what and how
OUT/checkpoints/       the Trainer's last checkpoint, while the training is unfinished
OUT/log.jsonl          one row per optimizer step
OUT/policy/            the trained policy
OUT/report.json        written last: the training is finished
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar

from scdpo.errors import ScdpoError, StoreError
from scdpo.policies import Policy
from scdpo.records import Record
from scdpo.training.scoring import model_inside

R = TypeVar("R", bound=Record)
Progress = Callable[[int, int], None]
"""Called with the number of optimizer steps done and their total."""


class TrainingFolder:
    """The folder of one training; creating it claims the folder for `fingerprint`.

    Raises StoreError when the folder holds a training that another fingerprint belongs to.
    """

    def __init__(self, path: Path, fingerprint: str):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.policy = path / "policy"
        self.log = path / "log.jsonl"
        self._report = path / "report.json"
        path.mkdir(parents=True, exist_ok=True)
        claim = path / "training.json"
        if not claim.exists():
            _write(claim, json.dumps({"fingerprint": fingerprint}))
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
        """Write the report and drop the checkpoints."""
        _write(self._report, report.model_dump_json(indent=2) + "\n")
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def last_checkpoint(self) -> str | None:
        """The newest whole checkpoint: its state file, written last, is there and readable."""
        found: list[tuple[int, Path]] = []
        for path in self.checkpoints.glob("checkpoint-*"):
            step = re.fullmatch(r"checkpoint-(\d+)", path.name)
            if step and _is_json(path / "trainer_state.json"):
                found.append((int(step[1]), path))
        return str(max(found)[1]) if found else None


class AtBegin(TrainerCallback):
    """Calls `begin` when the model is prepared and before the first step, also when resuming."""

    def __init__(self, begin: Callable[[], None]):
        self.begin = begin

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Call it."""
        self.begin()


class StepLog(TrainerCallback):
    """Writes every logged step to a JSONL file, which a resumed training cuts to its start.

    Raises ScdpoError at the first loss that is not finite.
    """

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin the file with the steps that the checkpoint knows of."""
        _write(self.path, "".join(json.dumps(row) + "\n" for row in state.log_history))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Append a step."""
        row = state.log_history[-1]
        if "loss" not in row:
            return
        if not abs(row["loss"]) < float("inf"):
            raise ScdpoError(
                f"the loss is {row['loss']} at step {row['step']}: lower learning_rate"
            )
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class ReportProgress(TrainerCallback):
    """Calls `progress` after every optimizer step, and once at the start."""

    def __init__(self, progress: Progress):
        self.progress = progress

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Report where the training stands."""
        self.progress(state.global_step, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Report a step."""
        self.progress(state.global_step, state.max_steps)


def fit(trainer: Trainer, folder: TrainingFolder, progress: Progress | None) -> int:
    """Train to the end from the last checkpoint; returns the step that it stood at."""
    disable_progress_bar()  # type: ignore[no-untyped-call]  # saving weights would print a bar of its own among ours
    if trainer.is_world_process_zero():
        trainer.add_callback(StepLog(folder.log))
        if progress is not None:
            trainer.add_callback(ReportProgress(progress))
    checkpoint = folder.last_checkpoint()
    trainer.accelerator.wait_for_everyone()
    trainer.train(resume_from_checkpoint=checkpoint)
    return int(checkpoint.rpartition("-")[2]) if checkpoint else 0


def save_trained(trainer: Trainer, policy: Policy, path: Path) -> None:
    """Write the trained model (an adapter alone, where there is one) and the tokenizer.

    Sharded weights are gathered first, so every process has to call it.
    """
    wrapped = trainer.model_wrapped
    weights = trainer.accelerator.get_state_dict(wrapped)
    if trainer.is_world_process_zero():
        model_inside(wrapped).save_pretrained(path, state_dict=weights)
        policy.tokenizer.save_pretrained(path)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True
