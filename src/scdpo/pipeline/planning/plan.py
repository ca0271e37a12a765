"""The plan of a recipe: a line for every stage, and what does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from scdpo.pipeline.planning import expected
from scdpo.pipeline.planning.advice import Advice, advise_sampling, advise_training, placed
from scdpo.pipeline.planning.expected import Questions, Sampled
from scdpo.pipeline.planning.hardware import Hardware
from scdpo.pipeline.planning.memory import (
    BF16,
    FP32,
    Launch,
    Memory,
    Sampling,
    Training,
    sampling_memory,
    training_memory,
)
from scdpo.pipeline.planning.shapes import Shape, shape_of
from scdpo.pipeline.planning.speed import decoding_rate, training_seconds
from scdpo.pipeline.planning.words import assumptions
from scdpo.pipeline.recipe import Method, Recipe
from scdpo.records import Record
from scdpo.training.dpo_config import DPOConfig
from scdpo.training.sft_config import SFTConfig
from scdpo.training.steps import plan_epochs

MIB = 2**20


class StagePlan(Record):
    """What a stage will do. `rows` are solutions to sample, examples to train on or questions to
    answer; `tokens` are computed ones, repetitions counted; `memory` is the peak on each of
    `devices` devices."""

    stage: str
    rows: int
    epochs: float | None = None
    steps: int | None = None
    tokens: int
    memory: Memory
    devices: int
    launch: Launch = "single"
    fits: bool
    advice: tuple[Advice, ...] = ()
    seconds: float


class Plan(Record):
    """The plan of a whole recipe on some hardware."""

    recipe: str
    policy: str
    parameters: int
    hardware: Hardware
    usable: float
    """Bytes of each device that can be used."""
    stages: tuple[StagePlan, ...]
    assumptions: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of all stages, one after the other."""
        return sum(stage.seconds for stage in self.stages)


def plan_recipe(
    recipe: Recipe, hardware: Hardware, *, name: str = "recipe", shape: Shape | None = None
) -> Plan:
    """Plan all stages of a recipe. `shape` takes the place of that of the recipe's policy.

    Raises InputError where the shape or the number of questions is not known.
    """
    planner = Planner(recipe, hardware, shape or shape_of(recipe.policy))
    return Plan(
        recipe=name,
        policy=recipe.policy,
        parameters=planner.shape.parameters,
        hardware=hardware,
        usable=planner.usable,
        stages=tuple(planner.stages()),
        assumptions=assumptions(planner.train_questions, hardware, recipe.plan),
    )


