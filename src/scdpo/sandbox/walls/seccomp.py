"""A seccomp filter: the system calls that the kernel refuses to model-written code.

The filter is a classic BPF program that the kernel runs before every system call of the process,
its threads and everything they start; it cannot be removed. It refuses calls that lead out of the
process or around its limits, and lets ordinary Python pass. A call newer than the tables fails as
it would on a kernel that lacks it.

What does not work in Python: shared memory without a file (`mmap.mmap(-1, n)`), setting limits,
priority and affinity of other processes and, without the network, everything that creates a socket:
`asyncio`, `multiprocessing.Pipe()`, its managers and its fork server. Pools, queues and locks work.
Locks on files always succeed and lock nothing. Of `fcntl` and `ioctl`, only the commands listed
here exist: those of descriptors, and those that programs send to find out what a descriptor is.

Since Linux 5.11 the kernel determines once which calls are allowed with any arguments and does not
run the program for those. On older kernels they cost a binary search of about eight comparisons.

Sources: https://docs.kernel.org/userspace-api/seccomp_filter.html, seccomp(2), and for BPF
https://docs.kernel.org/networking/filter.html. `call_numbers` lists the calls.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from dataclasses import dataclass
from typing import TypeAlias

from scdpo.sandbox.walls import syscalls
from scdpo.sandbox.walls.call_numbers import ATTRIBUTES, CHECKED, DENIED, EXTENDED, SOCKETS

NESTED_FLAGS = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
"""CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC and NEWUTS: the namespaces that a clone enters."""

OUT_OF_REACH = 1 << 14
"""With `nested`, processes with this id or a higher one cannot be signalled: these are clones,
which a session sees below its own PID namespace."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""How the kernel marks calls of its 64-bit ABI, by machine as `platform.machine()` names it."""

X32_BIT = 0x40000000
"""The bit that the x32 ABI of x86_64 sets in the number of a call."""

NEWEST = 471
"""The highest number of Linux 7.0, the same on both machines; calls above fail with ENOSYS."""

ALLOW = 0x7FFF0000
KILL = 0x80000000
_ERRNO = 0x00050000
REFUSE = _ERRNO | errno.EPERM
UNKNOWN = _ERRNO | errno.ENOSYS
IGNORE = _ERRNO | 0
NO_NETWORK = _ERRNO | errno.EACCES
NO_FAMILY = _ERRNO | errno.EAFNOSUPPORT
NOT_SUPPORTED = _ERRNO | errno.EOPNOTSUPP

FilterAction: TypeAlias = "int | Check"


@dataclass(frozen=True)
class Check:
    """An action that depends on an argument: `inside` if `args[index] & mask` is among `values`.

    Only the low 32 bits are read, as the kernel itself does with every argument checked here.
    """

    index: int
    values: tuple[int, ...]
    inside: FilterAction
    outside: FilterAction
    mask: int = 0xFFFFFFFF


_NEW_NETWORK = 0x40000000
_NEW_NAMESPACE = NESTED_FLAGS | 0x02000000  # and CLONE_NEWCGROUP
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_TYPE = 0x01, 0x20, 0x0F
_PR_SET_DUMPABLE, _PR_SCHED_CORE, _PR_FUTEX_HASH = 4, 62, 78
_CLONE_PARENT = 0x8000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_GETLK, F_DUPFD_CLOEXEC and F_GETPIPE_SZ.
_DESCRIPTOR_COMMANDS = (0, 1, 2, 3, 5, 1030, 1032)
_F_SETFL, _O_ASYNC = 4, 0o20000
_RECORD_LOCKS = (6, 7)  # F_SETLK and F_SETLKW
# TCGETS, TCGETS2, TIOCGPGRP, TIOCOUTQ, TIOCGWINSZ, TIOCGSID: what terminal is it, if it is one?
_TERMINAL_REQUESTS = (0x5401, 0x802C542A, 0x540F, 0x5411, 0x5413, 0x5429)
_DESCRIPTOR_REQUESTS = (0x541B, 0x5421, 0x5450, 0x5451)  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
# SIOCATMARK, and the names, flags, addresses, sizes and numbers of network interfaces.
_NETWORK_REQUESTS = (
    *(0x8905, 0x8910, 0x8912, 0x8913, 0x8915, 0x8919, 0x891B, 0x8921, 0x8927, 0x8933),
)
_FICLONE, _FICLONERANGE = 0x40049409, 0x4020940D
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE, _SOCK_STREAM, _SOCK_TYPE = 0, 1, 0x0F


