"""Run folders: kills, torn rows, locks, full disks, changed configs; JSONL files."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdpo.errors import DataError, RunLocked, StorageFull, StoreError
from scdpo.records import Problem, Record, Solution, SolutionHead, Step, Verdict, pack_logps
from scdpo.store import (
    Manifest,
    RunFolder,
    Stage,
    append_row,
    file_hash,
    is_full_disk,
    lock,
    read_json_rows,
    read_jsonl,
    replacing,
    storage_errors,
    unlock,
    write_atomic,
    write_jsonl,
)
from scdpo.store import stage as stage_module


def problem(n: int, question: str = "How many? 数学\n\u2028") -> Problem:
    return Problem(id=f"p{n}", dataset="gsm8k", question=question, answer=str(n))


def begun(run: RunFolder, rows: int = 0) -> Stage:
    stage = run.stage("naive").open({"k": 100})
    stage.append(problem(n) for n in range(rows))
    return stage


def shard(run: Path) -> Path:
    return run / "naive" / "rows-00000.jsonl"


# ---- rows


def test_the_keys_of_a_solution_keep_their_order() -> None:
    first = ["id", "problem_id", "dataset", "question", "format", "policy", "prompt", "prompt_ids"]
    assert list(Solution.model_fields)[: len(first)] == first
    assert set(SolutionHead.model_fields) < set(Solution.model_fields)


def test_rows_come_back_and_a_finished_stage_stays_finished(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        stage = run.stage("naive").open({"k": 100, "schedule": {"start": 1.1}}, {"problems": "aa"})
        assert stage.append([problem(0), problem(1)]) == 2
        assert list(stage.rows(Problem)) == [problem(0), problem(1)]
        stage.append([problem(2)])
        finished = stage.finish({"kept": 3, "share": 0.5})
        assert stage.done
    with RunFolder(tmp_path / "run") as run:
        stage = run.stage("naive").open({"schedule": {"start": 1.1}, "k": 100}, {"problems": "aa"})
        assert stage.done and stage.finish() == finished
        with pytest.raises(StoreError, match="stage naive is finished, rows cannot be added"):
            stage.append([problem(3)])
    assert finished.rows == 3 and finished.counts == {"kept": 3, "share": 0.5}
    assert finished.output_hash == stage.output_hash()
    assert {"python", "scdpo", "torch", "transformers"} <= finished.versions.keys()
    written = json.loads((tmp_path / "run/naive/manifest.json").read_text())
    assert Manifest.model_validate(written) == finished


@settings(max_examples=50)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    ids=st.lists(st.integers(0, 2**31)),
    logp=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_row_round_trips_without_loss(
    tmp_path_factory: pytest.TempPathFactory, text: str, ids: list[int], logp: float | None
) -> None:
    logps = "" if logp is None else pack_logps([logp] * len(ids))
    step = Step(
        kind="code", text=text, token_ids=tuple(ids), output=text, mean_logp=logp, logps=logps
    )
    solution = Solution(
        id="s",
        problem_id="p",
        dataset="math",
        question=text,
        format="blocks",
        policy="embedded",
        prompt=text,
        steps=(step,),
        finish="finished",
        answer=text or None,
        verdict=Verdict(name="undecided", reason=text),
        attempt=0,
        seed=2**63,
    )
    path = tmp_path_factory.getbasetemp() / "round-trip.jsonl"
    write_jsonl(path, [solution, solution])
    assert list(read_jsonl(path, Solution)) == [solution, solution]


@given(st.lists(st.floats(-60000, 0)))
def test_packed_logps_are_exact_to_three_digits(logps: list[float]) -> None:
    step = Step(kind="text", text="", token_ids=tuple(range(len(logps))), logps=pack_logps(logps))
    assert step.token_logps == pytest.approx(logps, rel=5e-4, abs=3e-8)
    assert pack_logps(step.token_logps) == step.logps


def test_rows_from_before_logps_were_kept_can_be_read(tmp_path: Path) -> None:
    step = Step(kind="text", text="a", token_ids=(5, 6), mean_logp=-1.0)
    before = step.model_dump_json().replace(',"logps":""', "")
    assert before != step.model_dump_json()
    (tmp_path / "rows.jsonl").write_text(before + "\n")
    assert list(read_jsonl(tmp_path / "rows.jsonl", Step)) == [step]
    wrong = before.replace("}", f',"logps":"{pack_logps([-1.0])}"}}')
    (tmp_path / "rows.jsonl").write_text(wrong + "\n")
    with pytest.raises(DataError, match="logps of 1 tokens, but 2 ids"):
        list(read_jsonl(tmp_path / "rows.jsonl", Step))


def test_append_new_skips_rows_that_are_there(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        stage = begun(run, rows=2)
        assert stage.append_new([problem(1), problem(2), problem(2), problem(3)]) == 2
        assert stage.append_new([problem(3, "another"), problem(4)], "id", "question") == 2
    with RunFolder(tmp_path) as run:
        stage = begun(run)
        assert stage.append_new([problem(4), problem(5)]) == 1
        assert stage.ids() == {f"p{n}" for n in range(6)}
        assert stage.ids("dataset", "answer") == {("gsm8k", str(n)) for n in range(6)}


def test_output_hash_is_of_the_set_of_rows(tmp_path: Path) -> None:
    orders = [[0, 1, 2], [2, 0, 1], [2, 2, 0, 1, 0], [0, 1], [0, 1, 3]]
    hashes = []
    for n, order in enumerate(orders):
        with RunFolder(tmp_path / str(n)) as run:
            stage = begun(run)
            stage.append(problem(i) for i in order)
            hashes.append(stage.output_hash())
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes)) == 3


def test_shards_roll_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "SHARD_BYTES", 500)
    rows = [problem(n) for n in range(20)]
    for half in (rows[:10], rows[10:]):
        with RunFolder(tmp_path) as run:
            begun(run).append(half)
    stage = RunFolder(tmp_path, write=False).stage("naive")
    assert len(list(stage.path.glob("rows-*.jsonl"))) > 3
    assert list(stage.rows(Problem)) == rows


# ---- kills and torn rows

APPENDER = """
import sys, time
from scdpo.records import Problem
from scdpo.store import RunFolder
with RunFolder(sys.argv[1]) as run:
    stage = run.stage("naive").open({"k": 100})
    print("open", flush=True)
    for n in range(60):
        stage.append_new(
            Problem(id=f"p{n}-{i}", dataset="gsm8k", question="q" * 20000, answer=str(n))
            for i in range(5)
        )
        time.sleep(0.004)
    stage.finish()
