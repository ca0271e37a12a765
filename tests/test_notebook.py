"""A session as a notebook: what a block shows, and what a block may do to its session."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter, OrderedDict, UserList, defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy

from scdpo.sandbox import (
    Execution,
    ProcessSandbox,
    SandboxConfig,
    normalise_output,
    same_output,
)
from scdpo.sandbox.notebook.pretty import pretty

CASES = json.loads((Path(__file__).parent / "cases" / "outputs.json").read_text())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(SandboxConfig(deadline=30, memory_mb=256)) as sandbox:
        yield sandbox


def play(sandbox: ProcessSandbox, *blocks: str) -> list[Execution]:
    """The executions of blocks in one session."""

    async def body() -> list[Execution]:
        session = await sandbox.session()
        try:
            return [await session.run(code) for code in blocks]
        finally:
            await session.close()

    return asyncio.run(body())


def last(sandbox: ProcessSandbox, *blocks: str) -> Execution:
    return play(sandbox, *blocks)[-1]


@pytest.mark.parametrize("case", CASES["cells"], ids=lambda c: str(c["name"]))
def test_cell_output(sandbox: ProcessSandbox, case: dict[str, Any]) -> None:
    executions = play(sandbox, *case["blocks"])
    if "outputs" in case:
        assert [e.output for e in executions] == case["outputs"]
    else:
        assert executions[-1].output == case["output"]
    assert {e.cut for e in executions} == {""}


DIVISION = """\
---------------------------------------------------------------------------
ZeroDivisionError                         Traceback (most recent call last)
Cell In[{}], line 1"""


@pytest.mark.parametrize("case", CASES["vandals"], ids=lambda c: str(c["name"]))
def test_a_block_does_not_spoil_the_next(sandbox: ProcessSandbox, case: dict[str, Any]) -> None:
    n = len(case["blocks"])
    checks = ("[1, {2: {3, 4}}]", "1 / 0", "print(7)", "import this_is_not_there")
    executions = play(sandbox, *case["blocks"], *checks)
    assert {e.cut for e in executions} == {""}
    value, error, printed, missing = (e.output for e in executions[n:])
    assert value == "[1, {2: {3, 4}}]"
    assert error.startswith(DIVISION.format(n + 2))
    assert error.endswith("ZeroDivisionError: division by zero")
    assert (printed.splitlines() or [""])[-1] == case.get("printed", "7")
    assert missing.endswith("No module named 'this_is_not_there'")


@pytest.mark.parametrize("case", CASES["compare"], ids=lambda c: str(c["name"]))
def test_same_output(case: dict[str, Any]) -> None:
    assert same_output(case["a"], case["b"]) is case["same"]
    assert same_output(case["b"], case["a"]) is case["same"]


def test_normalise_output_is_idempotent() -> None:
    for case in CASES["compare"]:
        once = normalise_output(case["a"])
        assert normalise_output(once) == once


def test_state_survives_blocks_and_errors(sandbox: ProcessSandbox) -> None:
    outputs = [e.output for e in play(sandbox, "x = 3", "x / 0", "x += 1\nx")]
    assert outputs[0] == ""
    assert outputs[1].endswith("ZeroDivisionError: division by zero")
    assert outputs[2] == "4"


def test_streams_results_and_subprocesses_keep_their_order(sandbox: ProcessSandbox) -> None:
    code = """