def _file_commands(network: bool) -> dict[str, FilterAction]:
    """Actions for `fcntl`, `ioctl` and `flock`, which act on files that other programs use too."""
    # A session may be woken by signals only when it asks to be, not by what others do to a file.
    flags = Check(2, (0,), ALLOW, REFUSE, mask=_O_ASYNC)
    # Locks on the host's files would hold up its programs, and tell other sessions something.
    # SQLite and the like expect to get locks, and only the session itself sees its own files.
    locks = Check(1, _RECORD_LOCKS, IGNORE, REFUSE)
    interfaces = _NETWORK_REQUESTS if network else ()
    requests = (*_TERMINAL_REQUESTS, *_DESCRIPTOR_REQUESTS, *interfaces)
    # Copying by reference is what programs try first; this is how file systems decline.
    copying = Check(1, (_FICLONE, _FICLONERANGE), NOT_SUPPORTED, REFUSE)
    return {
        "fcntl": Check(1, _DESCRIPTOR_COMMANDS, ALLOW, Check(1, (_F_SETFL,), flags, locks)),
        "ioctl": Check(1, requests, ALLOW, copying),
        "flock": IGNORE,
    }


def checks(
    *, network: bool, nested: bool, attributes: bool, extended: bool
) -> dict[str, FilterAction]:
    """Actions by name for the calls that are neither always allowed nor always refused."""
    only_self = Check(0, (0,), ALLOW, REFUSE)
    found: dict[str, FilterAction] = {
        # The scheduler may give every session of processes an equal share of the CPU, so that a
        # hundred of them would leave the owner a hundredth. No code needs the effect of this call.
        "setsid": IGNORE,
        # The flags are the first argument on both machines. With CLONE_PARENT the child would be a
        # sibling of the session, not a part of it.
        "clone": Check(0, (0,), ALLOW, REFUSE, mask=_NEW_NAMESPACE | _CLONE_PARENT),
        # Its flags are in memory, where a filter cannot see them; libc falls back to `clone`.
        "clone3": UNKNOWN,
        **_file_commands(network),
        # Shared memory without a file stays allocated as long as any page of it is mapped, although
        # neither the address space nor the resident set of the process shows that.
        "mmap": Check(
            3, (_MAP_SHARED | _MAP_ANONYMOUS,), REFUSE, ALLOW, mask=_MAP_TYPE | _MAP_ANONYMOUS
        ),
        # PER_LINUX and the query. Others turn address randomisation off or emulate old systems.
        "personality": Check(0, (0, 0xFFFFFFFF), ALLOW, REFUSE),
        # Core scheduling idles the sibling of a core, a futex table is kernel memory of any size,
        # and a process that is not dumpable hides how much memory it uses.
        "prctl": Check(
            0,
            (_PR_SCHED_CORE, _PR_FUTEX_HASH),
            REFUSE,
            Check(0, (_PR_SET_DUMPABLE,), Check(1, (1,), ALLOW, REFUSE), ALLOW),
        ),
        # Limits and scheduling of this thread (0), not of another process of the same user.
        "prlimit64": only_self,
        "sched_setaffinity": only_self,
        "sched_setattr": only_self,
        "sched_setparam": only_self,
        "sched_setscheduler": only_self,
        # The first argument says what the second one names: here 0 and 1 stand for a process.
        "setpriority": Check(0, (0,), Check(1, (0,), ALLOW, REFUSE), REFUSE),
        "ioprio_set": Check(0, (1,), Check(1, (0,), ALLOW, REFUSE), REFUSE),
    }
    if not attributes:
        found |= dict.fromkeys(ATTRIBUTES, REFUSE)
    if not extended:
        found |= dict.fromkeys(EXTENDED, NOT_SUPPORTED)
    near: FilterAction = ALLOW
    if nested:
        without_network = NESTED_FLAGS & ~_NEW_NETWORK
        found["setns"] = Check(1, (NESTED_FLAGS, without_network), ALLOW, REFUSE)
        far = 0xFFFFFFFF & ~(OUT_OF_REACH - 1)
        # The second value stands for small negative numbers, which name process groups.
        near = Check(0, (0, far), ALLOW, REFUSE, mask=far)
    # -1 stands for all processes.
    signals = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
    found |= dict.fromkeys(signals, Check(0, (0xFFFFFFFF,), REFUSE, near))
    if network:
        # Internet sockets, and the netlink socket with which libc lists addresses to look up a
        # name. Not unix sockets: with a path they lead to services of this machine.
        netlink = Check(2, (_NETLINK_ROUTE,), ALLOW, NO_FAMILY)
        other = Check(0, (_AF_NETLINK,), netlink, NO_FAMILY)
        found["socket"] = Check(0, (_AF_INET, _AF_INET6), ALLOW, other)
        # A connected pair of streams cannot be connected to another address; datagrams can.
        streams = Check(1, (_SOCK_STREAM,), ALLOW, NO_FAMILY, mask=_SOCK_TYPE)
        found["socketpair"] = Check(0, (_AF_UNIX,), streams, NO_FAMILY)
    else:
        found |= dict.fromkeys(SOCKETS, NO_NETWORK)
    return found


