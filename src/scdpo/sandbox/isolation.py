"""What the kernel is asked to withhold from model-written code. Runs in the child; Linux only.

Namespaces (user, PID, IPC, network) where the kernel permits them, a seccomp filter by raw
`prctl`, no capabilities, no new privileges, resource limits.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from pathlib import Path

_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

INNER_ID = 1000
"""User and group id that the code sees inside the user namespace."""

# AUDIT_ARCH value, then syscall numbers. `socket` for every family, because a path-based unix
# socket leads out of a network namespace; io_uring because it opens sockets past a filter.
_SOCKET = {"x86_64": 41, "aarch64": 198}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALWAYS_DENIED = {
    # ptrace, process_vm_readv/writev, unshare, setns, mount, keyctl, add_key, request_key, bpf,
    # perf_event_open, userfaultfd; io_uring_setup/enter/register have one number everywhere
    "x86_64": (101, 310, 311, 272, 308, 165, 250, 248, 249, 321, 298, 323, 425, 426, 427),
    "aarch64": (117, 270, 271, 97, 268, 40, 219, 217, 218, 280, 241, 282, 425, 426, 427),
}
_X32_BIT = 0x40000000
_EACCES = 13

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _prctl(option: int, value: int, pointer: object = None) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0), f"prctl({option})")


def enter_namespaces(*, network: bool) -> list[str]:
    """Move into fresh namespaces; the PID namespace begins with the next fork.

    `network` keeps the host's network. Returns the names of the namespaces. Raises OSError
    where the kernel or a container's policy forbids them, and then has changed nothing.
    """
    # A failure half-way, such as at the user map, could not be undone: see in a child first.
    probe = os.fork()
    if probe == 0:
        status = 0
        try:
            _unshare(network=network)
        except OSError as error:
            status = (error.errno or 1) & 0xFF
        finally:
            os._exit(status)
    error_number = os.waitstatus_to_exitcode(os.waitpid(probe, 0)[1])
    if error_number != 0:
        raise OSError(error_number, os.strerror(error_number))
    return _unshare(network=network)


def _unshare(*, network: bool) -> list[str]:
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWIPC
    if not network:
        flags |= _CLONE_NEWNET
    _check(_libc.unshare(flags), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{INNER_ID} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{INNER_ID} {gid} 1")
    return ["user", "pid", "ipc", *([] if network else ["net"])]


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def drop_privileges() -> None:
    """Give up all capabilities, and the chance to gain any by executing a program."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def filter_syscalls(*, network: bool) -> None:
    """Install the seccomp filter; denied calls fail with EACCES.

    `network` leaves `socket` allowed. Raises OSError where filters are not to be had.
    """
    machine = platform.machine()
    if machine not in _AUDIT_ARCH:
        raise OSError(0, f"no syscall table for {machine}")
    denied = _ALWAYS_DENIED[machine] + (() if network else (_SOCKET[machine],))
    load, jump_eq, jump_ge, ret = 0x20, 0x15, 0x35, 0x06
    allow, deny, kill = 0x7FFF0000, 0x00050000 | _EACCES, 0x80000000
    program = [
        (load, 0, 0, 4),
        (jump_eq, 1, 0, _AUDIT_ARCH[machine]),
        (ret, 0, 0, kill),
        (load, 0, 0, 0),
    ]
    if machine == "x86_64":
        program += [(jump_ge, 0, 1, _X32_BIT), (ret, 0, 0, kill)]
    for number in denied:
        program += [(jump_eq, 0, 1, number), (ret, 0, 0, deny)]
    program.append((ret, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(
        struct.pack("@HxxxxxxP", len(program), ctypes.addressof(code))
    )
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)


def limit_resources(*, memory: int, file_size: int, processes: int | None) -> None:
    """Cap address space and size of a written file (bytes), and the user's processes."""
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: MAX_FILES,
    }
    if processes is not None:
        limits[resource.RLIMIT_NPROC] = processes
    for which, wanted in limits.items():
        _, hard = resource.getrlimit(which)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (value, value))


MAX_FILES = 256
