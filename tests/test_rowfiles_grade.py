"""`scdpo grade`: which rows come out, how a file is resumed, and the messages in one line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import row_files
from row_files import read, write
from scdpo.errors import ScdpoError, StoreError
from scdpo.errors.validation import settings_from_options
from scdpo.grading import GradingConfig
from scdpo.rowfiles import GradeSummary, grade_rows, grade_rows_async
from small_runs import fail, succeed
from test_cli import mounted, resize

Capture = pytest.CaptureFixture[str]
CONFIG = GradingConfig(workers=1)
COMMAND = (*row_files.COMMAND, "grade")
command = partial(row_files.command, "grade")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths belong to the test."""
    monkeypatch.chdir(tmp_path)


def sums(n: int) -> list[dict[str, Any]]:
    """Rows of which every third is right, every third wrong, and every third without answer."""
    predictions = (lambda i: i, lambda i: i + 1, lambda i: None)
    return [{"id": i, "answer": i, "prediction": predictions[i % 3](i)} for i in range(n)]


def done(file: str, out: str = "out.jsonl", config: GradingConfig = CONFIG) -> GradeSummary:
    """Judge a file's rows into another."""
    return grade_rows(file, Path(out), config)


# ---- rows


def test_rows_keep_their_order_and_their_other_keys_to_the_byte() -> None:
    lines = [
        b'{"id": 7, "answer": 15, "solution": "It is \\\\boxed{15}.", "w": 1.50}',
        b'{"prediction":"\xc3\xa9" ,"answer" : "4"}',
        b'{"answer": ["3", 4.0], "prediction": 4, "deep": {"verdict": [1]}}',
        b'{"answer": "2", "solution": "Who knows?", "big": 123456789012345678901 }',
    ]
    Path("in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    summary = done("in.jsonl")
    got = Path("out.jsonl").read_bytes().splitlines()
    assert [line.split(b',"verdict":"')[0] for line in got] == [x[:-1].rstrip() for x in lines]
    rows = read("out.jsonl")
    assert [row["verdict"] for row in rows] == ["correct", "undecided", "correct", "undecided"]
    assert [row.get("found", "none") for row in rows] == ["15", "none", "none", None]
    assert [bool(row["reason"]) for row in rows] == [False, True, False, True]
    assert (summary.rows, summary.kept) == (4, 0)
    assert summary.verdicts == {"correct": 2, "undecided": 2}


@pytest.mark.parametrize(
    ("answer", "prediction", "verdict"),
    [
        (15, 15, "correct"),
        (15, 15.0, "correct"),
        ("1/2", 0.5, "correct"),
        (["7", "8"], "8", "correct"),
        (["7", "8"], "9", "wrong"),
        (3, "", "undecided"),
        (3, None, "undecided"),
        (3, float("nan"), "undecided"),
        (3, float("inf"), "wrong"),
        ("\\infty", float("inf"), "correct"),
        (10**5000, 10**5000, "correct"),
        (3, "a\x00b", "wrong|undecided"),
        (3, "x" * 1_000_000, "undecided"),
        ("x" * 1_000_000, 3, "undecided"),
        (" ", 3, "undecided"),
        (None, 3, "undecided"),
        ([None, 3], 3, "correct"),
    ],
    ids=lambda value: str(value)[:12] if not isinstance(value, int) or value < 99 else "big",
)
def test_kinds_of_answers(answer: Any, prediction: Any, verdict: str) -> None:
    sys.set_int_max_str_digits(0)
    try:
        write("in.jsonl", {"answer": answer, "prediction": prediction})
    finally:
        sys.set_int_max_str_digits(4300)
    done("in.jsonl")
    assert re.search(f'"verdict":"({verdict})"', Path("out.jsonl").read_text())


def test_a_prediction_goes_before_a_solution_also_where_it_is_null() -> None:
    solution = {"answer": 1, "solution": "\\boxed{1}"}
    write("in.jsonl", solution, solution | {"prediction": 2}, solution | {"prediction": None})
    done("in.jsonl")
    assert [row["verdict"] for row in read("out.jsonl")] == ["correct", "wrong", "undecided"]
    assert ["found" in row for row in read("out.jsonl")] == [True, False, False]


def test_a_row_may_say_that_its_question_asks_for_several_values() -> None:
    solution = {"answer": "15", "solution": r"There are \boxed{15} novelists and \boxed{9} poets."}
    prediction = {"answer": "15", "prediction": "15 and 9"}
    write(
        "in.jsonl", *(row | {"several": s} for row in (solution, prediction) for s in (True, False))
    )
    done("in.jsonl")
    assert [row["verdict"] for row in read("out.jsonl")] == ["correct", "wrong"] * 2


def test_a_question_that_asks_for_several_values() -> None:
    text = "There are \\boxed{15} novelists and \\boxed{9} poets."
    row = {"answer": "15", "solution": text}
    write(
        "in.jsonl", row | {"several": True}, {"answer": 15, "several": True, "prediction": "7, 9"}
    )
    done("in.jsonl")
    first, second = read("out.jsonl")
    assert (first["verdict"], first["found"]) == ("correct", "15, 9")
    assert second["verdict"] == "wrong"


def test_the_papers_rule_takes_the_first_box_and_leaves_nothing_undecided(capsys: Capture) -> None:
    solution = {"answer": 15, "solution": r"\boxed{15} novelists and \boxed{9} poets"}
    write("in.jsonl", solution, {"answer": 15, "prediction": None})
    done("in.jsonl", config=GradingConfig(compat="paper"))
    assert [row["verdict"] for row in read("out.jsonl")] == ["correct", "wrong"]
    assert fail(capsys, "grade", "in.jsonl", "--out", "out.jsonl").startswith(
        'out.jsonl was started with other settings: compat "paper" → "none"'
    )


def test_former_verdicts_are_replaced_and_other_keys_of_their_names_are_kept() -> None:
    row = {"verdict": "x", "answer": 1, "reason": {"a": [1, "}"]}, "prediction": 1, "found": "my"}
    write("in.jsonl", row, {"found": 3, "answer": 1, "solution": "\\boxed{1}", "s": "\ud800"})
    done("in.jsonl")
    first, second = read("out.jsonl")
    assert list(first) == ["answer", "prediction", "found", "verdict", "reason"]
    assert second == {
        "answer": 1,
        "solution": "\\boxed{1}",
        "s": "\ud800",
        "verdict": "correct",
        "reason": "",
        "found": "1",
    }
    done("out.jsonl", "again.jsonl")
    assert Path("again.jsonl").read_bytes() == Path("out.jsonl").read_bytes()


def test_windows_line_ends_a_byte_order_mark_and_blank_lines() -> None:
    row = b'{"answer": 1, "prediction": 1}'
    Path("in.jsonl").write_bytes(b"\xef\xbb\xbf" + row + b"\r\n\r\n  \n" + row)
    done("in.jsonl")
    assert Path("out.jsonl").read_bytes() == 2 * (row[:-1] + b',"verdict":"correct","reason":""}\n')


@pytest.mark.parametrize(
    "text", ["\\" * 10**7, "\\boxed{" * 10**6, "\\boxed{1}," * 10**6, "{" * 10**7, " " * 10**7]
)
def test_a_solution_of_ten_megabytes_is_searched_soon(text: str) -> None:
    write("in.jsonl", {"answer": 8, "solution": text + " The answer is 8."})
    done("in.jsonl")
    assert '"verdict":"' in Path("out.jsonl").read_text()[-60:]


def test_rows_can_be_judged_while_an_event_loop_runs() -> None:
    write("in.jsonl", *sums(3))

    async def body() -> list[GradeSummary]:
        waited = grade_rows("in.jsonl", Path("first.jsonl"), CONFIG)
        return [waited, await grade_rows_async(Path("in.jsonl"), Path("second.jsonl"), CONFIG)]

    assert [summary.rows for summary in asyncio.run(body())] == [3, 3]
    assert read("first.jsonl") == read("second.jsonl")


# ---- pipes


def test_standard_input_to_standard_output_row_by_row() -> None:
    with subprocess.Popen(
        [*COMMAND, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for row, verdict in zip(sums(3), ("correct", "wrong", "undecided"), strict=True):
            process.stdin.write(json.dumps(row) + "\n")
            process.stdin.flush()
            # Nothing more is sent until this row's verdict has come back.
            assert json.loads(process.stdout.readline())["verdict"] == verdict
        process.stdin.close()
        assert process.stdout.read() == ""
        said = process.stderr.read()
    assert process.returncode == 0
    assert re.fullmatch(
        r"grade     3 rows: 1 correct, 1 wrong, 1 undecided \(1 no answer\); .+ rows/s\n", said
    )


def test_rows_before_a_bad_line_of_a_pipe_are_written() -> None:
    text = '{"answer": 1, "prediction": 1}\n' * 2 + '{"answer": 1}\n'
    found = command("-", input=text)
    assert found.returncode == 2
    assert [json.loads(line)["verdict"] for line in found.stdout.splitlines()] == ["correct"] * 2
    assert found.stderr == "scdpo: standard input, line 3: neither a solution nor a prediction\n"
    assert command("-", input="").stderr == "scdpo: standard input: contains no rows\n"


# ---- resuming


def test_a_file_cut_anywhere_is_continued_to_the_same_rows() -> None:
    write("in.jsonl", *sums(5))
    done("in.jsonl")
    whole = Path("out.jsonl").read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, 5, ends[0], ends[0] + 30, ends[1] - 1, ends[2] - 4):
        Path("out.jsonl").write_bytes(whole[:cut])
        summary = done("in.jsonl")
        assert Path("out.jsonl").read_bytes() == whole
        assert summary.kept == sum(end <= cut for end in ends)
        assert summary.verdicts == {"correct": 2, "wrong": 2, "undecided": 1}
    manifest = json.loads(Path("out.jsonl.manifest.json").read_text())
    assert (manifest["rows"], manifest["reasons"]) == (5, {"no answer": 1})
    assert done("in.jsonl").text == (
        "5 rows (5 of them already done): 2 correct, 2 wrong, 1 undecided (1 no answer)"
    )


def swap(old: str, new: str, path: str) -> None:
    """Replace a text that is in a file."""
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


OTHER = "name another output file, or the input it was made from"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda: swap('"id": 1, "answer": 1', '"id": 1, "answer": 5', "in.jsonl"),
            f"out.jsonl, line 2: was not made from line 2 of in.jsonl; {OTHER}",
        ),
        (
            lambda: swap('"verdict":"wrong"', '"verdict":"fine"', "out.jsonl"),
            f"out.jsonl, line 2: was not made from line 2 of in.jsonl; {OTHER}",
        ),
        (
            lambda: write("in.jsonl", *sums(2)),
            "out.jsonl: has more rows than in.jsonl, which has 2; name another output file",
        ),
        (
            lambda: swap('"deadline": 5.0', '"deadline": 3.0', "out.jsonl.manifest.json"),
            "out.jsonl was started with other settings: deadline 3.0 → 5.0; name another output "
            "file",
        ),
        (
            lambda: Path("out.jsonl.manifest.json").unlink(),
            "out.jsonl: has rows, but out.jsonl.manifest.json, which says what made them, is "
            "missing; name another output file",
        ),
    ],
    ids=["another gold", "tampered with", "fewer rows", "other settings", "no manifest"],
)
def test_an_output_that_is_not_the_inputs_is_left_alone(
    change: Callable[[], object], message: str
) -> None:
    write("in.jsonl", *sums(3))
    done("in.jsonl")
    change()
    before = Path("out.jsonl").read_bytes()
    with pytest.raises(ScdpoError) as error:
        done("in.jsonl")
    assert str(error.value) == message
    assert Path("out.jsonl").read_bytes() == before


