"""System calls that Python has no function for, made through libc. Linux only.

Each function raises OSError if the kernel refuses. The sources are the manual pages of the calls
(man7.org, section 2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
from collections.abc import Callable, Iterable
from typing import TypeAlias

NEW_MOUNTS = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_PIDS = 0x20000000
NEW_NETWORK = 0x40000000

MOUNT_READ_ONLY = 0x1
MOUNT_NO_SUID = 0x2
MOUNT_NO_DEVICES = 0x4

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 0x1
_MOVE_FROM_EMPTY_PATH = 0x4
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 0x2
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_CLONE_VM = 0x100
_CLONE_FILES = 0x400
_STACK_BYTES = 1 << 14
_SIG_SETMASK = int(signal.SIG_SETMASK)
_EVERY_SIGNAL = b"\xff" * 128
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 2
_SIGCHLD = ctypes.c_int(signal.SIGCHLD)
_DEFAULT, _IGNORE = ctypes.c_void_p(0), ctypes.c_void_p(1)

# Calls added since Linux 5.0 have the same number on every machine.
_CLONE = {"x86_64": 56, "aarch64": 220}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_OPEN_TREE = 428
_CLONE3 = 435
_MOVE_MOUNT = 429
_MOUNT_SETATTR = 442

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter's lock: the child has no other thread to get it back from.
_interpreter = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


Call: TypeAlias = "tuple[str, Callable[..., int], tuple[object, ...]]"
"""A call that is ready to be made: its name, the function of libc, and its arguments."""


def perform(calls: Iterable[Call]) -> None:
    """Make calls that return 0 on success. Raises OSError at the first that fails.

    A parent prepares these calls for the processes that it forks. Only making them touches little
    of the shared memory, so little of it has to be copied.
    """
    for what, function, arguments in calls:
        if result := function(*arguments):
            error = ctypes.get_errno() if result < 0 else errno.EBUSY
            raise OSError(error, f"{what}: {os.strerror(error)}")


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def _call(what: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *words)), what)


def _number(table: dict[str, int], what: str) -> int:
    machine = platform.machine()
    if machine not in table:
        raise OSError(errno.ENOSYS, f"{what}: no call number is known for {machine}")
    return table[machine]


def fork_into(namespaces: int) -> int:
    """Fork a child into new namespaces; it is process 1 if they include a PID namespace.

    Only for processes with a single thread: no fork handlers run. Returns the child's process id,
    and 0 in the child.
    """
    number = _number(_CLONE, "clone")
    return _call("clone", number, namespaces | signal.SIGCHLD, 0, 0, 0, 0)


def fork_as(pid: int) -> int:
    """`fork_into(0)` with a process id for the child, if it is free and the kernel allows it.

    Choosing the id requires CAP_SYS_ADMIN in the user namespace of the PID namespace, and Linux
    5.5.
    """
    wanted = ctypes.c_int(pid)
    # `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size,
    # tls, set_tid, set_tid_size.
    words = (0, 0, 0, 0, int(signal.SIGCHLD), 0, 0, 0, ctypes.addressof(wanted), 1)
    arguments = ctypes.create_string_buffer(struct.pack("<10Q", *words), 80)
    try:
        return _call("clone3", _CLONE3, arguments, 80)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EEXIST, errno.E2BIG):
            raise
        return fork_into(0)


Stack = ctypes.Array[ctypes.c_char]


def start_waiting(namespaces: int) -> tuple[int, Stack]:
    """Start a process in new namespaces that waits to be killed, with every signal blocked.

    It shares the memory and the descriptors of this process, which must have a single thread.
    Returns its process id and its stack, which must be kept until the process has ended.
    """
    stack = ctypes.create_string_buffer(_STACK_BYTES)
    top = (ctypes.addressof(stack) + _STACK_BYTES) & ~15
    flags = namespaces | _CLONE_VM | _CLONE_FILES | signal.SIGCHLD
    # Not with the module `signal`, which builds sets of enum members from the results.
    before = ctypes.create_string_buffer(len(_EVERY_SIGNAL))
    perform([("sigprocmask", _libc.sigprocmask, (_SIG_SETMASK, _EVERY_SIGNAL, before))])
    try:
        pid = _libc.clone(_libc.pause, ctypes.c_void_p(top), ctypes.c_int(flags), None)
        # The next call may change the error number.
        pid = _checked(pid, "clone")
    finally:
        perform([("sigprocmask", _libc.sigprocmask, (_SIG_SETMASK, before, None))])
    return pid, stack


def plain_fork() -> int:
    """`os.fork` without Python's own fork handlers. Only for processes with a single thread.

    libc's handlers run. Those of Python cost half a millisecond if memory is shared.
    """
    pid = _interpreter.fork()
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"fork: {os.strerror(error)}")
    return int(pid)


def enter(fd: int, namespaces: int) -> None:
    """Move this process into namespaces of the process behind a pidfd (or a namespace file).

    A PID namespace is entered by children that are forked afterwards, not by this process.
    """
    perform([entering(fd, namespaces)])


def entering(fd: int, namespaces: int) -> Call:
    """The call that `enter` makes."""
    return "setns", _libc.setns, (ctypes.c_int(fd), ctypes.c_int(namespaces))


def open_tree(path: str) -> int:
    """A descriptor of a copy of the mounts below `path`, which is not mounted anywhere yet."""
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    return _call(f"open_tree {path}", _OPEN_TREE, _AT_FDCWD, os.fsencode(path) + b"\0", flags)


def move_mount(tree: int, path: str) -> None:
    """Mount at `path` what `open_tree` returned."""
    target = os.fsencode(path) + b"\0"
    where = (tree, b"\0", _AT_FDCWD, target, _MOVE_FROM_EMPTY_PATH)
    _call(f"move_mount {path}", _MOVE_MOUNT, *where)


def set_mount_flags(tree: int, flags: int, *, recursive: bool = True) -> None:
    """Add flags (`MOUNT_…`) to the mount behind a descriptor, and to those below it."""
    attributes = ctypes.create_string_buffer(struct.pack("<QQQQ", flags, 0, 0, 0), 32)
    how = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _call("mount_setattr", _MOUNT_SETATTR, tree, b"\0", how, attributes, 32)


def leave_mounts() -> None:
    """Move this process to a copy of its mount namespace, owned by its user namespace."""
    _checked(_libc.unshare(ctypes.c_int(NEW_MOUNTS)), "unshare")


def make_mounts_private() -> None:
    """Keep mounts from propagating between this namespace and the one it was copied from."""
    _checked(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "mount /")


def mount_tmpfs(path: str, options: str) -> None:
    """Mount an empty file system in memory, without devices and set-uid programs."""
    perform([mounting_tmpfs(path, options)])


def mounting_tmpfs(path: str, options: str) -> Call:
    """The call that `mount_tmpfs` makes."""
    flags = ctypes.c_ulong(MOUNT_NO_SUID | MOUNT_NO_DEVICES)
    arguments = (b"tmpfs", os.fsencode(path), b"tmpfs", flags, options.encode())
    return f"mount tmpfs at {path}", _libc.mount, arguments


def change_root(path: str) -> None:
    """Make the mount at `path` the root of this mount namespace, and unmount the old root."""
    os.chdir(path)
    _call("pivot_root", _number(_PIVOT_ROOT, "pivot_root"), b".\0", b".\0")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def set_host_name(name: bytes) -> None:
    """Set the host name of this UTS namespace."""
    _checked(_libc.sethostname(name, len(name)), "sethostname")


def _prctl(option: int, *values: int) -> Call:
    words = [ctypes.c_ulong(v) for v in (*values, 0, 0, 0, 0)][:4]
    return f"prctl({option})", _libc.prctl, (ctypes.c_int(option), *words)


DIE_WITH_PARENT = _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
"""Have the kernel kill this process when its parent ends. Changing the user undoes this."""
STAY_READABLE = _prctl(_PR_SET_DUMPABLE, 1)
"""Keep this process the owner of its files in /proc after a change of user."""
NO_NEW_PRIVS = _prctl(_PR_SET_NO_NEW_PRIVS, 1)
"""Give up gaining privileges by executing a program, permanently."""


def keep_capabilities() -> None:
    """Keep root's capabilities after a change of user, until they are dropped."""
    perform([_prctl(_PR_SET_KEEPCAPS, 1)])


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    perform([_prctl(_PR_SET_CHILD_SUBREAPER, 1)])


