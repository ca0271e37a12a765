"""Decoding rows that begin and end at any time (continuous batching)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from scdpo.engines.decode import Batch, Decoder, DecodingRow, added


class RunningBatch:
    """Rows that enter and leave a batch between two forward passes. Not thread-safe.

    Every pass draws one token of each row. Which rows run together depends on when they came,
    so the logits of a row may differ by rounding; its draws depend on its own seed alone.
    """

    def __init__(self, decoder: Decoder):
        self._decoder = decoder
        self._batch: Batch | None = None
        self._ended: list[bool] = []
        self.rows: list[DecodingRow] = []
        """The rows in slot order; those that have ended stay until the next `change`."""
        self.passes = 0
        """Forward passes so far, without those that only read prompts."""

    def change(self, new: Sequence[DecodingRow], unwanted: Collection[DecodingRow] = ()) -> None:
        """Let rows go that have ended or are unwanted, and admit new ones.

        A row that continues one that has just ended, as the next step of its rollout does, takes
        over its keys and values where they are.
        """
        new = self._continued(new)
        done = [over or row in unwanted for row, over in zip(self.rows, self._ended, strict=True)]
        if any(done):
            written = max(len(row.request.prompt_ids) + len(row.ids) for row in self.rows) - 1
            self.rows, _ = self._decoder.drop(self.rows, done, written)
        if new:
            self._admit(new)
        self._ended = [False] * len(self.rows)
        self._batch = None

    def advance(self) -> list[DecodingRow]:
        """Draw a token of each row; returns the rows that have ended with it."""
        if self._batch is None:
            self._batch = Batch(self.rows, self._decoder.device)
            self._tokens_B = torch.tensor(
                [(row.ids or row.request.prompt_ids)[-1] for row in self.rows],
                device=self._decoder.device,
            )
        self.passes += 1
        logits_BV = self._decoder.feed(self._batch, self._tokens_B)
        self._tokens_B, logps_B = self._batch.sample(logits_BV)
        self._ended = added(self.rows, self._tokens_B, logps_B)
        return [row for row, ended in zip(self.rows, self._ended, strict=True) if ended]

    def clear(self) -> None:
        """Forget all rows."""
        self.rows, self._ended, self._batch = [], [], None

    def _continued(self, new: Sequence[DecodingRow]) -> list[DecodingRow]:
        """Put rows in the place of those that they continue; returns the others."""
        ended = {
            (row.request.seed, len(row.request.prompt_ids) + len(row.ids)): slot
            for slot, row in enumerate(self.rows)
            if self._ended[slot]
        }
        others = []
        for row in new:
            prompt = row.request.prompt_ids
            slot = ended.pop((row.request.seed, len(prompt)), None)
            if slot is not None:
                before = self.rows[slot]
                if prompt == (*before.request.prompt_ids, *before.ids):
                    self.rows[slot], self._ended[slot] = row, False
                    continue
            others.append(row)
        return others

    def _admit(self, new: Sequence[DecodingRow]) -> None:
        """Write the prompts of new rows, but for their last tokens, into the rows behind."""
        decoder, at = self._decoder, len(self.rows)
        prompts = decoder.distinct([*new], heads=True)
        known = [prompt for prompt in prompts if not prompt.n_new]
        unknown = prompts[len(known) :]
        columns = max(len(row.request.prompt_ids) for row in new)
        if unknown:
            columns = max(columns, decoder.columns_of(unknown))
        decoder.kv.grow(at + len(new), columns, keep=at)
        for slot, prompt in enumerate(known, at):
            decoder.place(prompt.segments, slot)
        if unknown:
            decoder.fill(unknown, at + len(known))
            for slot, prompt in enumerate(unknown, at + len(known)):
                # So that later rows of the same problem find it.
                decoder.prefixes.insert(prompt.ids, decoder.kv.data[:, slot])
        order, _ = decoder.copy(prompts, at)
        self.rows += order
