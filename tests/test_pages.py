"""Moving the warm parent's memory into huge pages changes no data and costs its children none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MB = 1 << 20
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")

# Each case is its own process: what is measured is the memory of all of it.
SETUP = """
import ctypes, hashlib, json, mmap, os
from pathlib import Path
from scdpo.sandbox.processes import huge_pages

PROC = os.open("/proc", os.O_RDONLY)

MB = 1 << 20

def kept(what, pid="self"):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) << 10

def digest():
    return hashlib.sha256(repr((objects, block[::4099])).encode()).hexdigest()

objects = [{"number": number, "text": str(number) * 3} for number in range(60_000)]
block = mmap.mmap(-1, 32 * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(block), 4096):
    block[at : at + 8] = at.to_bytes(8, "little")

def in_child(work):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps(work()).encode())
        os._exit(0)
    os.close(write)
    answer = json.loads(os.read(read, 4096))
    assert os.waitpid(pid, 0)[1] == 0
    return answer
"""


def outcome(script: str) -> dict[str, Any]:
    """What a script leaves in `result`, after the set-up."""
    code = f"{SETUP}\n{script}\nprint(json.dumps(result))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def collapses() -> bool:
    """Whether this kernel can: it has huge pages, and is 6.1 or later."""
    release = Path("/proc/sys/kernel/osrelease").read_text().split(".")
    return HUGE_PAGES.exists() and (int(release[0]), int(release[1].split("-")[0])) >= (6, 1)


can_collapse = pytest.mark.skipif(not collapses(), reason="this kernel makes no huge pages so")


def test_parent_and_child_see_the_same_data_as_before() -> None:
    got = outcome(
        "before = digest(); said = huge_pages.settle(PROC)\n"
        "result = {'before': before, 'after': digest(), 'child': in_child(digest), 'said': said}"
    )
    assert got["before"] == got["after"] == got["child"]
    assert got["said"].startswith("huge pages: ")


@can_collapse
def test_memory_in_use_goes_into_huge_pages_and_hardly_grows() -> None:
    got = outcome(
        "before = kept('Rss'); said = huge_pages.settle(PROC)\n"
        "result = {'grown': kept('Rss') - before, 'huge': kept('AnonHugePages'), 'said': said}"
    )
    assert got["huge"] >= 24 * MB
    assert got["said"].startswith(f"huge pages: {got['huge'] // MB} MB")
    assert got["grown"] < 8 * MB


def test_memory_not_in_use_is_left_alone() -> None:
    got = outcome(
        "empty = mmap.mmap(-1, 256 * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "for at in range(0, len(empty), MB): empty[at] = 1\n"
        "before = kept('Rss'); huge_pages.settle(PROC); result = {'grown': kept('Rss') - before}"
    )
    assert got["grown"] < 16 * MB


def test_child_that_writes_little_copies_little_and_changes_nothing_of_its_parent() -> None:
    got = outcome(
        "def work():\n"
        "    for at in range(0, len(block), MB): block[at] = 255\n"
        "    return [block[MB], block[MB + 4096 : MB + 4104].hex(), kept('Private_Dirty')]\n"
        "huge_pages.settle(PROC); before = digest(), block[MB]\n"
        "written, beside, own = in_child(work)\n"
        "result = dict(written=written, beside=beside, own=own,\n"
        "              same=(digest(), block[MB]) == before)"
    )
    assert got["written"] == 255
    assert got["beside"] == (MB + 4096).to_bytes(8, "little").hex()
    assert got["own"] < 6 * MB
    assert got["same"]


def test_no_mapping_is_marked_for_huge_pages_to_come() -> None:
    """A mark is inherited: a child that grows by a few bytes would get 2 MB."""
    got = outcome(
        "def marked():\n"
        "    lines = Path('/proc/self/smaps').read_text().splitlines()\n"
        "    flags = [line for line in lines if line.startswith('VmFlags')]\n"
        "    return [len(flags), sum(' hg' in line for line in flags)]\n"
        "before = marked(); huge_pages.settle(PROC); result = {'before': before, 'after': marked()}"
    )
    assert got["before"][0] > 10
    assert got["after"][1] == got["before"][1]


def test_a_proc_that_does_not_show_the_process_is_no_error() -> None:
    got = outcome(
        "before = digest(); said = huge_pages.settle(os.open('/tmp', os.O_RDONLY))\n"
        "result = {'same': digest() == before, 'said': said}"
    )
    assert got["same"]
    assert got["said"].startswith("huge pages: not available here (")


def test_a_kernel_that_refuses_is_named_and_nothing_breaks() -> None:
    """PR_SET_THP_DISABLE forbids huge pages to a process."""
    got = outcome(
        "assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0\n"
        "before = digest(); said = huge_pages.settle(PROC)\n"
        "result = {'same': digest() == before, 'huge': kept('AnonHugePages'), 'said': said}"
    )
    assert got["same"]
    assert got["huge"] == 0
    assert "Invalid argument" in got["said"] or not HUGE_PAGES.exists()
