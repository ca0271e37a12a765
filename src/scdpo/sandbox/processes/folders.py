"""Level `process`: sessions are plain processes with a folder each, told apart by descent."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scdpo.sandbox.processes import files
from scdpo.sandbox.processes.process_table import ProcessTable, send_signal
from scdpo.sandbox.processes.supervisor import Answer, Pulse, Warm, failure, over_limit

_KILL_SECONDS = 5.0
_AT_ONCE = 0.02
"""Seconds that `end` waits itself; ends that take longer do not hold up other sessions."""
_MAX_FILES = 8192
_MAX_PATH = 1000


@dataclass
class _Place:
    """A session's folder and process.

    `family`: the number of the session at the root of its clones, which may be its own. A family
    runs as the same `user` (None: the owner), and its sessions may write to each other's folders.
    `pid`: 0 until the process is known. `why`: the cut, if the supervisor has ended the session.
    """

    folder: Path
    family: int
    user: int | None
    pid: int = 0
    why: str = ""


@dataclass
class _Ending:
    """A session whose processes have been killed but may not be gone; waited for until `until`."""

    place: _Place
    answer: Answer
    until: float


class Folders:
    """Implements `supervisor.SessionManager`. The supervisor adopts what sessions leave behind.

    `users`: ids that sessions run as; empty if sessions can only run as the owner.
    """

    def __init__(
        self, warm: Warm, table: ProcessTable, base: Path, users: range, memory: int, disk: int
    ) -> None:
        self._warm = warm
        self._table = table
        self._own = table.own()
        self._base = base
        self._users = users
        self._disk = disk
        self._kept = frozenset(table.descendants([self._own]))
        self._memory = memory + max(map(table.resident, self._kept))
        self._places: dict[int, _Place] = {}
        self._awaited: set[int] = set()
        self._sweep_due: set[int | None] = set()
        self._endings: list[_Ending] = []

    def start(self, number: int, fds: list[int], answer: Answer) -> None:
        """See `SessionManager`."""
        # So that another sandbox of root is likely to start at another id.
        shift = 8192 * os.getpid() + number
        user = self._users[shift % len(self._users)] if self._users else None
        place = self._make(number, number, user)

        def done(pid: int) -> None:
            place.pid = max(pid, 0)
            answer(**failure(pid))

        self._warm.fork(str(place.folder), user, fds, done)

    def clone(self, number: int, source: int, answer: Answer) -> None:
        """See `SessionManager`; the answer names the copy's folder."""
        place = self._places.get(source)
        if place is None:
            answer(error="its session is gone")
            return
        self._awaited.add(number)
        answer(folder=str(self._make(number, place.family, place.user).folder))

    def adopt(self, number: int, pid: int, answer: Answer) -> None:
        """See `SessionManager`."""
        self._awaited.discard(number)
        place = self._places.get(number)
        if place is None or pid not in self._strangers():
            answer(error=f"process {pid} is not a copy of a session")
        else:
            place.pid = pid
            answer()
        self._sweep_if_due()

    def end(self, number: int, answer: Answer) -> None:
        """See `SessionManager`."""
        self._awaited.discard(number)
        place = self._places.pop(number, None)
        if place is None:
            answer()
            return
        self._kill_below(place)
        started = time.monotonic()
        ending = _Ending(place, answer, started + _KILL_SECONDS)
        self._endings.append(ending)
        self._finish_endings()
        while ending in self._endings and time.monotonic() < started + _AT_ONCE:
            time.sleep(0.0002)
            self._finish_endings()

    def expire(self, number: int) -> None:
        """See `SessionManager`."""
        place = self._places.get(number)
        if place is not None and not place.why:
            place.why = "deadline"
            self._kill_below(place)

    def watch(self, pulse: Pulse) -> None:
        """See `SessionManager`; also adds up the files of each session."""
        self._finish_endings()
        self._sweep_if_due()
        for place in self._places.values():
            if not place.pid or place.why:
                continue
            pids = [place.pid, *self._table.descendants([place.pid])]
            if (
                over_limit(self._table, pids, self._memory, pulse)
                or _too_large(self._table, place.folder, pids, self._disk)
                or self._has_strays(place)
            ):
                place.why = place.why or "memory"
                self._kill_below(place)
        strangers = [] if self._awaited else self._strangers()
        pids = [*strangers, *self._table.descendants(strangers)]
        if over_limit(self._table, pids, self._memory, pulse):
            self._kill_trees(strangers)

    def wants_to_prepare(self) -> bool:
        """See `SessionManager`."""
        return False

    def prepare(self) -> None:
        """See `SessionManager`."""

    def close(self) -> None:
        """See `SessionManager`."""
        self._awaited.clear()
        for place in self._places.values():
            self._kill_below(place)
        until = time.monotonic() + _KILL_SECONDS
        while self._kill_strangers({None}) and time.monotonic() < until:
            time.sleep(0.0002)
        files.remove(str(self._base))

    def _make(self, number: int, family: int, user: int | None) -> _Place:
        # A name that no session can occupy in advance.
        folder = self._base / str(family) / f"{number}-{secrets.token_hex(4)}"
        folder.parent.mkdir(exist_ok=True)
        with self._open(folder.parent, user):
            folder.mkdir(mode=0o700)
            if user is not None:
                os.chown(folder, user, user, follow_symlinks=False)
        place = self._places[number] = _Place(folder, family, user)
        return place

    def _discard(self, place: _Place) -> None:
        # First move it out of the family's reach, as deleting many files takes a while.
        doomed = self._base / f"ended-{place.folder.name}"
        with contextlib.suppress(OSError), self._open(place.folder.parent, place.user):
            place.folder.rename(doomed)
        files.remove(str(doomed))
        if all(other.family != place.family for other in self._places.values()):
            files.remove(str(place.folder.parent))

    @contextlib.contextmanager
    def _open(self, folder: Path, user: int | None) -> Iterator[None]:
        """Let this process write to a family's folder.

        Sessions cannot write there, or they could replace their folders with links, or put files
        where none are counted. If they run as the folder's owner, its mode keeps them out, which
        they cannot change.
        """
        folder.chmod(0o711 if user is not None else 0o700)
        try:
            yield
        finally:
            if user is None:
                folder.chmod(0o500)

    def _has_strays(self, place: _Place) -> bool:
        """Whether a session has created something in the family's folder while that was open."""
        if place.user is not None:
            return False
        ending = [ending.place for ending in self._endings]
        places = [*self._places.values(), *ending]
        ours = {p.folder for p in places if p.family == place.family}
        with contextlib.suppress(OSError):
            return not ours.issuperset(place.folder.parent.iterdir())
        return False

    def _kill_below(self, place: _Place) -> None:
        # The process may have ended, and its id may belong to an unrelated process.
        if place.pid and place.pid in self._table.descendants([self._own]):
            self._kill_trees([place.pid])

    def _strangers(self) -> list[int]:
        """Children that are neither our own processes nor sessions: orphans of sessions."""
        known = {place.pid for place in self._places.values()} | self._kept
        return [pid for pid in self._table.children(self._own) if pid not in known]

    def _finish_endings(self) -> None:
        """Answer for the sessions of which nothing is left."""
        for ending in list(self._endings):
            place = ending.place
            if self._is_gone(place) or time.monotonic() > ending.until:
                self._endings.remove(ending)
                self._discard(place)
                ending.answer(why=place.why)

    def _is_gone(self, place: _Place) -> bool:
        if place.pid and self._table.lives(place.pid):
            return False
        if self._awaited:
            # The orphans may include a clone that is not yet known as a session.
            self._sweep_due.add(place.user)
            return True
        return not self._kill_strangers({place.user})

    def _sweep_if_due(self) -> None:
        if self._sweep_due and not self._awaited and not self._kill_strangers(self._sweep_due):
            self._sweep_due = set()

    def _kill_strangers(self, users: set[int | None]) -> bool:
        """Kill the orphans of `users`; whether there were any, as killing can orphan others.

        If sessions run as their owner, this kills the orphans of all sessions.
        """
        strangers = self._strangers()
        if None not in users:
            strangers = [pid for pid in strangers if self._table.user(pid) in users]
        self._kill_trees(strangers)
        return bool(strangers)

    def _kill_trees(self, roots: Iterable[int]) -> None:
        """Kill processes and their descendants, stopping them first so that they cannot fork."""
        roots = list(roots)
        stopped: set[int] = set()
        until = time.monotonic() + _KILL_SECONDS
        while new := {*roots, *self._table.descendants(roots)} - stopped:
            send_signal(signal.SIGSTOP, new)
            stopped |= new
            if time.monotonic() > until:
                break
        send_signal(signal.SIGKILL, stopped)


def _too_large(table: ProcessTable, folder: Path, pids: list[int], limit: int) -> bool:
    """Whether a folder, with files that `pids` have deleted but still open, exceeds `limit` bytes.

    Also True if there are too many files, or folders too deep to count.
    """
    size = count = 0
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    # Walking nested folders takes time that grows with the square of the depth.
                    if len(entry.path) > _MAX_PATH:
                        return True
                else:
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
        if size > limit or count > _MAX_FILES:
            return True
    unlinked: dict[tuple[int, int], int] = {}
    for pid in pids:
        unlinked |= table.unlinked(pid)
    return size + sum(unlinked.values()) > limit
