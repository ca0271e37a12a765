"""The filter on real processes of this machine; its program is read in test_seccomp_program."""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from children import in_child
from scdpo.sandbox.walls import seccomp
from scdpo.sandbox.walls.call_numbers import CHECKED, DENIED, SOCKETS
from scdpo.sandbox.walls.seccomp import NESTED_FLAGS

SIGCHLD = 17
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls of x86_64")


libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """0, or the errno of a raw system call."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return ctypes.get_errno() if result == -1 else 0


def here(name):
    return (DENIED | SOCKETS | CHECKED)[name][list(seccomp.AUDIT_ARCH).index(platform.machine())]


def errno_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


def test_each_denied_call_fails():
    def attempt():
        seccomp.install(network=False)
        found = {name: call(here(name), *[-1] * 6) for name in DENIED if here(name) is not None}
        sockets = {name: call(here(name), *[-1] * 6) for name in SOCKETS}
        return found, sockets, call(here("clone3"), 0, 0), call(seccomp.NEWEST + 1)

    denied, sockets, clone3, newer = in_child(attempt)
    assert set(denied.values()) == {errno.EPERM}
    assert set(sockets.values()) == {errno.EACCES}
    assert (clone3, newer) == (errno.ENOSYS, errno.ENOSYS)
    assert len(denied) > 80


def test_arguments_decide():
    def clone_into_user_namespace():
        pid = libc.syscall(ctypes.c_long(here("clone")), ctypes.c_long(0x10000000 | SIGCHLD), 0)
        if pid == 0:
            os._exit(0)
        return ctypes.get_errno()

    def attempt():
        # Requests of those who make terminals are refused.
        terminal, _ = os.openpty()
        seccomp.install(network=False)
        parent, own = os.getppid(), os.sched_getaffinity(0)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        refused = {
            "clone": clone_into_user_namespace(),
            "TIOCSTI": call(here("ioctl"), terminal, 0x5412, 0),
            "personality": call(here("personality"), 0x0040000),
            "futexes": call(here("prctl"), 78, 1, 1024, 0, 0),
            "shared": errno_of(mmap.mmap, -1, 4096),
            "limit": errno_of(resource.prlimit, parent, resource.RLIMIT_NOFILE, limits),
            "niceness": errno_of(os.setpriority, os.PRIO_PROCESS, parent, 5),
            "affinity": errno_of(os.sched_setaffinity, parent, own),
        }
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.sched_setaffinity(0, own)
        os.nice(1)
        mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        return refused, call(here("personality"), 0xFFFFFFFF), os.get_terminal_size(terminal)

    refused, personality, _ = in_child(attempt)
    assert set(refused.values()) == {errno.EPERM}, refused
    assert personality == 0


def test_files_have_no_leases_watchers_flags_or_locks(tmp_path):
    """What acts on a file beyond the process that has it open."""

    def attempt():
        seccomp.install(network=False, extended=False)
        (tmp_path / "file").touch()
        fd = os.open(tmp_path / "file", os.O_RDWR)
        folder = os.open(tmp_path, os.O_RDONLY)
        refused = [
            errno_of(fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_WRLCK),
            errno_of(fcntl.fcntl, folder, fcntl.F_NOTIFY, fcntl.DN_CREATE),
            errno_of(fcntl.fcntl, fd, fcntl.F_SETOWN, os.getpid()),
            errno_of(fcntl.fcntl, fd, fcntl.F_OFD_SETLK, bytes(32)),
            errno_of(fcntl.fcntl, fd, fcntl.F_SETFL, os.O_ASYNC),
            errno_of(fcntl.ioctl, fd, 0x40086602, bytes(8)),
            call(444, 0, 0, 1),
        ]
        kept = os.dup(fd)
        os.set_blocking(kept, False)
        os.set_inheritable(kept, True)
        absent = [errno_of(os.listxattr, fd), errno_of(os.getxattr, tmp_path, "user.x")]
        shutil.copy2(tmp_path / "file", tmp_path / "copy")
        locks = (fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB)
        locked = [
            errno_of(lock, os.open(tmp_path / "file", os.O_RDWR), kind)
            for lock in (fcntl.flock, fcntl.lockf)
            for kind in locks
        ]
        with sqlite3.connect(tmp_path / "base") as base:
            base.execute("create table t (x)")
            base.execute("insert into t values (1)")
        return refused, absent, locked, os.isatty(fd)

    refused, absent, locked, terminal = in_child(attempt)
    assert refused == [errno.EPERM] * 7
    assert absent == [errno.EOPNOTSUPP] * 2
    assert (locked, terminal) == ([0] * 4, False)


def test_no_socket_without_network():
    def attempt():
        seccomp.install(network=False)
        families = [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK]
        return [errno_of(socket.socket, f) for f in families] + [errno_of(socket.socketpair)]

    assert in_child(attempt) == [errno.EACCES] * 5


def test_a_socket_that_was_there_before_still_works():
    ours, theirs = socket.socketpair()

    def attempt():
        seccomp.install(network=False)
        with socket.socket(fileno=theirs.detach()) as again:
            again.sendall(again.recv(5)[::-1])
            return errno_of(again.connect, "/nowhere")

    with ours, theirs:
        ours.sendall(b"hello")
        assert in_child(attempt) == errno.EACCES
        assert ours.recv(5) == b"olleh"


def test_the_network_leaves_internet_sockets_only():
    def attempt():
        seccomp.install(network=True)
        server = socket.create_server(("127.0.0.1", 0))
        with server, socket.create_connection(server.getsockname()):
            pass
        assert socket.getaddrinfo("localhost", 80)
        assert socket.if_nameindex()
        for pair in socket.socketpair():
            pair.close()
        families = [socket.AF_UNIX, socket.AF_PACKET, socket.AF_ALG, socket.AF_VSOCK]
        return [
            *[errno_of(socket.socket, family) for family in families],
            errno_of(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 12),
            errno_of(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM),
        ]

    assert in_child(attempt) == [errno.EAFNOSUPPORT] * 6


def test_a_nested_session_may_join_only_its_own_namespaces_until_the_second_filter():
    def attempt():
        seccomp.install(network=False, nested=True)
        flags = [NESTED_FLAGS, 0x40000000, NESTED_FLAGS | 0x02000000]
        before = [call(here("setns"), -1, flag) for flag in flags]
        seccomp.install(network=False)
        return [*before, call(here("setns"), -1, NESTED_FLAGS)]

    assert in_child(attempt) == [errno.EBADF, errno.EPERM, errno.EPERM, errno.EPERM]


def test_the_filter_holds_for_threads_that_were_there_before():
    def attempt():
        go, found = threading.Event(), []
        thread = threading.Thread(target=lambda: (go.wait(), found.append(errno_of(socket.socket))))
        thread.start()
        seccomp.install(network=False)
        go.set()
        thread.join()
        return found

    assert in_child(attempt) == [errno.EACCES]


@on_x86
def test_a_call_by_the_x32_abi_kills():
    def attempt():
        seccomp.install(network=True, nested=True)
        return call(seccomp.X32_BIT | 39)

    assert in_child(attempt) == -signal.SIGSYS


@on_x86
def test_a_call_by_the_i386_abi_kills():
    def attempt(guarded):
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        page = mmap.mmap(-1, 4096, private, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
        get_pid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        if guarded:
            seccomp.install(network=True, nested=True)
        return get_pid() == os.getpid()

    if in_child(attempt, False) is not True:
        pytest.skip("this kernel has no i386 calls")
    assert in_child(attempt, True) == -signal.SIGSYS


ORDINARY = """
import concurrent.futures, multiprocessing, os, random, subprocess, sys, tempfile, threading, time
from scdpo.sandbox.walls import seccomp

