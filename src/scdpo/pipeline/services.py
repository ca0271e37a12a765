"""What the stages of a run share: the sandbox, the grader, and the policies' engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from scdpo.engines import EngineProtocol, LocalEngineConfig, open_engine
from scdpo.errors import PolicyError
from scdpo.evaluation import SFT
from scdpo.formats import Format, format_notes, policy_format
from scdpo.grading import Grader
from scdpo.pipeline.provenance import Environment, environment
from scdpo.pipeline.recipe import Recipe
from scdpo.policies import encode_text, load_tokenizer
from scdpo.records import Record
from scdpo.sampling import Limits, Sampler
from scdpo.sampling.endings import Row, with_endings
from scdpo.sampling.recorded import Encode
from scdpo.sandbox import ProcessSandbox
from scdpo.store import Stage
from scdpo.waiting import Counter, Progress, run, silent, uncounted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Watcher(Protocol):
    """Receives what a run works with and its progress."""

    def note(self, label: str, text: str) -> None:
        """Show a fact to the user, such as the isolation that the sandbox obtained."""
        ...

    def progress(self, name: str) -> Progress:
        """The progress callback for a piece of work that starts now."""
        ...

    def counter(self, name: str, unit: str) -> Counter:
        """The callback for a number of `unit` that grows while the work of that name goes on."""
        ...


class Silent:
    """A watcher that shows nothing."""

    def note(self, label: str, text: str) -> None:
        """Show nothing."""

    def progress(self, name: str) -> Progress:
        """Show nothing."""
        return silent

    def counter(self, name: str, unit: str) -> Counter:
        """Show nothing."""
        return uncounted


def begun_when_reported(watcher: Watcher, name: str) -> Progress:
    """A progress callback that starts the watcher's progress at its first report."""
    begun: list[Progress] = []

    def report(done: int, total: int) -> None:
        if not begun:
            begun.append(watcher.progress(name))
        begun[0](done, total)

    return report


class Services:
    """The services of a run, each started when first needed; `close` stops them.

    `engine` replaces the recipe's engine for the initial policy, and is left open.
    """

    def __init__(self, recipe: Recipe, watcher: Watcher, engine: EngineProtocol | None = None):
        self._recipe = recipe
        self._watcher = watcher
        self._engine = engine
        self._stack = ExitStack()
        self._sandbox: ProcessSandbox | None = None
        self._grader: Grader | None = None
        self._noted: set[str] = set()

    def close(self) -> None:
        """Stop what was started; closing twice does nothing."""
        self._stack.close()

    def sandbox(self) -> ProcessSandbox:
        """The executor of model-written code. Raises SandboxError."""
        if self._sandbox is None:
            self._sandbox = self._stack.enter_context(ProcessSandbox(self._recipe.sandbox))
            self._watcher.note("sandbox", self._sandbox.isolation)
        return self._sandbox

    def grader(self) -> Grader:
        """The grader of answers."""
        if self._grader is None:
            self._grader = self._stack.enter_context(Grader(self._recipe.grading))
        return self._grader

    @contextmanager
    def sampler(self, policy: str, name: str) -> Iterator[Sampler]:
        """A sampler for a policy's solutions; `name` is the policy's name in rows.

        Raises PolicyError, InputError for a format that the policy cannot write, EngineError and
        SandboxError.
        """
        format = self.format(policy)
        sandbox = self.sandbox()
        self.device()
        if self._engine is not None and name == SFT:
            yield Sampler(self._engine, format, self.grader(), sandbox, name)
            return
        engine = open_engine(policy, self._recipe.engine)
        try:
            yield Sampler(engine, format, self.grader(), sandbox, name)
        finally:
            engine.close()

    def format(self, policy: str) -> Format:
        """The format in which a policy writes: the recipe's, completed from its tokenizer.

        Raises PolicyError, and InputError for a format that the policy cannot write.
        """
        return self.format_with(self._tokenizer(policy))

    def format_with(self, tokenizer: PreTrainedTokenizerBase | None) -> Format:
        """The recipe's format, completed from a tokenizer. Raises InputError as `format` does."""
        choice = self._recipe.format
        format = policy_format(**choice.model_dump(), tokenizer=tokenizer)
        for text in format_notes(format, tokenizer, choice.chat_template):
            self._note("format", text)
        return format

    def encode(self, policy: str) -> Encode | None:
        """How a policy's tokenizer encodes texts, if it is at hand."""
        tokenizer = self._tokenizer(policy)
        return None if tokenizer is None else partial(encode_text, tokenizer)

    def _tokenizer(self, policy: str) -> PreTrainedTokenizerBase | None:
        """A policy's tokenizer; None if an engine that is not ours keeps it to itself."""
        try:
            return load_tokenizer(policy)
        except PolicyError:
            if self._engine is None and self._recipe.engine.name == LocalEngineConfig().name:
                raise
            return getattr(self._engine, "tokenizer", None)

    def _note(self, label: str, text: str) -> None:
        """Show a fact once."""
        if text not in self._noted:
            self._noted.add(text)
            self._watcher.note(label, text)

    def watched(
        self, chunks: AsyncIterator[Sequence[Row]], sampler: Sampler, limits: Limits
    ) -> AsyncIterator[Sequence[Row]]:
        """The same solutions or evaluations; it is said in one line if hardly any of them ends."""
        return with_endings(
            chunks, sampler.format, limits, lambda line: self._note("endings", line)
        )

    def device(self) -> tuple[str, int]:
        """Set torch's threads as in the recipe; returns its device and number of threads."""
        import torch

        if self._recipe.threads is not None:
            torch.set_num_threads(self._recipe.threads)
        fallback = "cuda" if torch.cuda.is_available() else "cpu"
        wanted = getattr(self._recipe.engine, "device", None)
        device, threads = wanted or fallback, torch.get_num_threads()
        self._note("device", f"{device}, {threads} threads")
        return device, threads

    def environment(self, stage: str) -> Environment:
        """The environment of a stage that starts or resumes now."""
        device, threads = self.device()
        trains = stage == "sft" or stage.startswith("policies/")
        isolation = "" if self._sandbox is None or trains else self._sandbox.isolation
        return environment(stage, device=device, threads=threads, sandbox=isolation)


def append_all(stage: Stage, chunks: AsyncIterator[Sequence[Record]], *key: str) -> None:
    """Append rows to a stage as they are made, unless it has their `key` (default `id`)."""

    async def append() -> None:
        async for rows in chunks:
            stage.append_new(rows, *key)

    run(append())
