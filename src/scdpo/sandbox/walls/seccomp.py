"""A seccomp filter: the system calls that the kernel refuses to model-written code.

The filter is a classic BPF program that the kernel runs before every system call of the process,
its threads and everything they start; it cannot be removed. It refuses calls that lead out of the
process or around its limits, and lets ordinary Python pass. A call newer than the tables fails as
it would on a kernel that lacks it.

What does not work in Python: shared memory without a file (`mmap.mmap(-1, n)`), setting limits,
priority and affinity of other processes and, without the network, everything that creates a socket:
`asyncio`, `multiprocessing.Pipe()`, its managers and its fork server. Pools, queues and locks work.

Since Linux 5.11 the kernel determines once which calls are allowed with any arguments and does not
run the program for those. On older kernels they cost a binary search of about eight comparisons.

Sources: https://docs.kernel.org/userspace-api/seccomp_filter.html, seccomp(2), and for BPF
https://docs.kernel.org/networking/filter.html. The numbers come from `arch/x86/entry/syscalls/
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
"""CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC and NEWUTS: the namespaces that a clone enters."""

OUT_OF_REACH = 1 << 14
"""With `nested`, processes with this id or a higher one cannot be signalled: these are clones,
which a session sees below its own PID namespace."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""How the kernel marks calls of its 64-bit ABI, by machine as `platform.machine()` names it."""

X32_BIT = 0x40000000
"""The bit that the x32 ABI of x86_64 sets in the number of a call."""

NEWEST = 471
"""The highest number in the tables, the same on both machines; calls above fail with ENOSYS."""

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
    """An action that depends on an argument: `inside` if `args[index] & mask` is among `values`.

    Only the low 32 bits are read, as the kernel itself does with every argument checked here.
    """

    index: int
    values: tuple[int, ...]
    inside: FilterAction
    outside: FilterAction
    mask: int = 0xFFFFFFFF


# Name: number on x86_64, number on aarch64 (None: aarch64 has no such call).
# fmt: off
DENIED: dict[str, tuple[int, int | None]] = {
    # Access to other processes: memory, registers, descriptors, signals by descriptor.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    # Mounts.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "move_mount": (429, 429), "open_tree": (428, 428), "open_tree_attr": (467, 467),
    "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458),
    # Namespaces, in which a process has every capability; `clone` is checked below.
    "unshare": (272, 97), "setns": (308, 268), "listns": (470, 470),
    # Large and often exploited parts of the kernel. io_uring also opens files and sockets that
    # no filter sees, and a user fault handler can stop the kernel in the middle of a copy.
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
    # Opening files by handle instead of by path, and reports on files that others open.
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    "inotify_init": (253, None), "inotify_init1": (294, 26),
    # Memory that is counted for no process: files without a name, System V and POSIX objects,
    # which also outlive their creator, and pages that a pipe holds.
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "semget": (64, 190), "semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "vmsplice": (278, 75),
    # Placement of pages on memory nodes, including those of other processes.
    "mbind": (237, 235), "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
}

# Refused without the network. `socket` is refused for every family, as a unix socket with a path
# leads out of a network namespace. Sending and receiving stay allowed: the session talks to its
# owner through a socket that it was given.
SOCKETS: dict[str, tuple[int, int | None]] = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
}

# Refused where a session can reach files of its own user: Landlock protects their contents but has
# no rule for these calls.
ATTRIBUTES: dict[str, tuple[int, int | None]] = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466), "file_setattr": (469, 469),
}

# Allowed or refused depending on an argument, see `checks`.
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
        # Injecting input into a terminal, loading a line discipline, and having other processes
        # signalled when data arrive.
        "ioctl": Check(1, (_TIOCSTI, _TIOCLINUX, _TIOCSETD, _FIOSETOWN, _SIOCSPGRP), REFUSE, ALLOW),
        "fcntl": Check(1, (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX), REFUSE, ALLOW),
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


def actions(
    machine: str, *, network: bool, nested: bool, attributes: bool
) -> dict[int, FilterAction]:
    """Actions by number, for the calls of `machine` that are not always allowed."""
    column = list(AUDIT_ARCH).index(machine)
    numbers = {
        name: both[column] for name, both in (DENIED | SOCKETS | ATTRIBUTES | CHECKED).items()
    }
    by_argument = checks(network=network, nested=nested, attributes=attributes)
    named = dict.fromkeys(DENIED, REFUSE) | by_argument
    by_number = {numbers[name]: verdict for name, verdict in named.items()}
    return {number: verdict for number, verdict in by_number.items() if number is not None}


Instruction: TypeAlias = tuple[int, int, int, int]
"""Operation, instructions to skip if true and if false, and a constant (`struct sock_filter`)."""

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


def assemble(*, network: bool, nested: bool = False, attributes: bool = True) -> bytes:
    """The filter for this machine in the kernel's binary form.

    Raises OSError if the machine is not in AUDIT_ARCH.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in AUDIT_ARCH or sys.maxsize < 2**32:
        known = " and ".join(AUDIT_ARCH)
        found = f"{sys.platform} on {machine}"
        raise OSError(
            errno.ENOSYS, f"the seccomp filter supports 64-bit Linux on {known}, not {found}"
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
    """The call with which `install` installs the filter, without setting no_new_privs.

    Raises OSError if there is no filter for this machine.
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
    """Install the filter for every thread of this process, and so for everything they start.

    Also sets no_new_privs, without which the kernel accepts filters only from an administrator.

    `network` allows internet sockets, netlink's list of addresses and connected pairs of streams;
    other families, unix included, fail with EAFNOSUPPORT. Without `network` all sockets fail with
    EACCES. `nested` allows `setns` for exactly NESTED_FLAGS (without the network namespace if that
    is shared), so that copies of the process can enter namespaces of their own, and enforces
    OUT_OF_REACH; a second `install` without `nested` refuses `setns` again. Without `attributes`,
    owner, mode, times and extended attributes of files cannot be changed. If there are several
    filters, the strictest action counts.

    Raises OSError if there is no filter for this kernel or machine, and (EBUSY) if a thread has a
    filter of its own. After a failure only no_new_privs is set.
    """
    installs = installing(network=network, nested=nested, attributes=attributes)
    syscalls.perform([syscalls.NO_NEW_PRIVS, installs])
