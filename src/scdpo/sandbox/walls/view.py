"""The files a session sees: the interpreter and its packages, read-only, and a folder of its own.

`readable_paths` names what a session needs, whatever hides the rest. `View` turns these paths into
the root of a mount namespace: it is created while they can still be reached, and entered as the
user that sessions run as.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from scdpo.sandbox.walls import syscalls

# Not /dev/zero: memory mapped from it is counted by no limit.
DEVICES = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_SETTINGS = ("/etc/ld.so.cache", "/etc/localtime", "/etc/fonts", "/etc/alternatives")
_NETWORK_SETTINGS = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates"),
)
MAX_FILES = 8192
"""Files and folders that fit into a session's /tmp."""
_PASSWD = "sandbox:x:{id}:{id}::/tmp:/bin/sh\n"
_GROUP = "sandbox:x:{id}:\n"


def readable_paths(own_package: str, *, network: bool) -> list[str]:
    """The paths that Python and the system's programs need to read, none of them below another.

    `own_package`: a folder that is on the import path only for this package, and is left out.
    """
    wanted = [*_SYSTEM, *_SETTINGS, *(_NETWORK_SETTINGS if network else ())]
    wanted += [sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix]
    wanted += [p for p in sys.path if p and p != own_package]
    wanted += [str(Path(lib).parent) for lib in _mapped_libraries()]
    wanted += [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p]
    # A path that contains links must lead to the same place inside.
    wanted += [str(Path(p).resolve()) for p in wanted]
    found = [p for p in dict.fromkeys(map(os.path.abspath, wanted)) if Path(p).exists()]
    return [p for p in found if not any(_is_below(p, other) for other in found)]


def too_much(path: str) -> bool:
    """Whether a path is too broad to show: the root, the home folder or a folder above it."""
    home = os.path.abspath(os.path.expanduser("~"))  # noqa: PTH100, PTH111 - may not exist
    return path == "/" or path == home or _is_below(home, path)


def closed_to_others(paths: list[str]) -> str | None:
    """The first of the interpreter's files and `paths` that others may not read, if any."""
    for path in (os.__file__, *paths):
        with contextlib.suppress(OSError):
            mode = Path(path).stat().st_mode
            needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
            if mode & needed != needed:
                return path
    return None


def out_of_reach_of_others(paths: list[str]) -> str | None:
    """The first folder above `paths` that others may not pass through, if there is one."""
    for path in paths:
        for folder in reversed(Path(path).parents):
            with contextlib.suppress(OSError):
                if not folder.stat().st_mode & stat.S_IXOTH:
                    return str(folder)
    return None


def _mapped_libraries() -> set[str]:
    """The shared libraries that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    return {p for p in paths if p.startswith("/") and ".so" in Path(p).name}


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


class View:
    """Copies of the mounts of paths and devices, to be assembled under a new root."""

    def __init__(self, paths: list[str]) -> None:
        """Copy the mounts of `paths` and of the devices. Raises OSError."""
        self._links: dict[str, str] = {}
        self._trees: list[tuple[str, bool, int]] = []
        for path in (*paths, *(d for d in DEVICES if Path(d).exists())):
            at = Path(path)
            if at.is_symlink():
                self._links[path] = str(at.readlink())
                continue
            tree = syscalls.open_tree(path)
            device = path in DEVICES
            flags = syscalls.MOUNT_READ_ONLY | syscalls.MOUNT_NO_SUID
            syscalls.set_mount_flags(tree, flags | (0 if device else syscalls.MOUNT_NO_DEVICES))
            self._trees.append((path, at.is_dir(), tree))

    def enter(self, user: int) -> None:
        """Make them the root of this namespace. `user`: the id of sessions. Raises OSError."""
        root = "/tmp"
        syscalls.make_mounts_private()
        syscalls.mount_tmpfs(root, "size=1m,nr_inodes=4k,mode=755")
        for path, folder, tree in self._trees:
            _make_place(root + path, folder=folder)
            syscalls.move_mount(tree, root + path)
            os.close(tree)
        for path, target in self._links.items():
            Path(root + path).parent.mkdir(parents=True, exist_ok=True)
            Path(root + path).symlink_to(target)
        for name, text in (("passwd", _PASSWD), ("group", _GROUP)):
            Path(f"{root}/etc").mkdir(exist_ok=True)
            Path(f"{root}/etc/{name}").write_text(text.format(id=user))
        Path(f"{root}/tmp").mkdir(exist_ok=True)
        # Named semaphores and shared memory live in /tmp, and are counted among its files.
        for link in ("/dev/shm", "/var/tmp"):
            if not Path(root + link).exists():
                Path(root + link).parent.mkdir(exist_ok=True)
                Path(root + link).symlink_to("/tmp")
        syscalls.change_root(root)
        here = os.open("/", os.O_PATH | os.O_DIRECTORY)
        syscalls.set_mount_flags(here, syscalls.MOUNT_READ_ONLY, recursive=False)
        os.close(here)


class Scratch:
    """The /tmp of a session, where it starts, prepared by the process that forks it."""

    folder = "/tmp"

    def __init__(self, size: int, paths: Sequence[str]) -> None:
        """`size`: bytes that it holds. `paths`: those of `readable_paths`; an interpreter below
        /tmp stays visible there."""
        self._below = [path for path in paths if _is_below(path, "/tmp")]
        options = f"size={size},nr_inodes={MAX_FILES},mode=700"
        self._mounting = [syscalls.mounting_tmpfs("/tmp", options)]

    def mount(self) -> None:
        """Mount it in this mount namespace. Raises OSError."""
        trees = [(path, syscalls.open_tree(path)) for path in self._below]
        syscalls.perform(self._mounting)
        for path, tree in trees:
            _make_place(path, folder=stat.S_ISDIR(os.fstat(tree).st_mode))
            syscalls.move_mount(tree, path)
            os.close(tree)


def _make_place(path: str, *, folder: bool) -> None:
    at = Path(path)
    if folder:
        at.mkdir(parents=True, exist_ok=True)
    else:
        at.parent.mkdir(parents=True, exist_ok=True)
        at.touch()
