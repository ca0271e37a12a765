"""Step-controlled pairs from an engine of your own, and a policy trained on them.

An engine is any object with the members of `scdpo.EngineProtocol`. This one passes every request
on to the engine in this process and counts the tokens; yours would call a server.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import scdpo


class CountingEngine:
    """Completions from another engine, whose tokens it counts."""

    def __init__(self, policy: str) -> None:
        self.inner = scdpo.Engine(policy)
        self.name = "counting"
        self.max_context = self.inner.max_context
        self.tokens = 0

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        """Token ids of a text; `start` adds what begins every text."""
        return self.inner.encode(text, start=start)

    async def generate(
        self, requests: Sequence[scdpo.engines.Request]
    ) -> list[scdpo.engines.Completion]:
        """Complete every request, in order."""
        completions = await self.inner.generate(requests)
        self.tokens += sum(len(completion.token_ids) for completion in completions)
        return completions

    def clear(self) -> None:
        """Forget what earlier calls left behind."""
        self.inner.clear()

    def close(self) -> None:
        """Free what the engine holds."""
        self.inner.close()


def main(out: str) -> None:
    """Sample, branch, pair and train on a few embedded problems."""
    problems = scdpo.load_problems("embedded", split="train", limit=16)
    # An engine of one's own states no format; this is how the embedded policy writes.
    format = scdpo.get_format("blocks", system="")
    engine = CountingEngine("embedded")
    with scdpo.Sandbox() as box:
        solutions = scdpo.sample(problems, engine, sandbox=box, format=format, max_attempts=8)
        branches = scdpo.branch(
            solutions, engine, sandbox=box, format=format, schedule=scdpo.Schedule(1.1, 0.05, 1.4)
        )
    engine.close()
    pairs = scdpo.pair(solutions, branches)
    report = scdpo.train("embedded", pairs, out=out, beta=0.1, learning_rate=2e-5, batch_size=8)
    print(f"{engine.tokens:,} tokens, {len(solutions)} solutions, {len(branches)} branches")
    print(f"{report.n_pairs} pairs, loss {report.first_loss:.3f} → {report.final_loss:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
