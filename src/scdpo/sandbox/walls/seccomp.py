"""A seccomp filter: the system calls that the kernel refuses to model-written code.

The filter is a program of classic BPF that the kernel runs before every system call of the
process, its threads and whatever they start; it cannot be taken off again. It refuses what leads
out of the process or round its limits, and lets ordinary Python pass. A call newer than the
tables is answered as by a kernel that lacks it.

What Python itself misses: shared memory without a file (`mmap.mmap(-1, n)`), limits, priority and
affinity of other processes, and without the network all that makes a socket, so `asyncio`,
`multiprocessing.Pipe()`, its managers and its fork server. Pools, queues and locks work.

Since Linux 5.11 the kernel works out once which calls pass whatever their arguments and no longer
runs the program for those; on older kernels they cost a binary search of about eight comparisons.

Sources: https://docs.kernel.org/userspace-api/seccomp_filter.html, seccomp(2), bpf in
https://docs.kernel.org/networking/filter.html; the numbers: `arch/x86/entry/syscalls/
syscall_64.tbl` and `include/uapi/asm-generic/unistd.h` of Linux 7.0.
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

NESTED_FLAGS = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
"""CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC and NEWUTS: all that a nested session joins."""

OUT_OF_REACH = 1 << 14
"""With `nested`, processes with ids from here on cannot be signalled: those of clones, which a
session sees below its own PID namespace."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""By machine, as `platform.machine()` names it: how the kernel marks calls of its 64-bit ABI."""

X32_BIT = 0x40000000
"""Set in the number of a call by the x32 ABI of x86_64."""

NEWEST = 471
"""The last number of the tables, the same on both machines; what lies above fails with ENOSYS."""

ALLOW = 0x7FFF0000
KILL = 0x80000000
_ERRNO = 0x00050000
REFUSE = _ERRNO | errno.EPERM
UNKNOWN = _ERRNO | errno.ENOSYS
IGNORE = _ERRNO | 0
NO_NETWORK = _ERRNO | errno.EACCES
NO_FAMILY = _ERRNO | errno.EAFNOSUPPORT

FilterAction: TypeAlias = "int | Check"


@dataclass(frozen=True)
class Check:
    """A verdict by argument: `inside` where `args[index] & mask` is among `values`.

    Reads the low 32 bits, as the kernel itself does with every argument that is checked here.
    """

    index: int
    values: tuple[int, ...]
    inside: FilterAction
    outside: FilterAction
    mask: int = 0xFFFFFFFF


# Name: number on x86_64, number on aarch64 (None: no such call there).
# fmt: off
DENIED: dict[str, tuple[int, int | None]] = {
    # Other processes: their memory, registers, descriptors, signals by descriptor.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    # What is mounted where, and who sees it.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "move_mount": (429, 429), "open_tree": (428, 428), "open_tree_attr": (467, 467),
    "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458),
    # Namespaces, where a process has every capability; `clone` is checked below.
    "unshare": (272, 97), "setns": (308, 268), "listns": (470, 470),
    # Large and often exploited parts of the kernel; io_uring also opens files and sockets past
    # a filter, and a user fault handler stops the kernel in the middle of a copy.
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_setup": (206, 0), "modify_ldt": (154, None), "lookup_dcookie": (212, 18),
    # Key rings, which no namespace separates.
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # The machine: its code, names, power, swap, accounts, log, clocks, ports, terminals.
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116),
    "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "sethostname": (170, 161), "setdomainname": (171, 162),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "iopl": (172, None), "ioperm": (173, None), "vhangup": (153, 58),
    "uselib": (134, None), "ustat": (136, None), "sysfs": (139, None), "_sysctl": (156, None),
    "nfsservctl": (180, 42),
    # Files by handle instead of by path, and reports on files that others open.
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    "inotify_init": (253, None), "inotify_init1": (294, 26),
    # Memory that counts for no process: nameless files, System V and POSIX objects, which also
    # outlive their maker, and pages that a pipe holds on to.
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "semget": (64, 190), "semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "vmsplice": (278, 75),
    # Where pages lie among the memory nodes, other processes' pages too.
    "mbind": (237, 235), "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
}

# Withheld with the network. `socket` for every family: a unix socket with a path leads out of a
# network namespace. Send and receive stay: the session talks to its owner by a socket it was given.
SOCKETS: dict[str, tuple[int, int | None]] = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
}