def test_the_number_of_workers_may_differ() -> None:
    write("in.jsonl", *sums(2))
    done("in.jsonl")
    write("in.jsonl", *sums(3))
    assert done("in.jsonl", config=GradingConfig(workers=3)).kept == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_keeps_its_rows_and_goes_on(number: signal.Signals) -> None:
    # Comparisons that take their time: every one is symbolic, and none is remembered.
    rows = [{"answer": f"x^2 + {i}", "prediction": f"(x - 1)(x + 1) + {i + 1}"} for i in range(900)]
    write("in.jsonl", *rows)
    with subprocess.Popen([*COMMAND, "in.jsonl", "--out", "out.jsonl"]) as process:
        while not Path("out.jsonl").exists() or Path("out.jsonl").stat().st_size < 300:
            time.sleep(0.01)
        os.kill(process.pid, number)
        assert process.wait(60) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert 0 < Path("out.jsonl").read_bytes().count(b"\n") < 900
    short = [{**row, "verdict": "correct", "reason": ""} for row in rows]
    summary = done("in.jsonl")
    assert 0 < summary.kept < 900
    assert read("out.jsonl") == short


# ---- what a command says

BAD_LINES = {
    "not JSON": (b'{"answer": 1, "prediction": 1}\n{"answer"', "in.jsonl, line 2: not JSON: "),
    "not UTF-8": (b'{"answer": "\xff"}', "in.jsonl, line 1: not UTF-8 (byte 13)"),
    "no object": (b"[1]\n", "in.jsonl, line 1: not a JSON object: [1]"),
    "no answer": (b'\n{"prediction": 3}\n', "in.jsonl, line 2: no answer: a text or a number is "),
    "neither": (b'{"answer": 3}\n', "in.jsonl, line 1: neither a solution nor a prediction"),
    "no golds": (b'{"answer": [], "prediction": 3}', "in.jsonl, line 1: answer: the list is empty"),
    "NaN gold": (b'{"answer": NaN, "prediction": 3}', "in.jsonl, line 1: answer: a text or a numb"),
    "true": (b'{"answer": 3, "prediction": true}', "in.jsonl, line 1: prediction: a text or a num"),
    "several": (
        b'{"answer": 3, "prediction": 3, "several": 1}',
        "in.jsonl, line 1: several: true or false is expected, found 1",
    ),
    "a number": (b'{"answer": 3, "solution": 3}', "in.jsonl, line 1: solution: a text is expected"),
    "empty": (b"", "in.jsonl: contains no rows"),
    "deep": (b'{"answer": ' + b"[" * 100_000, "in.jsonl, line 1: not JSON: nested too deeply"),
    "missing": (None, "in.jsonl: no such file"),
}


