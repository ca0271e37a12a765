"""A policy that never ends its solutions: said once, in one line, with figures and a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scdpo.cli import main
from scdpo.formats import get_format
from scdpo.records import Evaluation, Verdict
from scdpo.sampling import Limits
from scdpo.sampling.endings import endings, with_endings
from small_runs import write_recipe

FENCED = get_format("fenced", end="<|im_end|>")
LIMITS = Limits(max_steps=8, step_tokens=64, context=512)
PROSE = "".join(f"Then {n} and {n * n} make {n + n * n}. " for n in range(60))


def test_nothing_is_said_while_solutions_end() -> None:
    some = [("finished", "a<|im_end|>")] * 2 + [("context", PROSE)] * 8
    assert endings(some, FENCED, LIMITS) is None
    assert endings([], FENCED, LIMITS) is None


REASONS = {
    "never written": (
        [("step_tokens", PROSE)] * 9 + [("context", PROSE)],
        "0 of 10 solutions ended; cut: 9 at limits.step_tokens 64, 1 at limits.context 512; "
        "<|im_end|> was never written: the policy may not have learned it",
    ),
    "another marker": (
        [("max_steps", f"4<|eot_id|>{PROSE}")] * 3 + [("max_steps", PROSE)],
        "cut: 4 at limits.max_steps 8; 3 of the cut contain <|eot_id|>: if that ends a solution",
    ),
    "a loop": (
        [("context", PROSE + "So it is 7. " * 9)] * 3 + [("context", PROSE)],
        "3 of the cut repeat themselves to the end: larger limits would not help",
    ),
    "too small": (
        [("finished", "a<|im_end|>")] + [("step_tokens", PROSE)] * 9,
        "1 of 10 solutions ended; cut: 9 at limits.step_tokens 64; the limits may be too small",
    ),
    "its own markers are no reason": (
        [("max_steps", f"<|text|>{n}<|endofblock|>{PROSE}") for n in range(4)],
        "<|endofmessage|> was never written",
    ),
}


@pytest.mark.parametrize(("solutions", "line"), REASONS.values(), ids=REASONS)
def test_the_likely_reason(solutions: list[tuple[str, str]], line: str) -> None:
    format = get_format("blocks") if "<|text|>" in solutions[0][1] else FENCED
    found = endings(solutions, format, LIMITS)
    assert found is not None
    assert line in found


def row(finish: Any) -> Evaluation:
    return Evaluation(
        problem_id="p",
        dataset="d",
        policy="x",
        gold="1",
        answer=None,
        verdict=Verdict(name="undecided", reason="unfinished"),
        finish=finish,
        n_steps=1,
        n_tokens=1,
        text=PROSE,
    )


def watched(sizes: list[int], finish: str = "context") -> list[tuple[int, list[str]]]:
    """After each chunk, how many rows have come through and what has been said."""
    notes: list[str] = []

    async def chunks() -> AsyncIterator[list[Evaluation]]:
        for size in sizes:
            yield [row(finish)] * size

    async def go() -> list[tuple[int, list[str]]]:
        through = with_endings(chunks(), FENCED, LIMITS, notes.append)
        seen = [(len(rows), list(notes)) async for rows in through]
        return [*seen, (0, list(notes))]

    return asyncio.run(go())


def test_it_is_said_once_after_enough_or_after_all() -> None:
    few = watched([8, 8])
    assert [n for n, _ in few] == [8, 8, 0]
    assert [len(said) for _, said in few] == [0, 0, 1]
    assert few[-1][1][0].startswith("0 of 16 solutions ended")
    many = watched([16, 16, 16])
    assert [len(said) for _, said in many] == [0, 0, 1, 1]
    assert many[-1][1][0].startswith("0 of 32 solutions ended")
    assert watched([30], "finished")[-1] == (0, [])


def test_a_run_says_it_while_it_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded policy never writes the end of another model."""
    path = write_recipe(
        tmp_path / "my.yaml",
        format={"name": "plain", "end": "<|im_end|>", "system": None},
        sample={"max_attempts": 1, "limits": {"max_steps": 1, "step_tokens": 4, "context": 512}},
    )
    with pytest.raises(SystemExit) as end:
        main(["sample", str(tmp_path / "run"), "--recipe", path])
    assert not end.value.code
    err = capsys.readouterr().err
    assert "endings   0 of 3 solutions ended; cut: " in err
    assert "<|im_end|>: no single token of the policy's tokenizer" in err