def ignore_children() -> None:
    """Have the kernel reap children as they end. Python still takes SIGCHLD for the default."""
    _libc.signal(_SIGCHLD, _IGNORE)


def await_children() -> None:
    """Undo `ignore_children`, also in a process that was forked after it."""
    _libc.signal(_SIGCHLD, _DEFAULT)


def dropping_privileges(*, read_everything: bool = False) -> list[Call]:
    """Calls that give up all capabilities, and the chance to gain any by executing a program.

    `read_everything` keeps the capability to read files whatever their mode, for this process and
    the programs it executes; something else must then restrict which files.
    """
    kept = 1 << _CAP_DAC_READ_SEARCH if read_everything else 0
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    sets = struct.pack("<6I", kept, kept, kept, 0, 0, 0)
    calls: list[Call] = [NO_NEW_PRIVS, ("capset", _libc.capset, (header, sets))]
    if read_everything:
        calls.append(_prctl(_PR_CAP_AMBIENT, 2, _CAP_DAC_READ_SEARCH))
    return calls


def limiting(which: int, value: int) -> Call:
    """The call that sets the soft and the hard limit of a resource (`resource.RLIMIT_…`)."""
    both = ctypes.create_string_buffer(struct.pack("@LL", value, value))
    return f"setrlimit({which})", _libc.setrlimit, (ctypes.c_int(which), both)
