"""Batched decoding with a causal language model over preallocated keys and values."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from scdpo.engines.base import CompletionFinish, Request
from scdpo.engines.draws import seed_words, uniforms
from scdpo.engines.kv import KVRows, KVShape, kv_shape
from scdpo.engines.prefix import PrefixCache
from scdpo.engines.sample import draw_tokens
from scdpo.engines.stops import StopWatch
from scdpo.errors import EngineError


@dataclass(slots=True, eq=False)
class DecodingRow:
    """A request being decoded; `limit` is the most tokens it may sample, at least one."""

    request: Request
    watch: StopWatch
    limit: int
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    finish: CompletionFinish = "length"

    def add(self, token: int, logp: float) -> bool:
        """Append a sampled token; returns True if it is the row's last."""
        self.ids.append(token)
        self.logps.append(logp)
        if token in self.watch.may_end:
            finish = self.watch.finish(self.ids)
            if finish is not None:
                self.finish = finish
                return True
        return len(self.ids) >= self.limit


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A distinct prompt, what the prefix cache holds of it, and the rows that share it."""

    ids: tuple[int, ...]
    segments: list[torch.Tensor]
    start: int
    rows: list[DecodingRow]

    @property
    def n_new(self) -> int:
        return len(self.ids) - self.start


class Decoder:
    """Decodes rows to their end, a batch at a time. Not thread-safe.

    The constructor raises EngineError if the model's logits with preallocated rows and 4-D masks
    differ from those of its plain forward pass.
    """

    def __init__(
        self, model: PreTrainedModel, *, max_context: int, cache_bytes: int, prefill_tokens: int
    ):
        self._model = model
        self._prefill_tokens = prefill_tokens
        self._max_context = max_context
        shape, expected = _probe(model)
        self._kv = KVRows(shape, max_context)
        self._device = shape.device
        self.prefixes = PrefixCache(cache_bytes)
        self._check(expected)

    def decode(self, rows: Sequence[DecodingRow], cancelled: threading.Event) -> None:
        """Sample every row to its end. Raises EngineError once `cancelled` is set."""
        active, logits_BV = self._prefill(rows)
        batch = _Batch(active, self._device)
        for step in itertools.count():
            if cancelled.is_set():
                raise EngineError("generation was cancelled")
            tokens_B, logps_B = batch.sample(logits_BV, step)
            done = [
                row.add(token, logp)
                for row, token, logp in zip(
                    active, tokens_B.tolist(), logps_B.tolist(), strict=True
                )
            ]
            if any(done):
                active, slots = self._drop(active, done, batch.width(step))
                if not active:
                    return
                tokens_B = tokens_B[slots]
                batch = _Batch(active, self._device)
            width = batch.width(step) + 1
            self._kv.grow(len(active), width)
            logits_BV = self._kv.forward(
                self._model,
                slice(0, len(active)),
                tokens_B[:, None],
                batch.columns(step),
                width,
            )[:, -1]

    def release(self) -> None:
        """Free the rows and the cached prefixes."""
        self.prefixes.clear()
        self._kv.release()

    def _prefill(self, rows: Sequence[DecodingRow]) -> tuple[list[DecodingRow], torch.Tensor]:
        """Rows in slot order and the logits for their first sampled token, [B, V].

        Distinct prompts come first, in ascending order of new tokens. A prompt that several rows
        share is computed once and copied.
        """
        prompts = self._distinct(rows)
        groups = _groups([prompt.n_new for prompt in prompts], self._prefill_tokens)
        widths = [
            max(p.start for p in prompts[group]) + max(p.n_new for p in prompts[group])
            for group in groups
        ]
        self._kv.allocate(len(rows), max(widths) + 1)
        logits_PV = torch.cat(
            [
                self._prefill_group(prompts, group, width)
                for group, width in zip(groups, widths, strict=True)
            ]
        )
        first = [prompt.rows[0] for prompt in prompts]
        copies = [(i, row) for i, p in enumerate(prompts) for row in p.rows[1:]]
        sources = [i for i, _ in copies]
        longest = max(len(prompt.ids) for prompt in prompts)
        self._kv.move(sources, list(range(len(first), len(rows))), longest)
        order = torch.tensor([*range(len(first)), *sources], device=self._device)
        return first + [row for _, row in copies], logits_PV[order]

    def _distinct(self, rows: Sequence[DecodingRow]) -> list[_Prompt]:
        by_ids: dict[tuple[int, ...], list[DecodingRow]] = {}
        for row in rows:
            by_ids.setdefault(row.request.prompt_ids, []).append(row)
        prompts = []
        for ids, same in by_ids.items():
            # The last token is always computed, because the first draw needs its logits.
            segments = self.prefixes.match(ids[:-1])
            prompts.append(_Prompt(ids, segments, sum(s.shape[2] for s in segments), same))
        return sorted(prompts, key=lambda prompt: (prompt.n_new, len(prompt.ids)))

    def _prefill_group(self, prompts: list[_Prompt], group: slice, width: int) -> torch.Tensor:
        """Fill the rows `group` and return the logits after their prompts, [rows, V]."""
        rows = prompts[group]
        n_new = [prompt.n_new for prompt in rows]
        ids_Bq = torch.zeros(len(rows), max(n_new), dtype=torch.long)
        for i, prompt in enumerate(rows):
            column = 0
            for segment in prompt.segments:
                n = segment.shape[2]
                self._kv.data[:, group.start + i, :, column : column + n] = segment
                column += n
            ids_Bq[i, : prompt.n_new] = torch.tensor(prompt.ids[prompt.start :])
        start_B = torch.tensor([prompt.start for prompt in rows])
        columns_Bq = start_B[:, None] + torch.arange(ids_Bq.shape[1])
        last_K, which_B = torch.unique(torch.tensor(n_new) - 1, return_inverse=True)
        logits_BKV = self._kv.forward(
            self._model,
            group,
            ids_Bq.to(self._device),
            columns_Bq.to(self._device),
            width,
            last_K.to(self._device),
        )
        return logits_BKV[torch.arange(len(rows)), which_B]

    def _drop(
        self, active: list[DecodingRow], done: list[bool], width: int
    ) -> tuple[list[DecodingRow], list[int]]:
        """Cache finished rows for later prompts and close the gaps they leave.

        `width` is the number of columns written. Returns the remaining rows and their old slots.
        """
        for slot, row in enumerate(active):
            if done[slot]:
                # The last token was drawn but never fed, so it has no keys and values yet.
                ids = (*row.request.prompt_ids, *row.ids[:-1])
                self.prefixes.insert(ids, self._kv.data[:, slot])
        n_left = len(done) - sum(done)
        holes = [slot for slot in range(n_left) if done[slot]]
        movers = [slot for slot in range(n_left, len(done)) if not done[slot]]
        self._kv.move(movers, holes, width)
        slots = list(range(n_left))
        for hole, mover in zip(holes, movers, strict=True):
            slots[hole] = mover
        return [active[slot] for slot in slots], slots

    @torch.inference_mode()
    def _check(self, expected_nV: torch.Tensor) -> None:
        """Compare padded, continued rows of unequal length with the plain forward pass."""
        ids = _probe_ids(self._model)
        n = len(ids)
        ids_Bq = torch.tensor([ids, ids], device=self._device)
        starts = torch.tensor([[n - 2], [n - 4]], device=self._device)
        steps = starts + torch.arange(2, device=self._device)
        self._kv.allocate(2, n)
        both = slice(0, 2)
        head = torch.arange(n - 2, device=self._device).expand(2, -1)
        try:
            self._kv.forward(self._model, both, ids_Bq[:, : n - 2], head, n - 2)
            tail = ids_Bq.gather(1, steps)
            got = self._kv.forward(self._model, both, tail, steps, n)[:, -1].float()
        except Exception as error:
            raise EngineError(f"{_unsupported(self._model)}: {error}") from error
        want = expected_nV[[n - 1, n - 3]]
        tolerance = 0.01 if self._kv.shape.dtype == torch.float32 else 0.3
        if float((got - want).abs().max()) > tolerance * float(want.std()) + 1e-5:
            raise EngineError(f"{_unsupported(self._model)}: its logits change")


class _Batch:
    """What the rows of a batch need at every step, in slot order.

    All rows sample in lockstep: at step i (from 0) each row draws a token, which goes into
    column i after its prompt.
    """

    def __init__(self, rows: list[DecodingRow], device: torch.device):
        requests = [row.request for row in rows]
        lengths = [len(request.prompt_ids) for request in requests]
        self._device = device
        self._longest = max(lengths, default=0)
        self._length_B1 = torch.tensor(lengths, dtype=torch.long, device=device)[:, None]
        self._words_B = seed_words([request.seed for request in requests])
        self._position_B = np.array([request.position for request in requests], dtype=np.int64)
        self._temperature_B = torch.tensor([r.temperature for r in requests], device=device)

    def sample(self, logits_BV: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and their log-probs at temperature 1, [B] each."""
        logits_BV = logits_BV.float()
        uniform_B = torch.from_numpy(uniforms(self._words_B, self._position_B + step))
        tokens_B = draw_tokens(logits_BV, self._temperature_B, uniform_B.to(self._device))
        logps_B = logits_BV.log_softmax(-1).gather(-1, tokens_B[:, None]).squeeze(-1)
        if not bool(logps_B.isfinite().all()):
            raise EngineError("the policy's logits are not finite (NaN or infinity)")
        return tokens_B, logps_B

    def columns(self, step: int) -> torch.Tensor:
        """Columns of the tokens drawn at `step`, [B, 1]."""
        return self._length_B1 + step

    def width(self, step: int) -> int:
        """Columns of the longest row before the tokens of `step` are fed."""
        return self._longest + step