# Withheld where files can be reached that belong to the session's user: landlock, which keeps
# their contents, has no rule for these.
ATTRIBUTES: dict[str, tuple[int, int | None]] = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466), "file_setattr": (469, 469),
}

# Allowed or not by argument, see `checks`.
CHECKED: dict[str, tuple[int, int | None]] = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "setsid": (112, 157), "clone": (56, 220), "clone3": (435, 435),
    "ioctl": (16, 29), "fcntl": (72, 25), "mmap": (9, 222),
    "personality": (135, 92), "prctl": (157, 167), "prlimit64": (302, 261),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
}
# fmt: on

_NEW_NETWORK = 0x40000000
_NEW_NAMESPACE = NESTED_FLAGS | 0x02000000  # and CLONE_NEWCGROUP
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_TYPE = 0x01, 0x20, 0x0F
_PR_SET_DUMPABLE, _PR_SCHED_CORE, _PR_FUTEX_HASH = 4, 62, 78
_CLONE_PARENT = 0x8000
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE, _SOCK_STREAM, _SOCK_TYPE = 0, 1, 0x0F


def checks(*, network: bool, nested: bool, attributes: bool) -> dict[str, FilterAction]:
    """FilterAction by name for the calls that are neither always allowed nor always refused."""
    only_self = Check(0, (0,), ALLOW, REFUSE)
    found: dict[str, FilterAction] = {
        # The scheduler may give every session of processes a share of its own, and a hundred of
        # them would leave the owner a hundredth. No one misses what this does.
        "setsid": IGNORE,
        # The flags are the first argument on both machines. A child that is given its maker's
        # parent would be a sibling of the session, not a part of it.
        "clone": Check(0, (0,), ALLOW, REFUSE, mask=_NEW_NAMESPACE | _CLONE_PARENT),
        # Its flags lie in memory, out of a filter's sight; libc falls back to clone.
        "clone3": UNKNOWN,
        # Typing into a terminal, loading a line discipline, signals to others when data come.
        "ioctl": Check(1, (_TIOCSTI, _TIOCLINUX, _TIOCSETD, _FIOSETOWN, _SIOCSPGRP), REFUSE, ALLOW),
        "fcntl": Check(1, (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX), REFUSE, ALLOW),
        # Shared memory without a file stays whole as long as one page of it is mapped: neither
        # the address space nor the resident set of the process shows it.
        "mmap": Check(
            3, (_MAP_SHARED | _MAP_ANONYMOUS,), REFUSE, ALLOW, mask=_MAP_TYPE | _MAP_ANONYMOUS
        ),
        # PER_LINUX and the query; others switch address randomisation off or emulate old systems.
        "personality": Check(0, (0, 0xFFFFFFFF), ALLOW, REFUSE),
        # A core of one's own idles its sibling; a table of futexes is kernel memory of any size;
        # a process that is not dumpable hides how much memory it takes.
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
        # The first argument says what the second names: 0 and 1 stand for a process here.
        "setpriority": Check(0, (0,), Check(1, (0,), ALLOW, REFUSE), REFUSE),
        "ioprio_set": Check(0, (1,), Check(1, (0,), ALLOW, REFUSE), REFUSE),
    }
    if not attributes:
        found |= dict.fromkeys(ATTRIBUTES, REFUSE)
    near: FilterAction = ALLOW
    if nested:
        without_network = NESTED_FLAGS & ~_NEW_NETWORK
        found["setns"] = Check(1, (NESTED_FLAGS, without_network), ALLOW, REFUSE)
        far = 0xFFFFFFFF & ~(OUT_OF_REACH - 1)
        # The second value is that of small negative numbers, which stand for process groups.
        near = Check(0, (0, far), ALLOW, REFUSE, mask=far)
    # -1 stands for everyone.
    signals = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
    found |= dict.fromkeys(signals, Check(0, (0xFFFFFFFF,), REFUSE, near))
    if network:
        # Internet sockets, and the netlink one by which libc lists addresses to look up a name.
        # Not unix ones: by path they lead to services of this machine.
        netlink = Check(2, (_NETLINK_ROUTE,), ALLOW, NO_FAMILY)
        other = Check(0, (_AF_NETLINK,), netlink, NO_FAMILY)
        found["socket"] = Check(0, (_AF_INET, _AF_INET6), ALLOW, other)
        # A connected pair of streams cannot be turned to another address; datagrams can.
        streams = Check(1, (_SOCK_STREAM,), ALLOW, NO_FAMILY, mask=_SOCK_TYPE)
        found["socketpair"] = Check(0, (_AF_UNIX,), streams, NO_FAMILY)
    else:
        found |= dict.fromkeys(SOCKETS, NO_NETWORK)
    return found


