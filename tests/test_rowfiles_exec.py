"""`scdpo exec`: which rows come out, how a file is resumed, and the messages in one line."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import row_files
import scdpo.rowfiles.driver
import scdpo.rowfiles.source
from row_files import read, write
from scdpo.errors import DataError, ScdpoError, StoreError
from scdpo.errors.validation import settings_from_options
from scdpo.rowfiles import ExecSummary, exec_rows, exec_rows_async
from scdpo.sandbox import Execution, ProcessSandbox, SandboxConfig
from small_runs import fail, succeed
from test_cli import mounted, resize

Capture = pytest.CaptureFixture[str]
CONFIG = SandboxConfig(deadline=20, memory_mb=512, parallel=2)
COMMAND = (*row_files.COMMAND, "exec")
command = partial(row_files.command, "exec")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths belong to the test."""
    monkeypatch.chdir(tmp_path)


def sums(n: int, pause: float = 0.0) -> list[dict[str, Any]]:
    """Sessions of two blocks, the second of which shows its row's own number."""
    first = f"import time; time.sleep({pause}); x = "
    return [{"id": i, "blocks": [f"{first}{i}", "print('row', x)"]} for i in range(n)]


def done(file: str, out: str = "out.jsonl", config: SandboxConfig = CONFIG) -> ExecSummary:
    """Run a file's sessions into another."""
    return exec_rows(file, Path(out), config)


# ---- rows


