"""Batched decoding with a causal language model over preallocated keys and values."""

from __future__ import annotations

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
class Prompt:
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
        self.model = model
        self._prefill_tokens = prefill_tokens
        self._max_context = max_context
        shape, expected = _probe(model)
        self.kv = KVRows(shape, max_context)
        self.device = shape.device
        self.prefixes = PrefixCache(cache_bytes)
        self._check(expected)

    def decode(self, rows: Sequence[DecodingRow], cancelled: threading.Event) -> None:
        """Sample every row to its end. Raises EngineError once `cancelled` is set."""
        active, logits_BV = self._prefill(rows)
        batch = Batch(active, self.device)
        while not cancelled.is_set():
            tokens_B, logps_B = batch.sample(logits_BV)
            done = added(active, tokens_B, logps_B)
            if any(done):
                active, slots = self.drop(active, done, batch.written)
                if not active:
                    return
                tokens_B = tokens_B[slots]
                batch = Batch(active, self.device)
            logits_BV = self.feed(batch, tokens_B)
        raise EngineError("generation was cancelled")

    def feed(self, batch: Batch, tokens_B: torch.Tensor) -> torch.Tensor:
        """One forward pass: feed the last token of each row; returns the logits, [B, V]."""
        n, width = len(tokens_B), batch.written + 1
        self.kv.grow(n, width)
        rows, columns_B1 = slice(0, n), batch.columns_B1
        return self.kv.forward(self.model, rows, tokens_B[:, None], columns_B1, width)[:, -1]

    def release(self) -> None:
        """Free the rows and the cached prefixes."""
        self.prefixes.clear()
        self.kv.release()

    def _prefill(self, rows: Sequence[DecodingRow]) -> tuple[list[DecodingRow], torch.Tensor]:
        """Rows in slot order and the logits for their first sampled token, [B, V].

        Distinct prompts come first, in ascending order of new tokens. A prompt that several rows
        share is computed once and copied.
        """
        prompts = self.distinct(rows)
        self.kv.allocate(len(rows), self.columns_of(prompts) + 1)
        logits_PV = self.fill(prompts, 0)
        order, sources = self.copy(prompts, 0)
        return order, logits_PV[[*range(len(prompts)), *sources]]

    def distinct(self, rows: Sequence[DecodingRow], *, heads: bool = False) -> list[Prompt]:
        """The distinct prompts of rows, in ascending order of new tokens.

        `heads`: without their last tokens, of which else the logits are needed, so that the cache
        never provides them.
        """
        by_ids: dict[tuple[int, ...], list[DecodingRow]] = {}
        for row in rows:
            ids = row.request.prompt_ids
            by_ids.setdefault(ids[:-1] if heads else ids, []).append(row)
        prompts = []
        for ids, same in by_ids.items():
            segments = self.prefixes.match(ids if heads else ids[:-1])
            prompts.append(Prompt(ids, segments, sum(s.shape[2] for s in segments), same))
        return sorted(prompts, key=lambda prompt: (prompt.n_new, len(prompt.ids)))

    def columns_of(self, prompts: list[Prompt]) -> int:
        """Columns that `fill` writes for these prompts, padding included."""
        return max(_columns(prompts[group]) for group in self._groups(prompts))

    def fill(self, prompts: list[Prompt], at: int) -> torch.Tensor:
        """Write keys and values of prompts into the rows from `at` on.

        The rows must have `columns_of` columns. Returns the logits after the prompts, [P, V].
        """
        return torch.cat(
            [self._fill_group(prompts[g], at + g.start) for g in self._groups(prompts)]
        )

    def copy(self, prompts: list[Prompt], at: int) -> tuple[list[DecodingRow], list[int]]:
        """Copy the prompts in the rows from `at` on for all further rows that share them.

        Returns the rows in slot order, and for each of the further ones the index of its prompt.
        """
        further = [(i, row) for i, p in enumerate(prompts) for row in p.rows[1:]]
        sources = [i for i, _ in further]
        targets = range(at + len(prompts), at + len(prompts) + len(further))
        longest = max(len(prompt.ids) for prompt in prompts)
        self.kv.move([at + i for i in sources], list(targets), longest)
        return [p.rows[0] for p in prompts] + [row for _, row in further], sources

    def place(self, segments: Sequence[torch.Tensor], slot: int) -> None:
        """Write cached keys and values into a row."""
        column = 0
        for segment in segments:
            n = segment.shape[2]
            self.kv.data[:, slot, :, column : column + n] = segment
            column += n

    def _fill_group(self, prompts: list[Prompt], at: int) -> torch.Tensor:
        n_new = [prompt.n_new for prompt in prompts]
        ids_Bq = torch.zeros(len(prompts), max(n_new), dtype=torch.long)
        for i, prompt in enumerate(prompts):
            self.place(prompt.segments, at + i)
            ids_Bq[i, : prompt.n_new] = torch.tensor(prompt.ids[prompt.start :])
        start_B = torch.tensor([prompt.start for prompt in prompts])
        columns_Bq = start_B[:, None] + torch.arange(ids_Bq.shape[1])
        last_K, which_B = torch.unique(torch.tensor(n_new) - 1, return_inverse=True)
        logits_BKV = self.kv.forward(
            self.model,
            slice(at, at + len(prompts)),
            ids_Bq.to(self.device),
            columns_Bq.to(self.device),
            _columns(prompts),
            last_K.to(self.device),
        )
        return logits_BKV[torch.arange(len(prompts)), which_B]

    def _groups(self, prompts: list[Prompt]) -> list[slice]:
        return _groups([prompt.n_new for prompt in prompts], self._prefill_tokens)

    def drop(
        self, active: list[DecodingRow], done: list[bool], width: int
    ) -> tuple[list[DecodingRow], list[int]]:
        """Cache finished rows for later prompts and close the gaps they leave.

        `width` is the number of columns written. Returns the remaining rows and their old slots.
        """
        for slot, row in enumerate(active):
            if done[slot]:
                # The last token was never fed, so it has no keys and values yet.
                ids = (*row.request.prompt_ids, *row.ids)[:-1]
                self.prefixes.insert(ids, self.kv.data[:, slot])
        n_left = len(done) - sum(done)
        holes = [slot for slot in range(n_left) if done[slot]]
        movers = [slot for slot in range(n_left, len(done)) if not done[slot]]
        self.kv.move(movers, holes, width)
        slots = list(range(n_left))
        for hole, mover in zip(holes, movers, strict=True):
            slots[hole] = mover
        return [active[slot] for slot in slots], slots

    @torch.inference_mode()
    def _check(self, expected_nV: torch.Tensor) -> None:
        """Compare padded, continued rows of unequal length with the plain forward pass."""
        ids = _probe_ids(self.model)
        n = len(ids)
        ids_Bq = torch.tensor([ids, ids], device=self.device)
        starts = torch.tensor([[n - 2], [n - 4]], device=self.device)
        steps = starts + torch.arange(2, device=self.device)
        self.kv.allocate(2, n)
        both = slice(0, 2)
        head = torch.arange(n - 2, device=self.device).expand(2, -1)
        try:
            self.kv.forward(self.model, both, ids_Bq[:, : n - 2], head, n - 2)
            tail = ids_Bq.gather(1, steps)
            got = self.kv.forward(self.model, both, tail, steps, n)[:, -1].float()
        except Exception as error:
            raise EngineError(f"{_unsupported(self.model)}: {error}") from error
        want = expected_nV[[n - 1, n - 3]]
        tolerance = 0.01 if self.kv.shape.dtype == torch.float32 else 0.3
        if float((got - want).abs().max()) > tolerance * float(want.std()) + 1e-5:
            raise EngineError(f"{_unsupported(self.model)}: its logits change")


