"""Landlock on forked children of this process."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from children import in_child
from scdpo.sandbox.walls import landlock

needs = {
    version: pytest.mark.skipif(landlock.abi() < version, reason=f"landlock ABI {version}")
    for version in (1, 2, 3, 4, 5, 6)
}
SYSTEM = ["/usr", "/lib", "/lib64", "/bin", "/etc", sys.prefix, sys.base_prefix]


def errno_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


def write(path):
    Path(path).write_text("new")


@pytest.fixture
def folders(tmp_path):
    """Folders `own`, `shown` and `hidden`, with a file and a folder in each."""
    for name in ("own", "shown", "hidden"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    tmp_path.chmod(0o755)
    return tmp_path


def enter(folders, *, network=False):
    return landlock.restrict(
        read=[folders / "shown", *SYSTEM], write=[str(folders / "own")], network=network
    )


@needs[1]
def test_outside_nothing_can_be_opened(folders):
    def attempt():
        enter(folders)
        hidden = folders / "hidden"
        return {
            "read": errno_of((hidden / "file").read_text),
            "list": errno_of(os.listdir, hidden),
            "parent": errno_of(os.listdir, folders),
            "up": errno_of((folders / "own" / ".." / "hidden" / "file").read_text),
            "write": errno_of(write, hidden / "file"),
            "make": errno_of(write, hidden / "other"),
            "folder": errno_of(os.mkdir, hidden / "other"),
            "remove": errno_of(os.remove, hidden / "file"),
            "remove folder": errno_of(os.rmdir, hidden / "inner"),
            "symbolic link": errno_of(os.symlink, "file", hidden / "link"),
            "fifo": errno_of(os.mkfifo, hidden / "fifo"),
            "execute": errno_of(subprocess.run, [hidden / "file"]),
        }

    assert set(in_child(attempt).values()) == {errno.EACCES}
    assert (folders / "hidden" / "file").read_text() == "hidden"


@needs[1]
def test_a_link_does_not_lead_out(folders):
    def attempt():
        enter(folders)
        own = folders / "own"
        (own / "symbolic").symlink_to(folders / "hidden" / "file")
        return errno_of((own / "symbolic").read_text), errno_of(
            os.link, folders / "hidden" / "file", own / "hard"
        )

    symbolic, hard = in_child(attempt)
    assert symbolic == errno.EACCES
    assert hard in (errno.EACCES, errno.EXDEV)


@needs[1]
def test_what_is_shown_can_be_read_and_not_changed(folders):
    def attempt():
        enter(folders)
        shown = folders / "shown"
        assert (shown / "file").read_text() == "shown"
        assert len(list(shown.iterdir())) == 2
        return [
            errno_of(write, shown / "file"),
            errno_of((shown / "file").open, "r+"),
            errno_of(write, shown / "inner" / "other"),
            errno_of(os.remove, shown / "file"),
            errno_of(os.rename, shown / "file", shown / "other"),
            errno_of(os.rmdir, shown / "inner"),
        ]

    assert set(in_child(attempt)) == {errno.EACCES}


@needs[1]
def test_the_own_folder_works(folders):
    def attempt():
        enter(folders)
        os.chdir(folders / "own")
        Path("made").write_text("made")
        with Path("made").open("r+") as file:
            file.truncate(2)
        Path("made").rename("moved")
        Path("inner/deep").mkdir()
        Path("inner/deep").rename("inner/renamed")
        Path("inner/renamed").rmdir()
        Path("link").symlink_to("moved")
        os.mkfifo("fifo")
        Path("file").unlink()
        return Path("link").read_text()

    assert in_child(attempt) == "ma"
    assert (folders / "own" / "moved").read_text() == "ma"


@needs[2]
def test_rename_between_own_folders_but_not_into_them_from_outside(folders):
    def attempt():
        enter(folders)
        own = folders / "own"
        (own / "file").rename(own / "inner" / "file")
        os.link(own / "inner" / "file", own / "again")
        return errno_of(os.rename, folders / "shown" / "file", own / "taken")

    assert in_child(attempt) == errno.EACCES
    assert (folders / "own" / "again").read_text() == "own"


@needs[3]
def test_no_truncation_outside(folders):
    def attempt():
        enter(folders)
        return [errno_of(os.truncate, folders / name / "file", 0) for name in ("shown", "own")]

    assert in_child(attempt) == [errno.EACCES, 0]


@needs[1]
def test_single_files_devices_and_paths_that_do_not_exist(folders):
    def attempt():
        landlock.restrict(
            read=[folders / "hidden" / "file", folders / "gone", folders / "own" / "file" / "x"],
            write=[folders / "shown" / "file", os.devnull],
            network=False,
        )
        write(folders / "shown" / "file")
        write(os.devnull)
        return (
            (folders / "hidden" / "file").read_text(),
            (folders / "shown" / "file").read_text(),
            errno_of(os.listdir, folders / "hidden"),
            errno_of(os.remove, folders / "shown" / "file"),
            errno_of(write, folders / "gone"),
        )

    assert in_child(attempt) == ("hidden", "new", *[errno.EACCES] * 3)


@needs[1]
@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")
def test_no_device_nodes(folders):
    def attempt():
        enter(folders)
        nodes = [(0o020600, os.makedev(1, 3)), (0o060600, os.makedev(7, 0))]
        return [errno_of(os.mknod, folders / "own" / "node", *node) for node in nodes]

    assert in_child(attempt) == [errno.EACCES, errno.EACCES]


@needs[5]
def test_no_commands_to_device_drivers():
    def attempt():
        landlock.restrict(read=["/usr"], write=["/dev/ptmx"], network=False)
        with Path("/dev/ptmx").open("r+b", buffering=0) as terminal:
            return errno_of(os.get_terminal_size, terminal.fileno())

    if not os.access("/dev/ptmx", os.W_OK):
        pytest.skip("no pseudo-terminals")
    assert in_child(attempt) == errno.EACCES


@needs[1]
def test_a_program_that_is_started_inside_is_restricted_too(folders):
    code = "import sys; print(open(sys.argv[1]).read())"

    def attempt():
        enter(folders)
        os.chdir(folders / "own")
        return [
            subprocess.run(
                [sys.executable, "-I", "-c", code, folders / name / "file"],
                capture_output=True,
                text=True,
            )
            for name in ("shown", "hidden")
        ]

    shown, hidden = in_child(attempt)
    assert shown.stdout == "shown\n", shown.stderr
    assert hidden.returncode == 1
    assert "PermissionError" in hidden.stderr


@needs[4]
def test_tcp_only_with_network(folders):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def attempt(network):
            obtained = enter(folders, network=network)
            found = [
                errno_of(socket.create_server, ("127.0.0.1", 0)),
                errno_of(socket.create_connection, server.getsockname()),
            ]
            return "tcp" in obtained, found

        assert in_child(attempt, True) == (False, [0, 0])
        assert in_child(attempt, False) == (True, [errno.EACCES, errno.EACCES])


@needs[6]
def test_signals_reach_own_processes_only(folders):
    def attempt():
        obtained = enter(folders)
        child = os.fork()
        if child == 0:
            signal.pause()
        own = errno_of(os.kill, child, signal.SIGKILL)
        os.waitpid(child, 0)
        return obtained, own, errno_of(os.kill, os.getppid(), 0)

    obtained, own, parent = in_child(attempt)
    assert obtained[0] == "files"
    assert "signals" in obtained
    assert (own, parent) == (0, errno.EPERM)


@needs[6]
def test_no_abstract_socket_of_a_stranger(folders):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(b"\0scdpo-test-" + os.urandom(8).hex().encode())
        server.listen()

        def attempt(restricted):
            if restricted:
                enter(folders)
            with socket.socket(socket.AF_UNIX) as client:
                return errno_of(client.connect, server.getsockname())

        assert in_child(attempt, False) == 0
        assert in_child(attempt, True) == errno.EPERM


@needs[1]
def test_a_second_restriction_adds_to_the_first(folders):
    def attempt():
        enter(folders)
        again = landlock.restrict(read=[folders], write=[folders / "own" / "inner"], network=True)
        write(folders / "own" / "inner" / "other")
        assert (folders / "shown" / "file").read_text() == "shown"
        return again, [
            errno_of((folders / "hidden" / "file").read_text),
            errno_of(write, folders / "own" / "file"),
        ]

    again, denied = in_child(attempt)
    assert again[0] == "files"
    assert denied == [errno.EACCES, errno.EACCES]


@needs[1]
def test_too_many_restrictions_are_refused_in_words(folders):
    def attempt():
        try:
            for _ in range(100):
                landlock.restrict(read=["/"], write=[], network=True)
        except OSError as error:
            return str(error)
        return "all accepted"

    assert "landlock: cannot restrict this process" in in_child(attempt)


@needs[6]
@pytest.mark.parametrize(
    ("version", "expected"),
    [(1, ["files"]), (3, ["files"]), (4, ["files", "tcp"]), (6, ["files", "tcp", "signals"])],
)
def test_an_older_kernel_is_asked_for_what_it_knows(monkeypatch, folders, version, expected):
    monkeypatch.setattr(landlock, "abi", lambda: version)

    def attempt():
        obtained = enter(folders)
        write(folders / "own" / "file")
        return obtained, errno_of((folders / "hidden" / "file").read_text)

    assert in_child(attempt) == (expected, errno.EACCES)


def test_a_kernel_without_it_is_refused_in_words(monkeypatch, folders):
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    with pytest.raises(OSError, match="landlock is not available"):
        enter(folders)