"""


def append_in_process(run: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(run)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "open\n"
    return child


def test_sigkill_while_appending_then_resume(tmp_path: Path) -> None:
    draw = random.Random(0)
    killed = 0
    for _ in range(4):
        child = append_in_process(tmp_path / "killed")
        time.sleep(draw.uniform(0.0, 0.1))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        assert child.stdout is not None
        child.stdout.close()
    assert killed >= 2
    for name in ("killed", "undisturbed"):
        with append_in_process(tmp_path / name) as child:
            assert child.wait() == 0
    stages = [
        RunFolder(tmp_path / name, write=False).stage("naive") for name in ("killed", "undisturbed")
    ]
    assert stages[0].output_hash() == stages[1].output_hash()
    assert len(list(stages[0].rows(Problem))) == len(stages[0].ids()) == 300
    manifest = stages[0].manifest
    assert manifest is not None and manifest.resumes == 4 and manifest.seconds > 0


class Mark(Record):
    """A row short enough to cut it at every byte, inside a character too."""

    id: str
    text: str = "数 {}"


def test_a_torn_last_row_of_every_length_is_cut_off(tmp_path: Path) -> None:
    rows = [Mark(id="a"), Mark(id="b"), Mark(id="c")]
    with RunFolder(tmp_path) as run:
        begun(run).append(rows)
    path = shard(tmp_path)
    whole = path.read_bytes()
    two = whole[: len(whole) * 2 // 3]
    for end in range(len(two), len(whole) + 1):
        path.write_bytes(whole[:end])
        reader = RunFolder(tmp_path, write=False).stage("naive")
        assert list(reader.rows(Mark)) == (rows if end == len(whole) else rows[:2])
        with RunFolder(tmp_path) as run:
            stage = begun(run)
            assert path.read_bytes() == (whole if end == len(whole) else two)
            stage.append_new(rows)
        assert path.read_bytes() == whole
    manifest = reader.manifest
    assert manifest is not None and manifest.repairs == len(whole) - len(two) - 1


@pytest.mark.parametrize("tail", [b"\0" * 200_000 + b"\n", b'{"id": "p9", \n', b"\n", b"[]\n"])
def test_a_last_line_that_is_no_object_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    with RunFolder(tmp_path) as run:
        begun(run, rows=2)
    whole = shard(tmp_path).read_bytes()
    shard(tmp_path).write_bytes(whole + tail)
    with RunFolder(tmp_path) as run:
        begun(run)
    assert shard(tmp_path).read_bytes() == whole


def test_a_malformed_row_in_the_middle_is_an_error_with_its_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        begun(run, rows=3)
    lines = shard(tmp_path).read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:30] + b"\n"
    shard(tmp_path).write_bytes(b"".join(lines))
    with RunFolder(tmp_path) as run:
        stage = begun(run)
        with pytest.raises(DataError, match=r"rows-00000\.jsonl, line 2: not JSON"):
            list(stage.rows(Problem))
        with pytest.raises(DataError, match=r"rows-00000\.jsonl, line 2: not JSON"):
            stage.ids()
    assert shard(tmp_path).read_bytes() == b"".join(lines)


# ---- locks


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    child = append_in_process(tmp_path)
    try:
        with pytest.raises(RunLocked) as refused:
            RunFolder(tmp_path)
        message = str(refused.value)
        assert f"in use by process {child.pid} (host " in message and "\n" not in message
        assert RunFolder(tmp_path, write=False).stage("naive").manifest is not None
    finally:
        child.kill()
        child.communicate()
    RunFolder(tmp_path).close()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    held = tmp_path / "run"
    script = (
        "import os, sys, time\nfrom scdpo.store import RunFolder\nrun = RunFolder(sys.argv[1])\n"
        "ends = os.pipe()\npid = os.fork()\nif pid == 0:\n    os.write(ends[1], b'.')\n"
        "    time.sleep(60)\nos.read(ends[0], 1)\nprint(pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(held)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    try:
        with pytest.raises(RunLocked):
            RunFolder(held)
        parent.kill()
        parent.wait()
        os.kill(orphan, 0)
        RunFolder(held).close()
    finally:
        os.kill(orphan, signal.SIGKILL)
        parent.stdout.close()


def test_one_process_cannot_open_a_run_twice(tmp_path: Path) -> None:
    with RunFolder(tmp_path), pytest.raises(RunLocked, match=f"process {os.getpid()}"):
        RunFolder(tmp_path)
    RunFolder(tmp_path).close()


def test_a_locked_file_is_refused_until_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    lock(first, path)
    with pytest.raises(RunLocked, match=r"rows\.jsonl: another process is writing to it"):
        lock(second, path)
    unlock(first)
    lock(second, path)
    unlock(second)


def test_reading_takes_no_lock_and_writes_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        begun(run, rows=1)
        reader = RunFolder(tmp_path / "run", write=False)
        assert list(reader.stage("naive").rows(Problem)) == [problem(0)]
        with pytest.raises(StoreError, match="opened for reading only"):
            reader.stage("naive").open({"k": 100})
        with pytest.raises(StoreError, match="stage branch has not been run there"):
            reader.stage("branch").rows(Problem)
    with pytest.raises(StoreError, match="no run folder there"):
        RunFolder(tmp_path / "other", write=False)
    assert not (tmp_path / "other").exists()


# ---- full disks


def test_a_full_disk_keeps_whole_rows(tmp_path: Path) -> None:
    """A file-size limit makes the kernel refuse bytes in the middle of a row."""
    rows = [problem(n) for n in range(50)]
    size = len(rows[0].model_dump_json()) + 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunFolder(tmp_path) as run:
        stage = begun(run)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 * size + size // 2, hard))
        try:
            with pytest.raises(StorageFull, match=r"rows-00000\.jsonl: .*; 10 rows are kept"):
                stage.append(rows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(stage.rows(Problem)) == rows[:10]
        assert shard(tmp_path).read_bytes().endswith(b"}\n")
        assert stage.append_new(rows) == 40


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    options = [mount or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if mount is None or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    return disk


def test_a_full_file_system_keeps_rows_and_manifest(tiny_disk: Path) -> None:
    try:
        with RunFolder(tiny_disk / "run") as run:
            stage = begun(run)
            with pytest.raises(StorageFull, match=r"No space left on device; \d+ rows are kept"):
                stage.append(problem(n, "q" * 1500) for n in range(100))
            kept = len(stage.ids())
            assert 10 < kept < 100
            with pytest.raises(StorageFull, match="manifest"):
                stage.finish({str(n): n for n in range(1000)})
        with RunFolder(tiny_disk / "run", write=False) as reader:
            assert len(list(reader.stage("naive").rows(Problem))) == kept
            assert not reader.stage("naive").done
        with pytest.raises(StorageFull, match="No space left"):
            write_jsonl(tiny_disk / "pairs.jsonl", (problem(n, "q" * 1500) for n in range(100)))
        assert {path.name for path in tiny_disk.iterdir()} == {"run"}
    finally:
        subprocess.run(["umount", str(tiny_disk)], check=True)


@pytest.mark.parametrize(
    ("number", "full"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EFBIG, True), (errno.EIO, False)],
)
def test_one_set_of_errors_means_a_full_disk(number: int, full: bool) -> None:
    error = OSError(number, os.strerror(number))
    assert is_full_disk(error) is full
    with pytest.raises(StoreError) as found, storage_errors(Path("a"), "nothing is lost"):
        raise error
    assert isinstance(found.value, StorageFull) is full
    advice = "; nothing is lost; free up space and run again" if full else ""
    assert str(found.value) == f"a: {os.strerror(number)}{advice}"


def test_a_row_that_the_disk_takes_half_of_is_cut_off_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        append_row(fd, b"first\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        with pytest.raises(OSError, match="File too large"):
            append_row(fd, b"second\n")
        assert path.read_bytes() == b"first\n"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        os.close(fd)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError):
            append_row(full, b"row\n")
    finally:
        os.close(full)


# ---- config and inputs


def test_another_config_or_input_is_refused_by_name(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.stage("naive").open(
            {"k": 100, "schedule": {"start": 1.1, "cap": 1.4}}, {"problems": "aa"}
        ).append([problem(0)])
    with RunFolder(tmp_path) as run:
        stage = run.stage("naive")
        with pytest.raises(StoreError) as refused:
            stage.open(
                {"k": 50, "schedule": {"start": 1.1, "cap": 1.2}, "floor": -1}, {"problems": "bb"}
            )
        assert str(refused.value) == (
            f"stage naive in {tmp_path} was started with other values: floor nothing → -1, "
            'k 100 → 50, schedule.cap 1.4 → 1.2, input problems "aa" → "bb"; '
            f"use another run folder, or redo the stage (or delete {tmp_path / 'naive'})"
        )
        assert stage.ids() == {"p0"}
        stage.open({"k": 50}, redo=True)
        assert stage.ids() == set()
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "naive"]


def test_tuples_and_models_in_a_config_compare_by_value(tmp_path: Path) -> None:
    config = {"stop": ("a", "b"), "problem": problem(0), "path": Path("x")}
    for _ in range(2):
        with RunFolder(tmp_path) as run:
            run.stage("naive").open(config)


@pytest.mark.parametrize("name", ["", "..", "../naive", "/tmp/naive", "a//b", ".lock", "a b"])
def test_stage_names_cannot_leave_the_run_folder(tmp_path: Path, name: str) -> None:
    with RunFolder(tmp_path) as run, pytest.raises(StoreError, match="not a stage name"):
        run.stage(name)


def test_unusable_folders_and_manifests(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="a file is in the way"):
        RunFolder(tmp_path / "file")
    with RunFolder(tmp_path / "run") as run:
        begun(run, rows=1)
    manifest = tmp_path / "run/naive/manifest.json"
    manifest.write_text("{}")
    with (
        RunFolder(tmp_path / "run") as run,
        pytest.raises(DataError, match="key 'stage' is missing"),
    ):
        begun(run)
    manifest.unlink()
    with RunFolder(tmp_path / "run") as run, pytest.raises(StoreError, match="without a manifest"):
        begun(run)


# ---- JSONL files

MALFORMED = [
    (b'{"a": 1}\n{"a": \n', "line 2: not JSON: "),
    (b'{"a": 1}\n\n[1, 2]\n', "line 3: not a JSON object: [1, 2]"),
    (b'{"a": "\xff"}\n', "line 1: not UTF-8 (byte 8)"),
    (b'{"a": ' + b"[" * 100_000 + b"\n", "line 1: not JSON: "),
    (b'{"a": ' + b"9" * 5000 + b"}\n", "line 1: not JSON: "),
]


@pytest.mark.parametrize(("data", "message"), MALFORMED)
def test_malformed_lines_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError) as found:
        list(read_json_rows(path))
    assert message in str(found.value) and "\n" not in str(found.value)
    assert str(path) in str(found.value)


BAD_RECORDS = [
    ({"id": "p", "dataset": "d", "question": "q"}, "Problem: key 'answer' is missing"),
    (
        {"id": "p", "dataset": "d", "question": "q", "anwser": "1"},
        "Problem: unknown key 'anwser' (did you mean answer?); known here: alternatives, answer, ",
    ),
    (
        {"id": 3, "dataset": "d", "question": "q", "answer": "1"},
        "Problem: id: input should be a valid string (found 3)",
    ),
    (
        {"id": "p", "dataset": "d", "question": "q", "answer": "1", "x\n": 1, "y": 2},
        "Problem: unknown key 'x\\n'; known here: alternatives, answer, dataset, id, level, "
        "question, several, solution, subject; also unknown: 'y'",
    ),
]


@pytest.mark.parametrize(("row", "message"), BAD_RECORDS)
def test_records_that_do_not_fit_name_the_field(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    path = tmp_path / "problems.jsonl"
    write_jsonl(path, [problem(0), row])
    with pytest.raises(DataError) as found:
        list(read_jsonl(path, Problem))
    assert str(found.value).startswith(f"{path}, line 2: {message}")
    assert "\n" not in str(found.value)


def test_missing_folder_and_broken_gzip_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        list(read_json_rows(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="a folder, not a file"):
        list(read_json_rows(tmp_path))
    path = tmp_path / "a.jsonl.gz"
    for data in (b"plain", gzip.compress(b'{"a": 1}\n' * 1000)[:-20]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="not a complete gzip file"):
            list(read_json_rows(path))


def test_gzip_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    rows = [problem(n) for n in range(3)]
    for _ in range(2):
        assert write_jsonl(tmp_path / "a.jsonl.gz", rows) == 3
        assert list(read_jsonl(tmp_path / "a.jsonl.gz", Problem)) == rows
    first = file_hash(tmp_path / "a.jsonl.gz")
    write_jsonl(tmp_path / "b.jsonl.gz", rows)
    assert file_hash(tmp_path / "b.jsonl.gz") == first
    (tmp_path / "c.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n  \r\n{"a": 2}')
    assert list(read_json_rows(tmp_path / "c.jsonl")) == [(1, {"a": 1}), (3, {"a": 2})]
    write_jsonl(tmp_path / "d.jsonl", [{"a": "\ud800"}, {"a": "数"}])
    assert [row["a"] for _, row in read_json_rows(tmp_path / "d.jsonl")] == ["\ud800", "数"]


def test_a_file_is_replaced_when_its_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.npz"
    with replacing(path) as file:
        file.write(b"old")
    with pytest.raises(ValueError, match="stop"), replacing(path) as file:
        file.write(b"new")
        raise ValueError("stop")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["cache.npz"]


def test_what_a_killed_writer_has_left_is_deleted(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        begun(run, rows=1)
    leftover = tmp_path / "naive" / ".manifest.json.1.tmp"
    leftover.write_text("{")
    with RunFolder(tmp_path) as run:
        begun(run)
    assert not leftover.exists()


def test_atomic_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "old")

    def rows() -> list[Problem]:
        raise DataError("no rows")

    with pytest.raises(DataError):
        write_jsonl(path, (row for _ in range(1) for row in rows()))
    assert path.read_text() == "old"
    link = tmp_path / "link"
    link.symlink_to(path)
    write_atomic(link, b"new")
    assert link.is_symlink() and path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    with pytest.raises(StorageFull, match="/dev/full: No space left on device"):
        write_jsonl("/dev/full", [problem(0)])
    assert not Path("/dev/full").is_file()