import os, subprocess, sys
print("one")
print("two", file=sys.stderr)
os.write(1, b"three\\n")
subprocess.run(["echo", "four"])
print("five", end="")
print("six", end="", file=sys.stderr)
"seven"
"""
    want = "one\ntwo\nthree\nfour\nfivesix\n'seven'"
    assert last(sandbox, code).output == want


def test_output_before_a_traceback_is_kept(sandbox: ProcessSandbox) -> None:
    output = last(sandbox, "print('before')\n{}['key']").output
    assert output.startswith("before\n-----")
    assert output.endswith("KeyError: 'key'")


def test_traceback_names_no_folder_of_the_machine(sandbox: ProcessSandbox) -> None:
    output = last(sandbox, "import sympy\nsympy.Rational('a', 3)").output
    assert "File sympy/core/numbers.py:" in output
    assert sys.prefix not in output


def test_traceback_of_a_deep_recursion_is_short(sandbox: ProcessSandbox) -> None:
    output = last(sandbox, "def f(n):\n    return f(n + 1)\n\nf(0)").output
    assert "RecursionError: maximum recursion depth exceeded" in output
    assert "[... skipping similar frames: f at line 2 (" in output
    assert len(output.splitlines()) < 30
    mutual = "def f(n): return g(n)\ndef g(n): return f(n)\nf(0)"
    assert "skipping" in (output := last(sandbox, mutual).output)
    assert len(output.splitlines()) < 200


def test_output_that_is_not_utf8(sandbox: ProcessSandbox) -> None:
    assert last(sandbox, "import os\nn = os.write(1, b'\\xff\\xfea\\n')").output == "��a"
    assert last(sandbox, "print('\\ud800')").output == "\\ud800"


def test_code_with_a_lone_surrogate_or_nul_is_an_error_of_the_block(
    sandbox: ProcessSandbox,
) -> None:
    for code in ("x = '\ud800'", "x = 1\0"):
        execution = last(sandbox, code)
        assert "Error" in execution.output
        assert execution.cut == ""


def test_plotting_is_silent(sandbox: ProcessSandbox) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    with ProcessSandbox(SandboxConfig(deadline=60, preload=("numpy",))) as patient:
        execution = last(patient, code)
    assert (execution.output, execution.cut) == ("", "")


def test_system_exit_ends_the_block_only(sandbox: ProcessSandbox) -> None:
    executions = play(sandbox, "import sys\nx = 5", "sys.exit(3)", "exit()", "x")
    assert executions[1].output.endswith("SystemExit: 3")
    assert executions[3].output == "5"


def test_replaced_and_closed_streams_heal(sandbox: ProcessSandbox) -> None:
    close = "import os, sys\nos.close(1); os.close(2)"
    executions = play(sandbox, close, "print(1)", "sys.stdout.close()", "print(2)")
    assert [e.output for e in executions[1::2]] == ["1", "2"]


def test_figures_end_with_their_block() -> None:
    drawn = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nplt.get_fignums()"
    with ProcessSandbox(SandboxConfig(deadline=60, preload=("numpy",))) as patient:
        outputs = [e.output for e in play(patient, drawn, "plt.get_fignums()")]
    assert outputs == ["[1]", "[]"]


def test_text_held_back_is_written_once_by_whoever_printed_it(sandbox: ProcessSandbox) -> None:
    code = """
import os
print("one ", end="")
child = os.fork()
if child == 0:
    print("child ", end="", flush=True)
    os._exit(0)
n = os.waitpid(child, 0)
print("two")
"""
    assert last(sandbox, code).output == "one child two"


def test_text_of_several_threads_is_whole(sandbox: ProcessSandbox) -> None:
    code = """
import threading
def work(n):
    for i in range(200):
        print(f"{n}:{i};", end="" if i % 3 else "\\n")
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
"""
    found = last(sandbox, code).output.replace("\n", "").split(";")
    assert sorted(found) == sorted(["", *(f"{n}:{i}" for n in range(4) for i in range(200))])


def test_a_clone_keeps_a_replaced_stream_and_the_history(sandbox: ProcessSandbox) -> None:
    async def body() -> list[str]:
        session = await sandbox.session()
        await session.run("import io, sys\nkept, sys.stdout = sys.stdout, io.StringIO()\n5")
        copy = await session.clone()
        blocks = ("print('x')\n_ + Out[1]", "sys.stdout.getvalue()", "sys.stdout = kept\nprint(7)")
        outputs = [(await copy.run(code)).output for code in blocks]
        await session.close()
        await copy.close()
        return outputs

    assert asyncio.run(body()) == ["10", "'x\\n'", "7"]


def random_value(rng: random.Random, depth: int) -> Any:
    """Containers in containers, with values of one and of several lines in them."""
    if depth == 0 or rng.random() < 0.25:
        x = sympy.Symbol("x")
        values = (rng.randrange(10 ** rng.randrange(1, 30)), rng.random(), "s" * rng.randrange(40))
        lines = (sympy.Matrix(2, 2, range(4)), np.arange(rng.randrange(60)), np.eye(3), x**2 + 1)
        return rng.choice([*values, *lines, None, int, len, b"b", ValueError("a", 10**20)])
    length = rng.choice([0, 1, 2, 2, 3, 4, 6, 12])
    inner = [random_value(rng, depth - 1) for _ in range(length)]
    keys = [rng.choice([rng.randrange(99), "k" * rng.randrange(30), (7, "z" * 9)]) for _ in inner]
    pairs = dict(zip(keys, inner, strict=True))
    makers: list[Any] = [list, tuple, deque, UserList, lambda v: deque(v, 40), Exception]
    made = [maker(inner) for maker in makers]
    return rng.choice([*made, pairs, OrderedDict(pairs), defaultdict(list, pairs), Counter(keys)])


def test_values_are_laid_out_as_by_ipython() -> None:
    theirs = pytest.importorskip("IPython.lib.pretty", reason="IPython is not installed")
    for seed in range(500):
        value = random_value(random.Random(seed), 3)
        assert pretty(value) == theirs.pretty(value)
