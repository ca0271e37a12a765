"""A session: the forked process that runs the blocks of one solution."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import socket
import sys
import tempfile
import time
import warnings
from importlib.abc import MetaPathFinder
from pathlib import Path

from scdpo.sandbox import isolation, wire
from scdpo.sandbox.cell import Notebook

# Near the top of the descriptors a session may have, out of the way of what code opens.
_SOCKET_FD = isolation.MAX_FILES - 2
_OUTPUT_FD = isolation.MAX_FILES - 1


def serve(sock: socket.socket, output_fd: int, folder: str) -> None:
    """Run blocks until the owner closes the socket; does not return."""
    sock, output_fd = _settle(sock, output_fd, folder)
    tempfile.tempdir = folder
    sys.path.insert(0, "")
    sys.meta_path.insert(0, _PlottingWithoutScreen())
    _seed(0)
    notebook = Notebook(output_fd)
    while True:
        header, fds, _, _ = socket.recv_fds(sock, wire.HEADER.size, 2)
        header += wire.receive_exactly(sock, wire.HEADER.size - len(header))
        if len(header) < wire.HEADER.size:
            os._exit(0)
        kind, length = wire.HEADER.unpack(header)
        payload = wire.receive_exactly(sock, length)
        if kind == wire.CLONE:
            sock = _clone(sock, notebook, fds, payload.decode())
        else:
            fits = notebook.run(payload.decode("utf-8", "surrogatepass"))
            sock.sendall(wire.HEADER.pack(wire.DONE if fits else wire.MEMORY, 0))


def _settle(sock: socket.socket, output_fd: int, folder: str) -> tuple[socket.socket, int]:
    """Make this process its own: group, folder, descriptors."""
    os.setsid()
    os.chdir(folder)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(output_fd, _OUTPUT_FD, inheritable=False)
    os.close(output_fd)
    os.dup2(sock.fileno(), _SOCKET_FD, inheritable=False)
    sock.close()
    return socket.socket(fileno=_SOCKET_FD), _OUTPUT_FD


def _clone(sock: socket.socket, notebook: Notebook, fds: list[int], folder: str) -> socket.socket:
    """Fork a copy that serves the first of `fds`; each process gets the socket it serves.

    The copy is a grandchild, so that the zygote adopts it and it outlives this session.
    """
    own_folder = tempfile.tempdir
    # The module reseeds itself in a forked child.
    random_state = random.getstate()
    notebook.flush()
    try:
        middle = _fork()
    except OSError:
        for fd in fds:
            os.close(fd)
        return sock
    if middle:
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(middle, 0)
        return sock
    middle = os.getpid()
    if _fork():
        os._exit(0)
    _wait_for_end_of(middle)
    isolation.die_with_parent()
    random.setstate(random_state)
    inner = os.path.relpath(Path.cwd(), own_folder)
    shutil.copytree(str(own_folder), folder, symlinks=True, dirs_exist_ok=True)
    tempfile.tempdir = folder
    sock.close()
    sock, output_fd = _settle(socket.socket(fileno=fds[0]), fds[1], folder)
    if not inner.startswith("..") and Path(inner).is_dir():
        os.chdir(inner)
    notebook.redirect(output_fd)
    sock.sendall(wire.HEADER.pack(wire.CLONED, os.getpid()))
    return sock


def _wait_for_end_of(parent: int) -> None:
    """Return when the parent has ended and this process has another."""
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(parent)
        select.select([fd], [], [])
        os.close(fd)
    while os.getppid() == parent:
        time.sleep(0.0001)


def _fork() -> int:
    with warnings.catch_warnings():
        # That threads are not cloned is known, and no news for the code that started them.
        warnings.simplefilter("ignore")
        return os.fork()


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)


class _PlottingWithoutScreen(MetaPathFinder):
    """Points matplotlib, when it is imported, to a backend without a screen and a private cache."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "matplotlib":
            os.environ["MPLBACKEND"] = "agg"
            os.environ["MPLCONFIGDIR"] = str(tempfile.tempdir)