def actions(machine: str, **options: bool) -> dict[int, FilterAction]:
    """Actions by number, for the calls of `machine` that are not always allowed.

    `options`: those of `checks`.
    """
    column = list(AUDIT_ARCH).index(machine)
    tables = DENIED | SOCKETS | ATTRIBUTES | EXTENDED | CHECKED
    numbers = {name: both[column] for name, both in tables.items()}
    by_argument = checks(**options)
    named = dict.fromkeys(DENIED, REFUSE) | by_argument
    by_number = {numbers[name]: verdict for name, verdict in named.items()}
    return {number: verdict for number, verdict in by_number.items() if number is not None}


Instruction: TypeAlias = tuple[int, int, int, int]
"""Operation, instructions to skip if true and if false, and a constant (`struct sock_filter`)."""

LOAD, AND, JUMP, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06

# Offsets in `struct seccomp_data`; both machines store the low half of an argument first.
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16


def program(
    machine: str,
    *,
    network: bool,
    nested: bool = False,
    attributes: bool = True,
    extended: bool = True,
) -> list[Instruction]:
    """The filter for `machine` (a key of AUDIT_ARCH) as BPF instructions."""
    code = [
        (LOAD, 0, 0, _ARCH),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        code += [(JUMP_AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, KILL)]
    special = actions(
        machine, network=network, nested=nested, attributes=attributes, extended=extended
    )
    line = [special.get(number, ALLOW) for number in range(NEWEST + 1)] + [UNKNOWN]
    starts = [(i, verdict) for i, verdict in enumerate(line) if i == 0 or verdict != line[i - 1]]
    return code + _search(starts)


def _search(starts: list[tuple[int, FilterAction]]) -> list[Instruction]:
    """Find the action for the loaded number, which is that of the last start not above it."""
    if len(starts) == 1:
        return _decide(starts[0][1])
    middle = len(starts) // 2
    below, above = _search(starts[:middle]), _search(starts[middle:])
    first = starts[middle][0]
    # A conditional jump can skip at most 255 instructions.
    if len(below) <= 255:
        return [(JUMP_AT_LEAST, len(below), 0, first), *below, *above]
    return [(JUMP_AT_LEAST, 0, 1, first), (JUMP, 0, 0, len(below)), *below, *above]


def _decide(verdict: FilterAction) -> list[Instruction]:
    if isinstance(verdict, int):
        return [(RETURN, 0, 0, verdict)]
    code: list[Instruction] = [(LOAD, 0, 0, _ARGUMENTS + 8 * verdict.index)]
    if verdict.mask != 0xFFFFFFFF:
        code.append((AND, 0, 0, verdict.mask))
    inside, outside = _decide(verdict.inside), _decide(verdict.outside)
    last = len(verdict.values) - 1
    for i, value in enumerate(verdict.values):
        code.append((JUMP_EQUAL, last - i + len(outside), 0, value))
    return code + outside + inside


def assemble(*, network: bool, **options: bool) -> bytes:
    """The filter for this machine in the kernel's binary form. `options`: those of `program`.

    Raises OSError if the machine is not in AUDIT_ARCH.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in AUDIT_ARCH or sys.maxsize < 2**32:
        known = " and ".join(AUDIT_ARCH)
        found = f"{sys.platform} on {machine}"
        raise OSError(
            errno.ENOSYS, f"the seccomp filter supports 64-bit Linux on {known}, not {found}"
        )
    code = program(machine, network=network, **options)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


_libc = ctypes.CDLL(None, use_errno=True)
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
_ALL_THREADS = 1


def installing(*, network: bool, **options: bool) -> syscalls.Call:
    """The call with which `install` installs the filter, without setting no_new_privs.

    Raises OSError if there is no filter for this machine.
    """
    code = assemble(network=network, **options)
    arguments = (
        ctypes.c_long(_SECCOMP_CALL[platform.machine()]),
        ctypes.c_ulong(_SET_MODE_FILTER),
        ctypes.c_ulong(_ALL_THREADS),
        ctypes.pointer(_Program(len(code) // 8, code)),
    )
    return "seccomp", _libc.syscall, arguments


def install(
    *, network: bool, nested: bool = False, attributes: bool = True, extended: bool = True
) -> None:
    """Install the filter for every thread of this process, and so for everything they start.

    Also sets no_new_privs, without which the kernel accepts filters only from an administrator.

    `network` allows internet sockets, netlink's list of addresses and connected pairs of streams;
    other families, unix included, fail with EAFNOSUPPORT. Without `network` all sockets fail with
    EACCES. `nested` allows `setns` for exactly NESTED_FLAGS (without the network namespace if that
    is shared), so that copies of the process can enter namespaces of their own, and enforces
    OUT_OF_REACH; a second `install` without `nested` refuses `setns` again. Without `attributes`,
    owner, mode, times and extended attributes of files cannot be changed, and without `extended`
    there are no extended attributes to read. If there are several filters, the strictest action
    counts.

    Raises OSError if there is no filter for this kernel or machine, and (EBUSY) if a thread has a
    filter of its own. After a failure only no_new_privs is set.
    """
    installs = installing(network=network, nested=nested, attributes=attributes, extended=extended)
    syscalls.perform([syscalls.NO_NEW_PRIVS, installs])
