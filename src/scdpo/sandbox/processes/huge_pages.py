"""Leaves fewer page-table entries for a fork to copy. Needs Linux 6.1; otherwise does nothing.

A fork copies one entry for each 4 KB page of memory without a file behind it, and the end of the
child visits each of them again. Importing sympy and numpy takes about 14,000 such pages. A huge
page has a single entry. When a child first writes to a huge page, the page is split in that child
and 4 KB are copied, not 2 MB.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

_MADV_COLLAPSE = 25
_HUGE_PAGE_BYTES = 2 << 20
"""On x86_64, and on aarch64 with 4 KB pages; with any other size nothing is moved."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def settle(proc: int) -> str:
    """Move this process's memory into huge pages, which makes its forks cheap; takes about 0.1 s.

    Call it once everything is imported. `proc`: a descriptor of a /proc that shows this process.
    Returns a sentence that says what was done and what prevented the rest; never raises. Addresses
    do not change. Only ranges at least half in use become huge pages, so that memory grows by about
    1 MB, and the mappings are not marked, so that children get no huge pages of their own. Source:
    madvise(2), MADV_COLLAPSE.
    """
    try:
        before = _in_huge_pages(proc)
        runs = list(_runs(_anonymous(proc), _HUGE_PAGE_BYTES))
        refusals = {_collapse(start, end) for start, end in runs}
        moved = _in_huge_pages(proc) - before
    except (OSError, ValueError) as error:
        return f"huge pages: not available here ({error})"
    done = f"huge pages: {moved >> 20} MB moved into them"
    reasons = sorted(os.strerror(refusal) for refusal in refusals if refusal)
    return f"{done} ({', '.join(reasons)})" if reasons else done


def _collapse(start: int, end: int) -> int:
    """Turn a range into huge pages; returns 0, or the error number if that failed for some."""
    return ctypes.get_errno() if _libc.madvise(start, end - start, _MADV_COLLAPSE) else 0


def _runs(ranges: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole huge pages that are each at least half in use."""
    for start, end in ranges:
        # The start of the run that `at` would continue, if there is one.
        run: int | None = None
        at = -(-start // size) * size
        while at + size <= end:
            if _half_in_use(at, size):
                run = at if run is None else run
            elif run is not None:
                yield run, at
                run = None
            at += size
        if run is not None:
            yield run, at


def _anonymous(proc: int) -> list[tuple[int, int]]:
    """Writable private ranges without a file behind them, except the stack."""
    found = []
    for line in _read("self/maps", proc).splitlines():
        extent, mode, _, _, inode, *name = line.split(maxsplit=5)
        ours = not name or name[0] == "[heap]" or name[0].startswith("[anon:")
        if mode.startswith("rw") and mode.endswith("p") and inode == "0" and ours:
            start, _, end = extent.partition("-")
            found.append((int(start, 16), int(end, 16)))
    return found


def _half_in_use(start: int, size: int) -> bool:
    pages = size // os.sysconf("SC_PAGESIZE")
    vector = (ctypes.c_ubyte * pages)()
    if _libc.mincore(start, size, vector):
        error = ctypes.get_errno()
        raise OSError(error, f"mincore: {os.strerror(error)}")
    return 2 * sum(flags & 1 for flags in vector) >= pages


def _in_huge_pages(proc: int) -> int:
    """Bytes of this process that are in huge pages."""
    for line in _read("self/smaps_rollup", proc).splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    return 0


def _read(path: str, proc: int) -> str:
    fd = os.open(path, os.O_RDONLY, dir_fd=proc)
    with os.fdopen(fd) as file:
        return file.read()
