"""Fewer page-table entries for a fork to copy. Linux 6.1 and later; elsewhere nothing is done.

A fork copies one entry for each 4 KB page of memory that has no file behind it, and the end of
the child visits each again. Imported sympy and numpy are some 14,000 of them. A huge page is one.
The first write of a child to a huge page splits it in that child and copies 4 KB, not 2 MB.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

_MADV_COLLAPSE = 25
_HUGE_PAGE_BYTES = 2 << 20
"""On x86_64, and on aarch64 with pages of 4 KB; where it is another, nothing is moved."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def settle(proc: int) -> str:
    """Move this process's memory into huge pages, for its forks to be cheap; takes about 0.1 s.

    To be called once everything is imported; `proc` is a descriptor of a /proc that shows this
    process. Returns in words what was done, and what kept the
    rest from it; never raises. Data stay where they are. Only huge pages that are half in use
    already are made, so that memory grows by a MB or so, and the mappings are not marked: no
    child gets huge pages of its own. Source: madvise(2), MADV_COLLAPSE.
    """
    try:
        before = _in_huge_pages(proc)
        runs = list(_runs(_anonymous(proc), _HUGE_PAGE_BYTES))
        refusals = {_collapse(start, end) for start, end in runs}
        moved = _in_huge_pages(proc) - before
    except (OSError, ValueError) as error:
        return f"huge pages: not to be had here ({error})"
    done = f"huge pages: {moved >> 20} MB moved into them"
    reasons = sorted(os.strerror(refusal) for refusal in refusals if refusal)
    return f"{done} ({', '.join(reasons)})" if reasons else done


def _collapse(start: int, end: int) -> int:
    """Make huge pages of a range; returns 0, or the error number where some could not be made."""
    return ctypes.get_errno() if _libc.madvise(start, end - start, _MADV_COLLAPSE) else 0


def _runs(ranges: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole huge pages of which each is at least half in use."""
    for start, end in ranges:
        # Where the run began that `at` would continue, if there is one.
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
    """Writable private ranges without a file behind them, the stack left out."""
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
    """Bytes of this process that lie in huge pages."""
    for line in _read("self/smaps_rollup", proc).splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    return 0


def _read(path: str, proc: int) -> str:
    fd = os.open(path, os.O_RDONLY, dir_fd=proc)
    with os.fdopen(fd) as file:
        return file.read()
