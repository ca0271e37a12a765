"""What hostile code has at hand; runs inside a session, as the first block of every attack.

Nothing in here is refused to anyone: it knows the owner's process, files and sockets by name, but
not the secrets in them. A deed is tried with `attempt`, which says SUCCEEDED where the host has
been reached. Where the isolation is broken, the fuses end an attack before it does any harm.
"""

# ruff: noqa: F401, PTH
import ctypes
import os
import signal
import stat
import subprocess
import sys
import threading
import time

TARGET = {}

libc = ctypes.CDLL(None, use_errno=True)
# Apart, so that no traceback through here says it.
REACHED = "SUC" + "CEEDED"
MB = 1 << 20
X86 = os.uname().machine == "x86_64"
# Numbers on x86_64 and on aarch64; from 424 on all machines have the same.
CALLS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "capset": (126, 91),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setscheduler": (144, 119),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}


def syscall(name, *arguments):
    """A system call by its name; raises OSError."""
    number = CALLS[name][0 if X86 else 1]
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *values)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def attempt(label, deed, *arguments, **options):
    """Do what must be refused, and print whether it was; returns whether it succeeded."""
    try:
        result = deed(*arguments, **options)
    except OSError as error:
        print(label, "refused", error.errno)
        return False
    print(label, REACHED, repr(result)[:80])
    return True


def refused(deed, *arguments):
    """Whether a deed is refused, without a word."""
    try:
        deed(*arguments)
    except OSError:
        return True
    return False


def signals_fuse():
    """Stop here, with `SUCCEEDED`, where any process outside of the session can be signalled."""
    for pid in TARGET["pids"]:
        if not refused(os.kill, pid, 0):
            raise RuntimeError(f"process {pid} in reach: {REACHED}")


def processes_fuse():
    """Stop here, with `SUCCEEDED`, where the number of processes is not limited."""
    children = []
    try:
        for _ in range(4 * TARGET["processes"]):
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            children.append(child)
    except OSError:
        return
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    raise RuntimeError(f"{len(children)} processes: {REACHED}")


def in_child(deed):
    """Do something in a forked child; returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            deed()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def daemon(deed):
    """Do something in a process with a session and a parent of its own, and return at once."""
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        deed()
    finally:
        os._exit(0)


def descriptors():
    """All open descriptors, found without /proc."""
    import fcntl

    return [fd for fd in range(1024) if not refused(fcntl.fcntl, fd, fcntl.F_GETFD)]


def touch(size):
    """Memory of `size` bytes that is really there."""
    import mmap

    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, 4096):
        area[at] = 1
    return area


def forever(*ignored, **more):
    while True:
        time.sleep(1)