def _groups(n_new: list[int], budget: int) -> list[slice]:
    """Split rows, sorted by new tokens, into groups of at most `budget` padded tokens.

    A group also ends where padding would more than double its shortest row (plus 8 tokens).
    """
    groups, first = [], 0
    for i, n in enumerate(n_new):
        if i > first and ((i + 1 - first) * n > budget or n > 2 * n_new[first] + 8):
            groups.append(slice(first, i))
            first = i
    return [*groups, slice(first, len(n_new))]


def _probe_ids(model: PreTrainedModel) -> list[int]:
    return [i % model.config.get_text_config().vocab_size for i in range(6)]


@torch.inference_mode()
def _probe(model: PreTrainedModel) -> tuple[KVShape, torch.Tensor]:
    """The shape of the model's keys and values, and its logits on the probe tokens, [6, V]."""
    cache = DynamicCache()
    ids = torch.tensor([_probe_ids(model)], device=next(model.parameters()).device)
    try:
        logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits
    except Exception as error:
        raise EngineError(f"{_unsupported(model)}: {error}") from error
    shape = kv_shape(cache)
    if shape is None:
        raise EngineError(f"{_unsupported(model)}: its layers cache different states")
    return shape, logits[0].float()


def _unsupported(model: PreTrainedModel) -> str:
    return (
        f"{type(model).__name__}: the model does not support 4-D attention masks over one plain "
        "key/value cache for all layers"
    )