def actions(
    machine: str, *, network: bool, nested: bool, attributes: bool
) -> dict[int, FilterAction]:
    """By number, for the calls of `machine` that are not simply allowed."""
    column = list(AUDIT_ARCH).index(machine)
    numbers = {
        name: both[column] for name, both in (DENIED | SOCKETS | ATTRIBUTES | CHECKED).items()
    }
    by_argument = checks(network=network, nested=nested, attributes=attributes)
    named = dict.fromkeys(DENIED, REFUSE) | by_argument
    by_number = {numbers[name]: verdict for name, verdict in named.items()}
    return {number: verdict for number, verdict in by_number.items() if number is not None}


Instruction: TypeAlias = tuple[int, int, int, int]
"""Operation, instructions to skip if true, if false, and a constant (`struct sock_filter`)."""

LOAD, AND, JUMP, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06

# Offsets in `struct seccomp_data`; both machines store the low half of an argument first.
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16


def program(
    machine: str, *, network: bool, nested: bool = False, attributes: bool = True
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
    special = actions(machine, network=network, nested=nested, attributes=attributes)
    line = [special.get(number, ALLOW) for number in range(NEWEST + 1)] + [UNKNOWN]
    starts = [(i, verdict) for i, verdict in enumerate(line) if i == 0 or verdict != line[i - 1]]
    return code + _search(starts)


def _search(starts: list[tuple[int, FilterAction]]) -> list[Instruction]:
    """Find the verdict for the loaded number: that of the last start not above it."""
    if len(starts) == 1:
        return _decide(starts[0][1])
    middle = len(starts) // 2
    below, above = _search(starts[:middle]), _search(starts[middle:])
    first = starts[middle][0]
    # A conditional jump reaches 255 instructions.
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


def assemble(*, network: bool, nested: bool = False, attributes: bool = True) -> bytes:
    """The filter for this machine as the kernel reads it.

    Raises OSError where the machine is not among AUDIT_ARCH.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in AUDIT_ARCH or sys.maxsize < 2**32:
        known = " and ".join(AUDIT_ARCH)
        found = f"{sys.platform} on {machine}"
        raise OSError(
            errno.ENOSYS, f"the seccomp filter knows 64-bit Linux on {known}, not {found}"
        )
    code = program(machine, network=network, nested=nested, attributes=attributes)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


_libc = ctypes.CDLL(None, use_errno=True)
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
_ALL_THREADS = 1


def installing(*, network: bool, nested: bool = False, attributes: bool = True) -> syscalls.Call:
    """The call by which `install` installs the filter, without no_new_privs.

    Raises OSError where the machine has no such filters.
    """
    code = assemble(network=network, nested=nested, attributes=attributes)
    arguments = (
        ctypes.c_long(_SECCOMP_CALL[platform.machine()]),
        ctypes.c_ulong(_SET_MODE_FILTER),
        ctypes.c_ulong(_ALL_THREADS),
        ctypes.pointer(_Program(len(code) // 8, code)),
    )
    return "seccomp", _libc.syscall, arguments


def install(*, network: bool, nested: bool = False, attributes: bool = True) -> None:
    """Put the filter on every thread of this process, and so on all that they start.

    Also sets no_new_privs, without which the kernel takes a filter only from an administrator.
    `network` leaves internet sockets, netlink's list of addresses and connected pairs of streams;
    other families, unix among them, fail with EAFNOSUPPORT. Without it all fail with EACCES.
    `nested` leaves `setns` for exactly NESTED_FLAGS (without the network's where that is shared),
    for copies of the process to enter namespaces of their own, and has OUT_OF_REACH hold; a
    second `install` without it closes that door. Without `attributes`, owner, mode, times and
    extended attributes of files stay as they are. Of several filters the strictest verdict counts.
    Raises OSError where the kernel or the machine has no such filters, and (EBUSY) where a thread
    has a filter of its own; a failure leaves nothing behind but no_new_privs.
    """
    installs = installing(network=network, nested=nested, attributes=attributes)
    syscalls.perform([syscalls.NO_NEW_PRIVS, installs])