@dataclass
class Planner:
    """The arithmetic of one recipe's stages."""

    recipe: Recipe
    hardware: Hardware
    shape: Shape

    @property
    def usable(self) -> float:
        """Bytes of a device that can be used."""
        return self.hardware.memory * self.recipe.plan.usable_memory

    @cached_property
    def train_questions(self) -> list[Questions]:
        """The questions to sample on, by data set."""
        return expected.questions_of(self.recipe, self.recipe.problems.sources("train"))

    @cached_property
    def sampled(self) -> list[Sampled]:
        """What stages 1 and 2 find, by data set."""
        return [expected.sampled(self.recipe, questions) for questions in self.train_questions]

    def stages(self) -> Iterator[StagePlan]:
        """A line for each stage of `scdpo run`, in its order."""
        if (rows := self._sft_rows()) is not None:
            yield self._sft(rows)
        yield self._sampling("solutions", sum(s.attempts for s in self.sampled), 1.0)
        yield self._sampling("branches", sum(s.branches for s in self.sampled), 0.5)
        scored = 0.0
        for method in self.recipe.methods:
            plan = self._training(method, scored)
            scored = max(scored, self._tree_tokens(method))
            yield plan
        yield self._evaluation()

    # ---- supervised fine-tuning

    def _sft_rows(self) -> int | None:
        """Rows of `sft.data`; None if the recipe has none."""
        data = getattr(self.recipe.sft, "data", None)
        if data is None:
            return None
        known = self.recipe.plan.sft_rows or expected.rows_of(data)
        return min(known, data.limit or known)

    def _sft(self, rows: int) -> StagePlan:
        config: SFTConfig = self.recipe.sft
        batch = min(config.batch_size, rows)
        steps = max(1, round(config.epochs * (rows // batch)))
        length = expected.sft_tokens(self.recipe, self.train_questions)
        tokens = steps * batch * length
        longest = min(config.max_length, self.shape.context)
        row = max(config.pack_length or config.micro_batch_size * longest, longest)
        lora = getattr(config, "lora", None)
        training = Training(
            row=row,
            checkpointing=config.gradient_checkpointing,
            whole_logits=config.pack_length is None,
            bf16=config.bf16 and self.hardware.gpu,
            rank=lora.rank if lora else 0,
            four_bits=bool(lora and lora.quantize),
        )
        key = "sft.pack_length" if config.pack_length else "sft.micro_batch_size"
        seconds = self._seconds(tokens, length, config)
        return self._trained(
            "sft", rows, config.epochs, steps, tokens, training, seconds, key, longest
        )

    def _seconds(self, tokens: float, length: float, config: SFTConfig | DPOConfig) -> float:
        return training_seconds(
            self.shape,
            tokens,
            length,
            self.hardware,
            self.recipe.plan,
            config.gradient_checkpointing,
        )

    # ---- preference training

    def pairs(self, method: Method) -> list[tuple[Sampled, float, float]]:
        """Naive and step-controlled training pairs of a method, by data set."""
        kept = 1 - self.recipe.pairs.heldout_share
        mixture = [(s, s.naive * kept, s.step_controlled * kept) for s in self.sampled]
        if method == "scdpo":
            return mixture
        if method == "dpo":
            return [(s, naive, 0.0) for s, naive, _ in mixture]
        # Questions take turns, whatever their data set, so each has about as many pairs.
        size = sum(naive + controlled for _, naive, controlled in mixture)
        share = min(1.0, size / max(sum(s.combinations * kept for s in self.sampled), 1))
        return [(s, s.combinations * kept * share, 0.0) for s, _, _ in mixture]

    def _training(self, method: Method, scored: float) -> StagePlan:
        config = self.recipe.train
        pairs = self.pairs(method)
        n_pairs = round(sum(naive + controlled for _, naive, controlled in pairs))
        sizes = tuple(
            (max(round(min(of.naive, naive)), 1), round(naive + controlled))
            for of, naive, controlled in pairs
        )
        steps = config.epochs * _steps_of_an_epoch(sizes, config.batch_size)
        once = self._tree_tokens(method)
        length = self._mean_length()
        longest = min(config.max_length, self.shape.context)
        as_pairs = config.computation == "pairs"
        training = Training(
            row=2 * longest * config.micro_batch_size
            if as_pairs
            else max(config.row_tokens, longest),
            checkpointing=config.gradient_checkpointing,
            whole_logits=as_pairs,
            bf16=config.bf16 and self.hardware.gpu,
            rank=config.lora.rank if config.lora else 0,
            four_bits=bool(config.lora and config.lora.quantize),
            online_reference=config.reference == "online",
        )
        key = "train.micro_batch_size" if as_pairs else "train.row_tokens"
        seconds = self._seconds(once * config.epochs, length, config)
        # What an earlier method has scored for the reference is on disk.
        new = max(once - scored, 0.0) if config.reference == "cached" else once * config.epochs
        seconds += training_seconds(
            self.shape, new, length, self.hardware, self.recipe.plan, backward=False
        )
        tokens = once * config.epochs
        return self._trained(
            f"policies/{method}",
            n_pairs,
            config.epochs,
            steps,
            tokens,
            training,
            seconds,
            key,
            longest,
        )

    def _tree_tokens(self, method: Method) -> float:
        """Tokens of a method's pairs in one epoch: as trees, or each side by itself.

        A tree has its question and preferred solution once, each naive negative whole, and of each
        step-controlled negative what follows the branch step: half of it on average.
        """
        total = 0.0
        for of, naive, controlled in self.pairs(method):
            prompt, solution = of.questions.prompt, of.questions.solution
            if self.recipe.train.computation == "pairs":
                total += 2 * (naive + controlled) * (prompt + solution)
                continue
            questions = max(of.naive * (1 - self.recipe.pairs.heldout_share), 1e-9)
            each = naive / questions
            sides = 2.0 if each <= 1 else 2 * math.sqrt(each)  # both sides advance together
            total += questions * min(each, 1) * prompt
            total += questions * min(each, 1) * sides * solution + controlled * solution / 2
        return total

    def _mean_length(self) -> float:
        questions = self.train_questions
        total = sum(q.count for q in questions)
        return sum(q.count * (q.prompt + q.solution) for q in questions) / total

    def _trained(
        self,
        stage: str,
        rows: int,
        epochs: float,
        steps: int,
        tokens: float,
        training: Training,
        seconds: float,
        key: str,
        longest: int,
    ) -> StagePlan:
        """The line of a training, with the launch that fits it."""
        training = training.model_copy(update={"devices": self.hardware.count})
        training = placed(self.shape, training, self.usable)
        memory = training_memory(self.shape, training)
        fits = memory.total <= self.usable
        advice: tuple[Advice, ...] = ()
        if not fits:
            section = stage.partition("/")[0].replace("policies", "train")
            advice = advise_training(self.shape, training, self.usable, section, key, longest)
        return StagePlan(
            stage=stage,
            rows=rows,
            epochs=epochs,
            steps=steps,
            tokens=round(tokens),
            memory=memory,
            devices=training.devices,
            launch=training.launch,
            fits=fits,
            advice=advice,
            seconds=seconds,
        )

    # ---- sampling and evaluation

    def _sampling(self, stage: str, attempts: float, share: float) -> StagePlan:
        """`share` is how much of a solution an attempt writes anew."""
        config = self.recipe.sample if stage == "solutions" else self.recipe.branch
        weights = [s.attempts if stage == "solutions" else s.branches for s in self.sampled]
        lengths = [s.questions.solution for s in self.sampled]
        mean = _mean(lengths, weights)
        prompt = _mean([s.questions.prompt for s in self.sampled], weights)
        return self._decoded(
            stage,
            attempts,
            attempts * mean * share,
            config.rows,
            config.limits.context,
            prompt + mean / 2,
        )

    def _evaluation(self) -> StagePlan:
        questions = expected.questions_of(self.recipe, self.recipe.problems.sources("test"))
        policies = 1 + len(self.recipe.methods)
        count = sum(q.count for q in questions)
        tokens = policies * sum(q.count * q.solution for q in questions)
        config = self.recipe.evaluate
        length = sum(q.count * (q.prompt + q.solution / 2) for q in questions) / count
        return self._decoded(
            "evaluations",
            policies * count,
            tokens,
            config.rows,
            config.limits.context,
            length,
        )

    def _decoded(
        self,
        stage: str,
        rows: float,
        tokens: float,
        side_by_side: int,
        context: int,
        length: float,
    ) -> StagePlan:
        """The line of a stage that decodes; one device does it."""
        engine = self.recipe.engine
        number = FP32 if getattr(engine, "dtype", "float32") == "float32" else BF16
        at_once = min(side_by_side, getattr(engine, "max_rows", side_by_side), math.ceil(rows) or 1)
        longest = min(context, getattr(engine, "max_context", None) or context, self.shape.context)
        sampling = Sampling(
            rows=at_once,
            context=longest,
            number=number,
            prefill=min(getattr(engine, "prefill_tokens", 4096), at_once * longest),
            prefix_bytes=getattr(engine, "cache_mb", 0) * MIB,
        )
        memory = sampling_memory(self.shape, sampling)
        fits = memory.total <= self.usable
        rate = decoding_rate(self.shape, at_once, length, number, self.hardware, self.recipe.plan)
        return StagePlan(
            stage=stage,
            rows=round(rows),
            tokens=round(tokens),
            memory=memory,
            devices=1,
            fits=fits,
            advice=() if fits else advise_sampling(self.shape, sampling, self.usable),
            seconds=tokens / rate,
        )


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    total = sum(weights)
    if not total:
        return sum(values) / len(values)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / total


@lru_cache(maxsize=64)
def _steps_of_an_epoch(sizes: tuple[tuple[int, int], ...], batch_size: int) -> int:
    """Optimizer steps over pairs that are spread evenly over the questions of each data set;
    `sizes` are numbers of questions and of pairs."""
    groups: list[list[int]] = []
    first = 0
    for questions, total in sizes:
        for number in range(questions):
            size = total * (number + 1) // questions - total * number // questions
            pairs = range(first, first + size)
            groups += [
                list(pairs[start : start + batch_size]) for start in range(0, size, batch_size)
            ]
            first += size
    return len(plan_epochs(groups, batch_size, 1, 0))