@pytest.mark.parametrize(("data", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_file_is_found_before_anything_is_judged(
    data: bytes | None, message: str, capsys: Capture
) -> None:
    if data is not None:
        Path("in.jsonl").write_bytes(data)
    assert fail(capsys, "grade", "in.jsonl", "--out", "out.jsonl").startswith(message)
    assert not list(Path().glob("out.jsonl*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.jsonl", "--out", "in.jsonl"), "--out in.jsonl: the rows are read from this file"),
        (("in.jsonl", "--out", "no/out"), "--out no/out: there is no folder no"),
        (("in.jsonl", "--workers", "0"), "--workers: input should be greater than or equal to 1"),
        (("in.jsonl", "--compat", "x"), "--compat: input should be 'none' or 'paper' (found 'x')"),
        (("in.jsonl", "--deadline", "nan"), "--deadline: input should be "),
    ],
    ids=" ".join,
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str, capsys: Capture) -> None:
    data = write("in.jsonl", *sums(1)).read_bytes()
    assert fail(capsys, "grade", *arguments).startswith(message)
    assert Path("in.jsonl").read_bytes() == data


def test_the_defaults_in_the_help_are_the_graders(capsys: Capture) -> None:
    succeed("grade", "--help")
    text = " ".join(re.sub(r"[│\s]+", " ", capsys.readouterr().out).split())
    for option in ("workers", "deadline"):
        value = getattr(GradingConfig(), option)
        assert re.search(rf"--{option} [^\[]*\[default: \({value:g}\)\]", text)
    assert settings_from_options(GradingConfig, workers=None, deadline=None) == GradingConfig()


def test_a_full_disk(tmp_path: Path, capsys: Capture) -> None:
    write("in.jsonl", *({"answer": i, "prediction": i, "pad": "a" * 4000} for i in range(10)))
    done("in.jsonl")
    with mounted(tmp_path / "disk", "size=28k"):
        message = fail(capsys, "grade", "in.jsonl", "--out", "disk/out.jsonl")
        assert re.fullmatch(
            r"disk/out.jsonl: No space left on device; \d rows are kept; free up space and run "
            "again",
            message,
        )
        kept = read("disk/out.jsonl")
        assert 0 < len(kept) < 10
        resize(tmp_path / "disk", "size=1m")
        succeed("grade", "in.jsonl", "--out", "disk/out.jsonl")
        assert read("disk/out.jsonl") == read("out.jsonl")


def test_a_device_that_takes_nothing() -> None:
    write("in.jsonl", *sums(1))
    with pytest.raises(StoreError, match="/dev/full: No space left on device"):
        done("in.jsonl", "/dev/full")
