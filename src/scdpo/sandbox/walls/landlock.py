"""Landlock: a process asks the kernel to deny it files, the network and signals.

This needs no privilege and no namespace, holds for everything that the process starts, and cannot
be undone; a second restriction only adds to the first. It covers neither files that are already
open, nor calls that change a file's attributes (`chmod`, `chown`, `utime`, `setxattr`) or read
them (`stat`, `access`): these are controlled by the user id and by what is mounted.

Source: https://docs.kernel.org/userspace-api/landlock.html and `include/uapi/linux/landlock.h`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

# The same numbers on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK = 1 << 6, 1 << 7, 1 << 8, 1 << 9
_MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 10, 1 << 11, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV, _RESOLVE_UNIX = 1 << 13, 1 << 14, 1 << 15, 1 << 16

# The version of the interface that introduced each right.
_FILE_RIGHTS_SINCE = (
    (1, _REFER - 1),
    (2, _REFER),
    (3, _TRUNCATE),
    (5, _IOCTL_DEV),
    (9, _RESOLVE_UNIX),
)
_TCP, _UDP = 0b0011, 0b1100  # bind and connect of each
_NETWORK_SINCE = ((4, _TCP, "tcp"), (10, _UDP, "udp"))
_SCOPES = 0b11  # abstract unix sockets and signals
_SCOPES_SINCE = 6
# Keep this process, and those that restrict themselves further, from filling the audit log.
_NO_LOG, _NO_LOG_SINCE = 0b101, 7

_READ = _EXECUTE | _READ_FILE | _READ_DIR
# Without making devices, commands to device drivers, and sockets of other processes.
_WRITE = (
    _READ
    | _WRITE_FILE
    | _TRUNCATE
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_REG
    | _MAKE_SOCK
    | _MAKE_FIFO
    | _MAKE_SYM
    | _REFER
)
_OF_A_FILE = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The version of the interface, from 1 (Linux 5.13); 0 if the kernel lacks it or it is off.

    Version 7 is Linux 6.15. The kernel's documentation lists what each version introduced.
    """
    if sys.platform != "linux":
        return 0
    return max(_call(_CREATE_RULESET, 0, 0, _VERSION), 0)


def restrict(
    *, read: Iterable[str | Path], write: Iterable[str | Path], network: bool
) -> list[str]:
    """Restrict the calling thread, and the threads and processes that it starts from now on.

    `read`: files, and folders with everything below them, that may be read and executed. `write`:
    those that may also be changed, created, moved and removed; device nodes cannot be created.
    Nothing else can be opened. Paths that do not exist are skipped. Renaming or linking between two
    folders requires Linux 5.19 (EXDEV before that) and both folders in `write`.

    Without `network`, no TCP port (Linux 6.7) and no UDP port (7.2) can be bound or connected to.
    In any case, from Linux 6.12, the restricted processes can neither send signals nor connect to
    abstract unix sockets of processes that this very call does not restrict.

    Sets no_new_privs. Returns what the kernel supports: "files", "tcp", "udp" and "signals", where
    the last includes abstract sockets. Raises OSError if the kernel has no Landlock or refuses, as
    it does after 16 nested restrictions; apart from no_new_privs the process is then unchanged.
    Call it while the process has a single thread.
    """
    version = abi()
    if version == 0:
        raise OSError(
            errno.EOPNOTSUPP, "landlock is not available: it needs Linux 5.13 and must not be off"
        )
    handled = sum(rights for since, rights in _FILE_RIGHTS_SINCE if version >= since)
    obtained, ports = ["files"], 0
    for since, rights, name in _NETWORK_SINCE:
        if version >= since and not network:
            ports |= rights
            obtained.append(name)
    scopes = _SCOPES if version >= _SCOPES_SINCE else 0
    obtained += ["signals"] if scopes else []
    # Older kernels have a shorter structure, and accept this one if the rest is zero.
    attributes = struct.pack("=QQQ", handled, ports, scopes)
    ruleset = _check(_call(_CREATE_RULESET, attributes, len(attributes), 0), "create a ruleset")
    try:
        for paths, rights in ((read, _READ), (write, _WRITE)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        no_new_privs = map(ctypes.c_ulong, (1, 0, 0, 0))
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, *no_new_privs), "set no_new_privs")
        flags = _NO_LOG if version >= _NO_LOG_SINCE else 0
        _check(_call(_RESTRICT_SELF, ruleset, flags), "restrict this process")
    finally:
        os.close(ruleset)
    return obtained


def _allow(ruleset: int, path: str | Path, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            rights &= _OF_A_FILE
        rule = struct.pack("=Qi", rights, target)
        _check(_call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"allow {path}")
    finally:
        os.close(target)


def _call(number: int, *arguments: int | bytes) -> int:
    """The result of a system call; -1 for an error, whose number `ctypes` keeps."""
    words = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    return result


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: cannot {what}: {os.strerror(number)}")
    return result
