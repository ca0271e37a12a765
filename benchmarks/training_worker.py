"""One measured training in a process of its own, for training.py.

    python benchmarks/training_worker.py JOB.json OUTCOME.json

JOB.json holds a `Job`; the process trains and writes its `Outcome`. With
`python -m torch.distributed.run --nproc_per_node 2` before it, two processes train together.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from recorded_pairs import MAX_LENGTH, read_pairs

from scdpo.policies import Policy, load_policy, load_tokenizer
from scdpo.records import Pair
from scdpo.training.config import Checkpointing
from scdpo.training.dpo_config import DPOConfig, LoraSettings
from scdpo.training.pair_batches import tree_batches
from scdpo.training.preference import train
from scdpo.training.preference_trainer import PreferenceTrainer
from scdpo.training.steps import by_question, plan_epochs
from scdpo.training.tokens import PairTokens, tokenise

BETA = 0.1
SEED = 0
MIB = 2**20

Kind = Literal["tree", "pairs", "trl", "gradient"]
Order = Literal["planned", "sorted"]


@dataclass(frozen=True, slots=True)
class Job:
    """A training to do.

    `kind` is ours over trees or over padded pairs, TRL's, or the comparison of one batch's
    gradients (`compare_gradients`). `size` is the number of pairs that go through the model
    together, `row_tokens` the rows of trees. `order` is for TRL: `planned` has the rows in the
    order of our plan, `sorted` the longest first within each optimizer step. `bf16_weights` loads
    TRL's model in bf16. `checkpointing` is that of gradients. Time is measured after `warm_up`
    optimizer steps.
    """

    kind: Kind
    policy: str
    pairs: str
    out: str
    batch_size: int
    learning_rate: float
    epochs: int = 1
    size: int = 4
    row_tokens: int = DPOConfig().row_tokens
    order: Order = "planned"
    threads: int = 2
    checkpointing: Checkpointing = False
    processes: int = 1
    gpu: bool = False
    bf16_weights: bool = False
    warm_up: int = 0


@dataclass(slots=True)
class Outcome:
    """What a training took.

    `seconds` are those from when training begins, the reference log-probs being there, (or from
    the end of the warm-up) to the end of the last optimizer step, and `tokens` those of all
    sequences of these steps, each by itself; `cpu_seconds` is the processor time of these steps,
    which a busy machine changes less; `reference_seconds` are those of the reference log-probs,
    with trying how trees can be computed. `before_mib` is the memory in use when training begins
    and `peak_mib` the most of the process until its last step ended: resident memory, or on a GPU
    that of tensors there. `micro_batches` is how many there are of an optimizer step, the fewest.
    `losses` is one of each optimizer step. `apart` is the relative difference of two gradients
    (kind `gradient`, whose `losses` are those of trees and of pairs).
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    reference_seconds: float = 0.0
    before_mib: float = 0.0
    peak_mib: float = 0.0
    tokens: int = 0
    micro_batches: int = 0
    losses: tuple[float, ...] = ()
    computation: str = ""
    apart: float = 0.0