class Batch:
    """What the rows of a batch need at every pass, in slot order.

    A row's last token, which may be the last of its prompt, has been drawn but not fed: `feed`
    writes its keys and values into the column `columns_B1`, and `sample` draws the next token.
    """

    def __init__(self, rows: Sequence[DecodingRow], device: torch.device):
        requests = [row.request for row in rows]
        drawn = [len(row.ids) for row in rows]
        last = [len(request.prompt_ids) + n - 1 for request, n in zip(requests, drawn, strict=True)]
        self._device = device
        self.written = max(last, default=0)
        """Columns of the longest row whose keys and values are known."""
        self.columns_B1 = torch.tensor(last, dtype=torch.long, device=device)[:, None]
        """Columns of the rows' last tokens."""
        self._words_B = seed_words([request.seed for request in requests])
        positions = [request.position + n for request, n in zip(requests, drawn, strict=True)]
        self._position_B = np.array(positions, dtype=np.int64)
        self._temperature_B = torch.tensor([r.temperature for r in requests], device=device)

    def sample(self, logits_BV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw each row's next token; tokens and their log-probs at temperature 1, [B] each."""
        logits_BV = logits_BV.float()
        uniform_B = torch.from_numpy(uniforms(self._words_B, self._position_B))
        tokens_B = draw_tokens(logits_BV, self._temperature_B, uniform_B.to(self._device))
        logps_B = logits_BV.log_softmax(-1).gather(-1, tokens_B[:, None]).squeeze(-1)
        if not bool(logps_B.isfinite().all()):
            raise EngineError("the policy's logits are not finite (NaN or infinity)")
        self.written += 1
        self.columns_B1 = self.columns_B1 + 1
        self._position_B = self._position_B + 1
        return tokens_B, logps_B


def added(rows: Sequence[DecodingRow], tokens_B: torch.Tensor, logps_B: torch.Tensor) -> list[bool]:
    """Append a drawn token to each row; returns for each whether it was the row's last."""
    drawn = zip(rows, tokens_B.tolist(), logps_B.tolist(), strict=True)
    return [row.add(token, logp) for row, token, logp in drawn]


def _columns(prompts: list[Prompt]) -> int:
    """Columns that one forward pass over these prompts writes, padding included."""
    return max(p.start for p in prompts) + max(p.n_new for p in prompts)


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