def square(x):
    return x * x

def main():
    seccomp.install(network=False)
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        assert list(threads.map(square, range(5))) == [0, 1, 4, 9, 16]
    assert subprocess.run(["echo", "hi"], capture_output=True).stdout == b"hi\\n"
    assert subprocess.run("echo a | cat", shell=True, capture_output=True).stdout == b"a\\n"
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            assert pool.map(square, range(4)) == [0, 1, 4, 9]
        queue = context.Queue()
        queue.put(5)
        assert queue.get() == 5
        with context.Lock():
            assert context.Value("i", 3).value == 3
    with tempfile.TemporaryDirectory() as folder, open(folder + "/f", "w+") as file:
        file.write("x")
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o600)
    child = os.fork()
    if child == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert time.time() > 0 and random.SystemRandom().random() < 1 and len(os.urandom(9)) == 9
    import matplotlib
    matplotlib.use("agg")
    import numpy, sympy
    from matplotlib import pyplot
    assert numpy.linalg.solve(numpy.eye(300) * 2, numpy.ones(300))[0] == 0.5
    assert sympy.factorint(2**64 - 1)[641] == 1
    pyplot.plot([1, 2])
    pyplot.savefig(sys.argv[1])
    print("all of it")

if __name__ == "__main__":
    main()
"""


def test_ordinary_python_works(tmp_path):
    script, figure = tmp_path / "ordinary.py", tmp_path / "figure.png"
    script.write_text(ORDINARY)
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, script, figure], capture_output=True, text=True, env=environment
    )
    assert done.stdout == "all of it\n", done.stderr
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run unprivileged already")
def test_it_needs_no_privilege():
    python = shutil.which("python3", path=os.defpath)
    if python is None:
        pytest.skip("no interpreter that everyone may run")
    code = (
        "import os, socket, sys; assert sys.version_info >= (3, 11) or sys.exit(77)\n"
        "from scdpo.sandbox.walls import seccomp; seccomp.install(network=False)\n"
        "try: socket.socket()\nexcept PermissionError: print(os.geteuid(), 'none')"
    )
    site = next(p for p in sys.path if p.endswith("site-packages"))
    path = f"{Path(seccomp.__file__).parents[3]}:{site}"
    done = subprocess.run(
        [python, "-c", code],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode == 77:
        pytest.skip("the interpreter that everyone may run is too old")
    assert done.stdout == "65534 none\n", done.stderr


def test_an_unknown_machine_is_named(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="not linux on riscv64"):
        seccomp.install(network=False)