class Meter:
    """Time and memory of a training up to the end of its last step."""

    def __init__(self, warm_up: int) -> None:
        self.outcome = Outcome()
        self._warm_up = warm_up
        self._started = self._cpu_started = 0.0

    def step(self, done: int, total: int) -> None:
        """To be called with 0 at the begin, and after every step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if not done:
            self.outcome.before_mib = _memory_now()
        if done == self._warm_up:
            self._started, self._cpu_started = time.perf_counter(), time.process_time()
        elif done == total:
            self.outcome.seconds = time.perf_counter() - self._started
            self.outcome.cpu_seconds = time.process_time() - self._cpu_started
            self.outcome.peak_mib = _memory_peak()


def _memory_now() -> float:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / MIB
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def _memory_peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def settings(job: Job) -> DPOConfig:
    """Ours for a job; execution output counts, as TRL knows of none that should not."""
    return DPOConfig(
        beta=BETA,
        learning_rate=job.learning_rate,
        schedule="constant_with_warmup",
        warmup_ratio=0.0,
        epochs=job.epochs,
        batch_size=job.batch_size,
        micro_batch_size=job.size,
        row_tokens=job.row_tokens,
        computation="pairs" if job.kind == "pairs" else "tree",
        max_length=MAX_LENGTH,
        score_output=True,
        bf16=job.gpu,
        lora=LoraSettings() if job.gpu else None,
        checkpoint_steps=1_000_000,
        gradient_checkpointing=job.checkpointing,
        seed=SEED,
    )


def tokens_of(pairs: Sequence[Pair], policy: Any) -> tuple[PairTokens, ...]:
    """All pairs as token ids, in order; `policy` encodes."""
    found = tokenise(pairs, policy.encode, max_length=MAX_LENGTH, score_output=True)
    assert not any(found.dropped.values()), found.dropped
    return found.pairs


def train_ours(job: Job) -> Outcome:
    """With `train`."""
    pairs, config, meter = read_pairs(Path(job.pairs)), settings(job), Meter(job.warm_up)
    report = train(job.policy, pairs, Path(job.out), config=config, progress=meter.step)
    outcome = meter.outcome
    assert report.n_pairs == len(pairs)
    tokens = tokens_of(pairs, _encoder(job.policy))
    outcome.tokens = _n_tokens(tokens, job)
    outcome.micro_batches = _micro_batches(job, tokens)
    outcome.reference_seconds = report.reference_seconds
    outcome.computation = report.computation
    rows = (Path(job.out) / "log.jsonl").read_text().splitlines()
    outcome.losses = tuple(json.loads(row)["loss"] for row in rows)
    return outcome


def _encoder(policy: str) -> Policy:
    """A policy that can only encode."""
    return Policy(name="", model=None, tokenizer=load_tokenizer(policy))  # type: ignore[arg-type]


def _plan(tokens: Sequence[PairTokens], job: Job) -> list[tuple[int, ...]]:
    """The pairs of every optimizer step, as `train` plans them."""
    groups = by_question([pair.prompt_ids for pair in tokens], job.batch_size)
    plan = plan_epochs(groups, job.batch_size, job.epochs, SEED)
    steps = [step.examples for step in plan]
    assert {len(step) for step in steps} == {job.batch_size}, "steps have to be full"
    return steps


def _n_tokens(tokens: Sequence[PairTokens], job: Job) -> int:
    measured = [tokens[n] for step in _plan(tokens, job)[job.warm_up :] for n in step]
    return sum(len(pair.chosen[0]) + len(pair.rejected[0]) for pair in measured)


def _micro_batches(job: Job, tokens: Sequence[PairTokens]) -> int:
    if job.kind != "tree":
        return job.batch_size // job.size
    steps = _plan(tokens, job)
    return min(len(tree_batches(tokens, step, job.row_tokens, job.processes)) for step in steps)


def train_trl(job: Job) -> Outcome:
    """With TRL's DPOTrainer, on the same ids in the same optimizer steps."""
    import datasets
    import trl
    from transformers import PrinterCallback, TrainerCallback
    from transformers.utils.logging import disable_progress_bar

    datasets.disable_progress_bars()
    disable_progress_bar()
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_flush_denormal(True)  # as train does
    pairs, meter = read_pairs(Path(job.pairs)), Meter(job.warm_up)
    encoder = _encoder(job.policy)
    tokens = tokens_of(pairs, encoder)
    order = [n for step in _plan(tokens, job) for n in _ordered(step, tokens, job.order)]

    class Timed(trl.DPOTrainer):  # type: ignore[misc]
        def _precompute_ref_logps(self, *args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            done = super()._precompute_ref_logps(*args, **options)
            meter.outcome.reference_seconds += time.perf_counter() - started
            return done

    class Steps(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.step(0, state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.step(state.global_step, state.max_steps)

    trainer = Timed(
        model=job.policy,
        args=trl.DPOConfig(**_trl_settings(job)),
        train_dataset=datasets.Dataset.from_list([_row(pairs[n], tokens[n]) for n in order]),
        processing_class=encoder.tokenizer,
        callbacks=[Steps()],
        peft_config=_lora() if job.gpu else None,
    )
    trainer.remove_callback(PrinterCallback)
    for row, n in zip(trainer.train_dataset, order, strict=True):
        prefix = [*tokens[n].prompt_ids, *tokens[n].shared_ids]
        assert row["prompt_ids"] == prefix
        assert row["chosen_ids"] == list(tokens[n].chosen_ids)
        assert row["rejected_ids"] == list(tokens[n].rejected_ids)
    trainer.train()
    outcome = meter.outcome
    outcome.tokens = _n_tokens(tokens, job)
    outcome.micro_batches = job.batch_size // job.size
    outcome.computation = f"TRL {trl.__version__}"
    outcome.losses = tuple(row["loss"] for row in trainer.state.log_history if "loss" in row)
    return outcome


def _ordered(step: Sequence[int], tokens: Sequence[PairTokens], order: Order) -> list[int]:
    return sorted(step, key=lambda n: -tokens[n].length) if order == "sorted" else list(step)


def _row(pair: Pair, tokens: PairTokens) -> dict[str, Any]:
    texts = {
        "prompt": [pair.prompt, *(step.text + step.host_text for step in pair.shared)],
        "chosen": [step.text + step.host_text for step in pair.chosen],
        "rejected": [step.text + step.host_text for step in pair.rejected],
    }
    return {name: "".join(parts) for name, parts in texts.items()} | {"length": tokens.length}


def _trl_settings(job: Job) -> dict[str, Any]:
    weights = "bfloat16" if job.bf16_weights else "float32"
    return {
        "output_dir": job.out,
        "beta": BETA,
        "max_length": MAX_LENGTH,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 0,
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        # All epochs are in the rows, each in its own order.
        "num_train_epochs": 1,
        "per_device_train_batch_size": job.size,
        "gradient_accumulation_steps": job.batch_size // job.size,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,  # or there would be no lengths to group by
        "gradient_checkpointing": job.checkpointing,
        "precompute_ref_log_probs": True,
        # TRL turns off dropout layers but not the attention's own.
        "model_init_kwargs": {"attention_dropout": 0.0, "dtype": weights},
        "bf16": job.gpu,
        "use_cpu": not job.gpu,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
    }


def _lora() -> Any:
    from peft import LoraConfig

    ours = LoraSettings()
    return LoraConfig(
        r=ours.rank,
        lora_alpha=ours.alpha,
        target_modules=ours.targets,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def compare_gradients(job: Job) -> Outcome:
    """Loss and gradient of the first optimizer step, over trees and over pairs.

    The weights are moved away from the reference first, as its own pairs all have loss log 2.
    """
    policy = load_policy(job.policy)
    policy.model.eval()
    tokens = tokens_of(read_pairs(Path(job.pairs)), policy)
    changes: dict[str, Any] = {"computation": "tree", "attention": "flex" if job.gpu else "paths"}
    config = settings(job)
    trainers = [
        PreferenceTrainer(policy.model, tokens, config.model_copy(update=c), Path(job.out))
        for c in (changes, {"computation": "pairs"})
    ]
    for trainer in trainers:
        trainer.prepare()
    torch.manual_seed(SEED)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.01 * parameter.std() * torch.randn_like(parameter)
    losses: list[float] = []
    gradients: list[torch.Tensor] = []
    for trainer in trainers:
        policy.model.zero_grad()
        losses.append(trainer.training_step(policy.model, trainer.steps[0]).item())
        found = [p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]
        gradients.append(torch.cat(found).double())
    tree, alone = gradients
    apart = ((tree - alone).norm() / alone.norm()).item()
    return Outcome(losses=tuple(losses), apart=apart)


def main(job_file: str, outcome_file: str) -> None:
    """Do the job; of several processes the first writes."""
    job = Job(**json.loads(Path(job_file).read_text()))
    torch.set_num_threads(job.threads)
    do = {"trl": train_trl, "gradient": compare_gradients}.get(job.kind, train_ours)
    outcome = do(job)
    if job.processes > 1:
        assert torch.distributed.get_world_size() == job.processes
    if int(os.environ.get("RANK", "0")) == 0:
        Path(outcome_file).write_text(json.dumps(asdict(outcome)))
    if job.processes > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
