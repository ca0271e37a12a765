"""What a session's process gives up before it runs model-written code."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass

from scdpo.sandbox.walls import landlock, seccomp, syscalls, view

MAX_FILES = 256
"""Descriptors that a process of a session may have open."""
_MAX_SIGNALS = 1024
_RLIMIT_NICE = 13


@dataclass(frozen=True)
class Rules:
    """The restrictions of every session of a sandbox.

    `namespaces`: the namespaces of its keeper that a session enters (`syscalls.NEW_…`); 0 at level
    `process`. `paths`: see `view.readable_paths`. `network`: the host's network stays reachable.
    `landlock`: Landlock restricts reading to `paths`; otherwise the mount namespace does.
    `read_everything`: a session may read those paths whatever their mode. `own_user`: it runs as
    the owner, whose files it could reach. `memory`: bytes of address space of each process, beyond
    the bare interpreter. `file_size`: bytes of a file. `processes`: processes and threads of the
    session's user.
    """

    namespaces: int
    paths: tuple[str, ...]
    network: bool
    landlock: bool
    read_everything: bool
    own_user: bool
    memory: int
    file_size: int
    processes: int


class Confinement:
    """The calls by which a session gives up its rights, prepared by the process that forks it."""

    def __init__(self, rules: Rules, bare: int) -> None:
        """`bare`: bytes of address space that the interpreter itself takes. Raises OSError."""
        self._rules = rules
        limits = [syscalls.limiting(which, least) for which, least in _limits(rules, bare)]
        privileges = syscalls.dropping_privileges(read_everything=rules.read_everything)
        self._first = [*limits, *privileges]
        self._last = [seccomp.installing(**filter_options(rules))]

    def apply(self, folder: str) -> None:
        """Set the limits, drop capabilities and install the filters.

        This holds for the calling process and every process that it starts. `folder`: the only
        folder that may be written to. Raises OSError.
        """
        syscalls.perform(self._first)
        rules = self._rules
        if rules.landlock:
            written = [folder, *view.DEVICES]
            landlock.restrict(read=rules.paths, write=written, network=rules.network)
        syscalls.perform(self._last)


def _limits(rules: Rules, bare: int) -> Iterator[tuple[int, int]]:
    wanted = {
        resource.RLIMIT_AS: bare + rules.memory,
        resource.RLIMIT_FSIZE: rules.file_size,
        # At 0 the kernel would still pipe core dumps to a program, if the host has set one.
        resource.RLIMIT_CORE: 1,
        resource.RLIMIT_NOFILE: MAX_FILES,
        resource.RLIMIT_SIGPENDING: _MAX_SIGNALS,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_NPROC: rules.processes,
    }
    for which, value in wanted.items():
        _, hard = resource.getrlimit(which)
        yield which, value if hard == resource.RLIM_INFINITY else min(value, hard)


def give_up_priorities() -> None:
    """Run this process, and all that it starts, at no more than normal priority.

    An owner may run in real time, or may be allowed to. Raises OSError.
    """
    if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    for which in (_RLIMIT_NICE, resource.RLIMIT_RTPRIO):
        resource.setrlimit(which, (0, 0))


def become(user: int) -> None:
    """Change to the user and the group with this id, without other groups. Raises OSError."""
    syscalls.keep_capabilities()
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def filter_options(rules: Rules) -> dict[str, bool]:
    """The arguments for `seccomp.install` and `seccomp.installing`."""
    return {
        "network": rules.network,
        "nested": bool(rules.namespaces),
        "attributes": not rules.own_user,
        "extended": bool(rules.namespaces),
    }


def close_all_but(*kept: int) -> None:
    """Close every descriptor of this process except `kept`."""
    low = 0
    for fd in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        # With an empty range from 0, `closerange` would close every descriptor.
        if fd > low:
            os.closerange(low, fd)
        low = fd + 1