def test_rows_keep_their_order_and_their_other_keys_to_the_byte() -> None:
    lines = [
        b'{"id": 7, "blocks": ["import time; time.sleep(0.5)", "x = 6", "x * 7"], "w": 1.50}',
        b'{"blocks": [ "print(\\"\\u00e9\\")" ],"id":"\xc3\xa9", "big": 123456789012345678901 }',
        b'{"blocks": [], "id": 7, "nan": NaN}',
        b'{"blocks": ["x"]}',
    ]
    Path("in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    summary = done("in.jsonl")
    got = Path("out.jsonl").read_bytes().splitlines()
    assert [line.split(b',"outputs":')[0] for line in got] == [x[:-1].rstrip() for x in lines]
    rows = read("out.jsonl")
    assert [row["outputs"] for row in rows[:3]] == [["", "", "42"], ["é"], []]
    assert "NameError: name 'x' is not defined" in rows[3]["outputs"][0]
    assert [row["cuts"] for row in rows] == [["", "", ""], [""], [], [""]]
    assert (summary.rows, summary.blocks, summary.kept, summary.cuts) == (4, 5, 0, {})


def test_every_reason_for_which_a_block_is_cut() -> None:
    config = SandboxConfig(deadline=1, memory_mb=256, output_chars=100)
    blocks = {
        "deadline": ["1", "while True: pass", "2", "3"],
        "memory": ["bytearray(2**33)", "2"],
        "output": ["print('a' * 1000)", "2"],
        "died": ["import os; os._exit(3)", "2"],
    }
    write("in.jsonl", *({"id": name, "blocks": value} for name, value in blocks.items()))
    summary = done("in.jsonl", config=config)
    assert {row["id"]: row["cuts"] for row in read("out.jsonl")} == {
        "deadline": ["", "deadline", "not run", "not run"],
        "memory": ["memory", "not run"],
        "output": ["output", ""],
        "died": ["died", "not run"],
    }
    outputs = {row["id"]: row["outputs"] for row in read("out.jsonl")}
    assert outputs["deadline"] == ["1", "", "", ""]
    assert outputs["output"] == ["a" * 100, "2"]
    assert summary.cuts == {"deadline": 1, "memory": 1, "output": 1, "died": 1, "not run": 4}
    kept = json.loads(Path("out.jsonl.manifest.json").read_text())
    assert (kept["rows"], kept["blocks"], kept["cuts"]) == (4, 10, summary.cuts)
    assert kept["isolation"] == [summary.isolation]
    assert kept["sandbox"]["deadline"] == 1


def test_a_rows_former_outputs_are_replaced() -> None:
    write("in.jsonl", {"outputs": ["old"], "blocks": ["1 + 1"], "cuts": ["died"], "s": "\ud800"})
    done("in.jsonl")
    assert read("out.jsonl") == [
        {"blocks": ["1 + 1"], "s": "\ud800", "outputs": ["2"], "cuts": [""]}
    ]
    done("out.jsonl", "again.jsonl")
    assert read("again.jsonl") == read("out.jsonl")
    assert done("in.jsonl").kept == 1


def test_code_with_a_nul_or_half_a_surrogate_pair_fails_and_nothing_else_does() -> None:
    write("in.jsonl", {"blocks": ["x = 'a\x00b'", "y = '\ud800'", "3"]})
    done("in.jsonl")
    [row] = read("out.jsonl")
    assert row["cuts"] == ["", "", ""]
    assert row["outputs"][2] == "3"
    assert all("Error" in output for output in row["outputs"][:2])


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_windows_line_ends_a_byte_order_mark_blank_lines_and_gzip(name: str) -> None:
    data = b'\xef\xbb\xbf{"blocks": ["1"]}\r\n\r\n  \n{"blocks": ["2"]}'
    Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    done(name)
    assert [row["outputs"] for row in read("out.jsonl")] == [["1"], ["2"]]
    assert Path("out.jsonl").read_bytes().startswith(b'{"blocks": ["1"],"outputs":')


def test_a_large_row() -> None:
    pad = "é" * 4_000_000
    write("in.jsonl", {"pad": pad, "blocks": [f"x = {pad!r}", "len(x)"]}, {"blocks": ["1"]})
    done("in.jsonl")
    rows = read("out.jsonl")
    assert rows[0]["outputs"] == ["", str(len(pad))]
    assert rows[0]["pad"] == pad
    assert rows[1]["outputs"] == ["1"]


class Watched:
    """How many rows have been at work, now, at most, altogether, and when the first was done."""

    def __init__(self) -> None:
        self.live = self.most = self.begun = self.begun_when_first_was_done = 0


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Counts that are kept while rows run."""
    counts = Watched()
    original = ProcessSandbox.run_async

    async def counted(sandbox: ProcessSandbox, blocks: Sequence[str]) -> list[Execution]:
        counts.begun += 1
        counts.live += 1
        counts.most = max(counts.most, counts.live)
        first = counts.begun == 1
        try:
            return await original(sandbox, blocks)
        finally:
            counts.live -= 1
            if first:
                counts.begun_when_first_was_done = counts.begun

    monkeypatch.setattr(ProcessSandbox, "run_async", counted)
    return counts


def test_few_sessions_live_at_a_time(watched: Watched) -> None:
    write("in.jsonl", *sums(40))
    config = SandboxConfig(parallel=2, max_sessions=1)
    assert done("in.jsonl", config=config).rows == 40
    assert watched.begun == 40
    assert 2 <= watched.most <= 5


@pytest.mark.parametrize("bound", ["WINDOW_ROWS", "WINDOW_BYTES"])
def test_what_waits_for_a_slow_row_is_bounded(
    bound: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    pad = "a" * 1000
    monkeypatch.setattr(scdpo.rowfiles.driver, bound, 8 if bound == "WINDOW_ROWS" else 8800)
    slow = {"blocks": ["import time; time.sleep(1)"], "pad": pad}
    write("in.jsonl", slow, *({"blocks": [str(i)], "pad": pad} for i in range(50)))
    assert done("in.jsonl").rows == 51
    assert 2 < watched.begun_when_first_was_done <= 8
    assert [row["outputs"] for row in read("out.jsonl")[1:]] == [[str(i)] for i in range(50)]


def test_rows_can_be_run_while_an_event_loop_runs() -> None:
    write("in.jsonl", *sums(3))

    async def body() -> list[ExecSummary]:
        waited = exec_rows("in.jsonl", Path("first.jsonl"), CONFIG)
        return [waited, await exec_rows_async(Path("in.jsonl"), Path("second.jsonl"), CONFIG)]

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
        for row in sums(3):
            process.stdin.write(json.dumps(row) + "\n")
            process.stdin.flush()
            # Nothing more is sent until this row's outputs have come back.
            assert json.loads(process.stdout.readline())["outputs"][1] == f"row {row['id']}"
        process.stdin.close()
        assert process.stdout.read() == ""
        said = process.stderr.read()
    assert process.returncode == 0
    [line] = said.splitlines()
    assert re.fullmatch(
        r"exec      3 rows, 6 blocks; cut: none; \d+\.\d s, \d+\.\d sessions/s; namespace: .+",
        line,
    )


def test_a_reader_that_leaves() -> None:
    write("in.jsonl", *sums(3000))
    with subprocess.Popen(
        [*COMMAND, "in.jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["outputs"] == ["", "row 0"]
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


def test_a_reader_that_is_slow_holds_up_no_block() -> None:
    # More than fits into the pipe that a block's output comes through.
    rows = [{"blocks": ["print('a' * 300_000)"] * 8} for _ in range(30)]
    write("in.jsonl", *rows)
    with subprocess.Popen(
        [*COMMAND, "in.jsonl", "--deadline", "2"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(4)  # our own pipe is full by now, and a block's time over
        others = process.stdout.read()
    found = [json.loads(line) for line in (first, *others.splitlines())]
    assert [row["cuts"] for row in found] == [["output"] * 8] * 30


def test_rows_before_a_bad_line_of_a_pipe_are_written() -> None:
    text = '{"blocks": ["1"]}\n{"blocks": ["2"]}\n{"blocks": 3}\n{"blocks": ["4"]}\n'
    found = command("-", input=text)
    assert found.returncode == 2
    assert [json.loads(line)["outputs"] for line in found.stdout.splitlines()] == [["1"], ["2"]]
    assert found.stderr == (
        "scdpo: standard input, line 3: blocks: a list of strings is expected, found 3\n"
    )
    assert command("-", input="\n").stderr == "scdpo: standard input: contains no sessions\n"


def test_a_pipe_is_continued_like_a_file() -> None:
    text = "".join(json.dumps(row) + "\n" for row in sums(4))
    assert command("-", "--out", "out.jsonl", input=text[: text.index("\n") + 1]).returncode == 0
    found = command("-", "--out", "out.jsonl", input=text)
    assert found.returncode == 0
    assert found.stderr.startswith("exec      3 rows (1 more already done), 6 blocks; cut: none; ")
    assert [row["id"] for row in read("out.jsonl")] == [0, 1, 2, 3]


def test_closed_standard_streams() -> None:
    write("in.jsonl", *sums(1))
    line = " ".join(f"'{part}'" for part in COMMAND)
    for redirect, message in {
        "in.jsonl >&-": "scdpo: standard output is closed; name a file with --out\n",
        "- <&-": "scdpo: standard input is closed; name a file\n",
    }.items():
        found = subprocess.run(
            ["sh", "-c", f"{line} {redirect}"], capture_output=True, text=True, timeout=60
        )
        assert (found.returncode, found.stderr) == (2, message)


def test_a_named_pipe_to_write_to() -> None:
    write("in.jsonl", *sums(2))
    os.mkfifo("pipe")
    with subprocess.Popen([*COMMAND, "in.jsonl", "--out", "pipe"], stderr=subprocess.PIPE):
        rows = read("pipe")
    assert [row["outputs"][1] for row in rows] == ["row 0", "row 1"]
    assert not Path("pipe.manifest.json").exists()


# ---- resuming


def test_a_file_cut_anywhere_is_continued_to_the_same_rows() -> None:
    write("in.jsonl", *sums(4))
    done("in.jsonl")
    whole = Path("out.jsonl").read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    second = ends[0] + whole[ends[0] :].index(b',"outputs"')
    for cut in (0, 5, ends[0], second, second + 15, ends[1] - 1, ends[2] - 4):
        Path("out.jsonl").write_bytes(whole[:cut])
        summary = done("in.jsonl")
        assert Path("out.jsonl").read_bytes() == whole
        assert summary.kept == sum(end <= cut for end in ends)
        assert summary.kept + summary.rows == 4
    assert json.loads(Path("out.jsonl.manifest.json").read_text())["rows"] == 4


def test_nothing_is_left_to_run_and_a_file_that_grew(watched: Watched) -> None:
    write("in.jsonl", *sums(2))
    done("in.jsonl")
    before = Path("out.jsonl.manifest.json").read_bytes()
    summary = done("in.jsonl")
    assert summary.text == "nothing to run: 2 rows already done"
    assert watched.begun == 2
    assert Path("out.jsonl.manifest.json").read_bytes() == before
    write("in.jsonl", *sums(3))
    assert (done("in.jsonl").kept, watched.begun) == (2, 3)
    assert [row["id"] for row in read("out.jsonl")] == [0, 1, 2]


def unlike(change: Callable[[], object]) -> tuple[bytes, str]:
    """What is in the output file after a change, and what a second call says to it."""
    write("in.jsonl", *sums(3))
    done("in.jsonl")
    change()
    before = Path("out.jsonl").read_bytes()
    with pytest.raises(ScdpoError) as error:
        done("in.jsonl")
    assert Path("out.jsonl").read_bytes() == before, "nothing was lost"
    return before, str(error.value)


def append(text: str) -> None:
    """Write something at the end of the output file."""
    with Path("out.jsonl").open("a") as file:
        file.write(text)


def swap(old: str, new: str, path: str = "out.jsonl") -> None:
    """Replace a text that is in a file."""
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


OTHER = "name another output file, or the input it was made from"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda: swap("x = 1", "x = 5", "in.jsonl"),
            f"out.jsonl, line 2: was not made from line 2 of in.jsonl; {OTHER}",
        ),
        (
            lambda: swap('"row 1"]', '"row 1","more"]'),
            f"out.jsonl, line 2: was not made from line 2 of in.jsonl; {OTHER}",
        ),
        (
            lambda: Path("out.jsonl").write_text("my notes"),
            f"out.jsonl, line 1: was not made from line 1 of in.jsonl; {OTHER}",
        ),
        (
            lambda: write("in.jsonl", *sums(2)),
            "out.jsonl: has more rows than in.jsonl, which has 2; name another output file",
        ),
        (
            lambda: append("my notes"),
            "out.jsonl: has more rows than in.jsonl, which has 3; name another output file",
        ),
        (
            lambda: Path("out.jsonl.manifest.json").unlink(),
            "out.jsonl: has rows, but out.jsonl.manifest.json, which says what made them, is "
            "missing; name another output file",
        ),
        (
            lambda: swap('"deadline": 20', '"deadline": 3', "out.jsonl.manifest.json"),
            "out.jsonl was started with other settings: deadline 3.0 → 20.0; name another output "
            "file",
        ),
        (
            lambda: Path("out.jsonl.manifest.json").write_text("{"),
            "out.jsonl.manifest.json: invalid JSON: EOF while parsing an object at line 1 column 1",
        ),
    ],
    ids=[
        "another block",
        "a row that was tampered with",
        "a file of something else",
        "more rows",
        "something after the last row",
        "no manifest",
        "other settings",
        "a torn manifest",
    ],
)
def test_an_output_that_is_not_the_inputs_is_left_alone(
    change: Callable[[], object], message: str
) -> None:
    assert unlike(change)[1] == message


def test_only_speed_may_differ() -> None:
    write("in.jsonl", *sums(2))
    done("in.jsonl")
    write("in.jsonl", *sums(3))
    config = CONFIG.model_copy(update={"parallel": 1, "max_sessions": 4})
    assert done("in.jsonl", config=config).kept == 2


def test_settings_that_have_shaped_nothing_may_change() -> None:
    write("in.jsonl", *sums(2))
    done("in.jsonl")
    Path("out.jsonl").write_text("")
    done("in.jsonl", config=CONFIG.model_copy(update={"deadline": 7.0}))
    assert json.loads(Path("out.jsonl.manifest.json").read_text())["sandbox"]["deadline"] == 7


# ---- what a command says


BAD_LINES = {
    "not JSON": (b'{"blocks": ["1"]}\n{"blocks"', "in.jsonl, line 2: not JSON: "),
    "not UTF-8": (b'{"blocks": ["\xff"]}', "in.jsonl, line 1: not UTF-8 (byte 14)"),
    "no object": (b"[1]\n", "in.jsonl, line 1: not a JSON object: [1]"),
    "no blocks": (b'\n{"id": 3}\n', "in.jsonl, line 2: no blocks: a list of strings is expected"),
    "a text for blocks": (
        b'{"blocks": "1"}\n',
        "in.jsonl, line 1: blocks: a list of strings is expected, found '1'",
    ),
    "a number in blocks": (
        b'{"blocks": ["1", 2]}\n',
        "in.jsonl, line 1: blocks[1]: a string is expected, found 2",
    ),
    "empty": (b"", "in.jsonl: contains no sessions"),
    "deep": (b'{"blocks": ' + b"[" * 100_000, "in.jsonl, line 1: not JSON: "),
    "missing": (None, "in.jsonl: no such file"),
}


@pytest.mark.parametrize(("data", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_file_is_found_before_anything_runs(
    data: bytes | None, message: str, capsys: Capture, watched: Watched
) -> None:
    if data is not None:
        Path("in.jsonl").write_bytes(data)
    assert fail(capsys, "exec", "in.jsonl", "--out", "out.jsonl").startswith(message)
    assert not list(Path().glob("out.jsonl*"))
    assert watched.begun == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("folder",), "folder: a folder, not a file"),
        (("zipped.gz",), "zipped.gz, line 1: not a complete gzip file (Not a gzipped file (b'{"),
        (("in.jsonl", "--out", "in.jsonl"), "--out in.jsonl: the sessions are read from this file"),
        (("in.jsonl", "--out", "link"), "--out link: the sessions are read from this file"),
        (("in.jsonl", "--out", "folder"), "--out folder: a folder, not a file"),
        (("in.jsonl", "--out", "no/out"), "--out no/out: there is no folder no"),
        (("in.jsonl", "--out", "in.jsonl/out"), "--out in.jsonl/out: there is no folder in.jsonl"),
        (("in.jsonl", "--out", "out.gz"), "--out out.gz: rows cannot be appended to a gzip file"),
        (("in.jsonl", "--level", "x"), "--level: input should be 'namespace' or 'process' (found"),
        (("in.jsonl", "--deadline", "0"), "--deadline: input should be greater than 0 (found 0"),
        (("in.jsonl", "--deadline", "nan"), "--deadline: input should be a finite number (found"),
        (("in.jsonl", "--deadline", "inf"), "--deadline: input should be a finite number (found"),
        (("in.jsonl", "--memory-mb", "3"), "--memory-mb: input should be greater than or equal t"),
        (("in.jsonl", "--output-chars", "0"), "--output-chars: input should be greater than or "),
        (("in.jsonl", "--parallel", "0"), "--parallel: input should be greater than or equal to"),
    ],
    ids=" ".join,
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str, capsys: Capture) -> None:
    data = write("in.jsonl", *sums(1)).read_bytes()
    Path("zipped.gz").write_bytes(data)
    Path("link").symlink_to("in.jsonl")
    Path("folder").mkdir()
    assert fail(capsys, "exec", *arguments).startswith(message)
    assert Path("in.jsonl").read_bytes() == data


def test_a_file_that_standard_output_is_appended_to() -> None:
    before = write("in.jsonl", *sums(1)).read_bytes()
    with Path("in.jsonl").open("ab") as file:
        line = [*COMMAND, "in.jsonl"]
        found = subprocess.run(line, stdout=file, stderr=subprocess.PIPE, text=True, timeout=60)
    assert found.returncode == 2
    assert found.stderr == "scdpo: in.jsonl: rows would be written to the file they are read from\n"
    assert Path("in.jsonl").read_bytes() == before


def test_a_line_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scdpo.rowfiles.source, "MAX_ROW_BYTES", 2**20)
    with pytest.raises(DataError, match="/dev/zero, line 1: longer than 1 MiB, the limit"):
        done("/dev/zero")


def test_a_file_that_another_process_writes_to(capsys: Capture) -> None:
    write("in.jsonl", *sums(1))
    with Path("out.jsonl").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        message = fail(capsys, "exec", "in.jsonl", "--out", "out.jsonl")
    assert message == "out.jsonl: another process is writing to it"
    succeed("exec", "in.jsonl", "--out", "out.jsonl")


def test_the_defaults_in_the_help_are_the_sandboxs(capsys: Capture) -> None:
    succeed("exec", "--help")
    text = " ".join(re.sub(r"[│\s]+", " ", capsys.readouterr().out).split())
    config = SandboxConfig()
    for option in ("level", "deadline", "memory-mb", "output-chars"):
        value = getattr(config, option.replace("-", "_"))
        assert re.search(
            rf"--{option} [^\[]*\[default: \({value:{'' if option == 'level' else 'g'}}\)\]", text
        )
    assert settings_from_options(SandboxConfig, level=None, deadline=None) == config


def test_progress_and_summary(capfd: Capture) -> None:
    write("in.jsonl", *sums(3))
    succeed("exec", "in.jsonl", "--out", "out.jsonl", "--level", "process", "--parallel", 1)
    found = capfd.readouterr()
    assert found.out == ""
    progress, summary = found.err.splitlines()
    assert progress.startswith("exec: 3 of 3 after ")
    assert "3 rows, 6 blocks; cut: none; " in summary
    assert "; process: " in summary
    succeed("exec", "in.jsonl", "--level", "process")
    assert len(capfd.readouterr().out.splitlines()) == 3


# ---- disks, signals, and a sandbox that is lost


def test_a_full_disk(tmp_path: Path, capsys: Capture) -> None:
    write("in.jsonl", *({"blocks": [f"print('{i}' * 4000)"]} for i in range(10)))
    done("in.jsonl")
    with mounted(tmp_path / "disk", "size=28k"):
        message = fail(capsys, "exec", "in.jsonl", "--out", "disk/out.jsonl", "--deadline", 20)
        assert re.fullmatch(
            r"disk/out.jsonl: No space left on device; \d rows are kept; free up space and run "
            "again",
            message,
        )
        kept = read("disk/out.jsonl")
        assert kept == read("out.jsonl")[: len(kept)]
        assert 0 < len(kept) < 10
        resize(tmp_path / "disk", "size=1m")
        succeed("exec", "in.jsonl", "--out", "disk/out.jsonl", "--deadline", 20)
        assert read("disk/out.jsonl") == read("out.jsonl")


def test_standard_output_on_a_full_disk() -> None:
    write("in.jsonl", *sums(1))
    with Path("/dev/full").open("w") as full:
        line = [*COMMAND, "in.jsonl"]
        found = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert found.returncode == 2
    assert found.stderr == "scdpo: standard output: No space left on device\n"


# Adopts what a stopped command leaves behind, and says how many processes that is.
ADOPTER = """
import ctypes, os, signal, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
process = subprocess.Popen(sys.argv[3:])
while not os.path.exists(sys.argv[2]) or os.path.getsize(sys.argv[2]) < 300:
    time.sleep(0.01)
process.send_signal(int(sys.argv[1]))
print(process.wait(30))
until = time.monotonic() + 10
while time.monotonic() < until:
    try:
        os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)
    except ChildProcessError:
        print("none left")
        break
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_keeps_its_rows_and_leaves_no_process(number: signal.Signals) -> None:
    write("in.jsonl", *sums(120, pause=0.05))
    line = (*COMMAND, "in.jsonl", "--out", "out.jsonl", "--deadline", "20")
    adopter = [sys.executable, "-c", ADOPTER, str(int(number)), "out.jsonl", *line]
    found = subprocess.run(adopter, capture_output=True, text=True, timeout=120)
    code = -9 if number == signal.SIGKILL else 130
    assert found.stdout.split("\n") == [str(code), "none left", ""], found.stderr
    stopped = "stopped   everything done so far is kept; rerun the same command to resume\n"
    assert found.stderr == ("" if number == signal.SIGKILL else stopped)
    assert 0 < Path("out.jsonl").read_bytes().count(b"\n") < 120
    assert done("in.jsonl", config=SandboxConfig(deadline=20)).kept > 0
    assert [row["outputs"][1] for row in read("out.jsonl")] == [f"row {i}" for i in range(120)]


def children(pid: int) -> list[int]:
    """The children of a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_sandbox_that_is_lost() -> None:
    write("in.jsonl", *sums(2000, pause=0.02))
    with subprocess.Popen(
        [*COMMAND, "in.jsonl", "--out", "out.jsonl"], stderr=subprocess.PIPE, text=True
    ) as process:
        while not Path("out.jsonl").exists() or Path("out.jsonl").stat().st_size < 300:
            time.sleep(0.01)
        for pid in children(process.pid):
            os.kill(pid, signal.SIGKILL)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 2
    assert said.startswith("scdpo: the sandbox ")
    assert said.count("\n") == 1
    rows = read("out.jsonl")
    assert 0 < len(rows) < 2000
    assert [row["outputs"][1] for row in rows] == [f"row {i}" for i in range(len(rows))]


def test_sessions_at_work_when_a_row_cannot_be_written_say_nothing(capfd: Capture) -> None:
    write("in.jsonl", *sums(20))
    with pytest.raises(StoreError, match="/dev/full: No space left on device"):
        done("in.jsonl", "/dev/full")
    assert capfd.readouterr().err == ""
