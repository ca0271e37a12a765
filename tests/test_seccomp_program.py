"""The filter's program, read by a simulator: every number and the arguments that matter.

So the program for one machine is tested on the other.
"""

import re
import struct
from pathlib import Path

import pytest

from scdpo.sandbox.walls import seccomp
from scdpo.sandbox.walls.call_numbers import ATTRIBUTES, CHECKED, DENIED, EXTENDED, SOCKETS
from scdpo.sandbox.walls.seccomp import (
    ALLOW,
    IGNORE,
    KILL,
    NESTED_FLAGS,
    NO_FAMILY,
    NO_NETWORK,
    NOT_SUPPORTED,
    OUT_OF_REACH,
    REFUSE,
    UNKNOWN,
)

MACHINES = list(seccomp.AUDIT_ARCH)
NUMBERS = DENIED | SOCKETS | CHECKED | ATTRIBUTES | EXTENDED


def simulate(code, number, arch, arguments=()):
    """The verdict for a call, and the offsets of `struct seccomp_data` that were read."""
    words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number, arch, 0, *(word % 2**64 for word in words))
    at, accumulator, read = 0, 0, []
    while True:
        operation, if_true, if_false, constant = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, constant)
                read.append(constant)
            case 0x54:
                accumulator &= constant
            case 0x05:
                at += constant
            case 0x15:
                at += if_true if accumulator == constant else if_false
            case 0x35:
                at += if_true if accumulator >= constant else if_false
            case 0x06:
                return constant, read
            case _:
                raise AssertionError(f"no such operation: {operation:#x}")


def verdict(machine, name, *arguments, network=False, nested=False):
    code = seccomp.program(machine, network=network, nested=nested)
    number = NUMBERS[name][MACHINES.index(machine)]
    return simulate(code, number, seccomp.AUDIT_ARCH[machine], arguments)[0]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_gets_the_verdict_of_the_tables(machine, network, nested):
    column = MACHINES.index(machine)
    by_argument = set(CHECKED) - {"clone3", "setsid", "flock"} | ({"setns"} if nested else set())
    by_argument |= {"socket", "socketpair"} if network else set()
    expected = {both[column]: REFUSE for name, both in DENIED.items() if name not in by_argument}
    expected |= {both[column]: ALLOW if network else NO_NETWORK for both in SOCKETS.values()}
    expected[CHECKED["clone3"][column]] = UNKNOWN
    expected[CHECKED["setsid"][column]] = expected[CHECKED["flock"][column]] = IGNORE
    unclear = {NUMBERS[name][column] for name in by_argument}
    code = seccomp.program(machine, network=network, nested=nested)
    for number in range(601):
        found, read = simulate(code, number, seccomp.AUDIT_ARCH[machine])
        if number in unclear:
            assert max(read) >= 16, number
        else:
            usual = ALLOW if number <= seccomp.NEWEST else UNKNOWN
            assert found == expected.get(number, usual), number
            # The kernel remembers only what depends on neither arguments nor address.
            assert set(read) <= {0, 4}, number


@pytest.mark.parametrize("machine", MACHINES)
def test_other_abis_are_killed(machine):
    code = seccomp.program(machine, network=True, nested=True)
    i386, arm = 0x40000003, 0x40000028
    other = seccomp.AUDIT_ARCH[MACHINES[1 - MACHINES.index(machine)]]
    for number in [0, 1, 39, 172, 435, 600]:
        for arch in [i386, arm, other, 0]:
            assert simulate(code, number, arch)[0] == KILL
        x32 = simulate(code, number | seccomp.X32_BIT, seccomp.AUDIT_ARCH[machine])[0]
        assert x32 == (KILL if machine == "x86_64" else UNKNOWN)
    last = simulate(code, 2**32 - 1, seccomp.AUDIT_ARCH[machine])[0]
    assert last == (KILL if machine == "x86_64" else UNKNOWN)


SIGCHLD, CLONE_VM, CLONE_THREAD = 17, 0x100, 0x10000
HIGH = 0xABCD << 32

BY_ARGUMENT = [
    # name, arguments, network, nested, verdict
    ("clone", [SIGCHLD], False, False, ALLOW),
    ("clone", [SIGCHLD | CLONE_VM | CLONE_THREAD | HIGH], False, False, ALLOW),
    *[("clone", [SIGCHLD | 1 << bit], True, True, REFUSE) for bit in (17, 25, 26, 27, 28, 29, 30)],
    ("clone", [0x20000 | HIGH], False, False, REFUSE),
    ("clone", [SIGCHLD | 0x8000], False, False, REFUSE),
    ("clone3", [0, 0], True, True, UNKNOWN),
    ("setsid", [], False, False, IGNORE),
    *[
        (name, [pid & 2**64 - 1], False, nested, verdict)
        for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
        for pid, nested, verdict in [
            *[(0, True, ALLOW), (9, True, ALLOW), (-9, True, ALLOW), (-1, True, REFUSE)],
            *[(-1, False, REFUSE), (OUT_OF_REACH, False, ALLOW), (OUT_OF_REACH, True, REFUSE)],
            *[(OUT_OF_REACH - 1, True, ALLOW), (-OUT_OF_REACH - 1, True, REFUSE)],
        ]
    ],
    # Owners of signals, F_OFD_…, leases, F_NOTIFY, sizes of pipes, seals, delegations, the unknown.
    *[
        ("fcntl", [3, command], False, False, REFUSE)
        for command in (
            8,
            9,
            10,
            11,
            15,
            36,
            37,
            38,
            1024,
            1025,
            1026,
            1031,
            1033,
            1039,
            1040,
            2000,
        )
    ],
    ("fcntl", [3, 1024 | HIGH], True, True, REFUSE),
    *[("fcntl", [3, command], False, False, ALLOW) for command in (0, 1, 2, 3, 5, 1030, 1032)],
    *[("fcntl", [3, command], False, False, IGNORE) for command in (6, 7)],
    ("fcntl", [3, 4, 0o4000], False, False, ALLOW),
    ("fcntl", [3, 4, 0o20000 | 0o4000], False, False, REFUSE),
    ("flock", [3, 2], False, False, IGNORE),
    ("prctl", [4, 0], False, False, REFUSE),
    ("prctl", [4, 1], False, False, ALLOW),
    *[("ioctl", [0, code], False, False, REFUSE) for code in (0x8901, 0x8902)],
    ("setns", [5, NESTED_FLAGS & ~0x40000000], True, True, ALLOW),
    ("setns", [5, NESTED_FLAGS], False, False, REFUSE),
    ("setns", [5, NESTED_FLAGS], False, True, ALLOW),
    ("setns", [5, 0], False, True, REFUSE),
    ("setns", [5, 0x10000000], False, True, REFUSE),
    ("setns", [5, NESTED_FLAGS | 0x02000000], False, True, REFUSE),
    *[("ioctl", [0, code], True, True, REFUSE) for code in (0x5412, 0x541C, 0x5423)],
    ("ioctl", [0, 0x5412 | HIGH], False, False, REFUSE),
    ("ioctl", [0x5412, 0x5413], False, False, ALLOW),
    *[
        ("ioctl", [0, code], True, False, ALLOW)
        for code in (0x5401, 0x541B, 0x5421, 0x5450, 0x5451, 0x8933)
    ],
    ("ioctl", [0, 0x8933], False, False, REFUSE),
    # Flags, generation and project of a file; volumes and snapshots of btrfs; FIOASYNC.
    *[
        ("ioctl", [0, code], True, True, REFUSE)
        for code in (0x40086602, 0x40087602, 0x401C5820, 0x5000940E, 0x50009401, 0x50009417, 0x5452)
    ],
    *[("ioctl", [0, code], True, True, NOT_SUPPORTED) for code in (0x40049409, 0x4020940D)],
    ("personality", [0xFFFFFFFF], False, False, ALLOW),
    ("personality", [0], False, False, ALLOW),
    ("personality", [0x0040000], False, False, REFUSE),
    ("personality", [8], False, False, REFUSE),
    ("prctl", [15], False, False, ALLOW),
    ("prctl", [62], False, False, REFUSE),
    ("prctl", [78 | HIGH, 1], False, False, REFUSE),
    ("mmap", [0, 4096, 3, 0x22], False, False, ALLOW),
    ("mmap", [0, 4096, 3, 0x01, 7], False, False, ALLOW),
    ("mmap", [0, 4096, 3, 0x21], False, False, REFUSE),
    ("mmap", [0, 4096, 3, 0x8021 | HIGH], False, False, REFUSE),
    *[
        (name, [pid], False, False, ALLOW if pid == 0 else REFUSE)
        for name in ("prlimit64", "sched_setaffinity", "sched_setattr")
        for pid in (0, 1, 2**32 - 1)
    ],
    ("sched_setscheduler", [4], False, False, REFUSE),
    ("sched_setparam", [4], False, False, REFUSE),
    ("setpriority", [0, 0, 5], False, False, ALLOW),
    ("setpriority", [0, 7, 5], False, False, REFUSE),
    ("setpriority", [2, 0, 5], False, False, REFUSE),
    ("ioprio_set", [1, 0], False, False, ALLOW),
    ("ioprio_set", [1, 7], False, False, REFUSE),
    ("ioprio_set", [3, 0], False, False, REFUSE),
    *[("socket", [family], False, True, NO_NETWORK) for family in (0, 1, 2, 10, 16)],
    *[("socket", [family, 1], True, False, ALLOW) for family in (2, 10)],
    *[("socket", [family, 1], True, False, NO_FAMILY) for family in (0, 1, 15, 17, 38, 40, 44)],
    ("socket", [16, 3, 0], True, False, ALLOW),
    ("socket", [16, 3, 12], True, False, NO_FAMILY),
    ("socketpair", [1, 1], False, False, NO_NETWORK),
    ("socketpair", [1, 1 | 0o2004000], True, False, ALLOW),
    ("socketpair", [1, 2], True, False, NO_FAMILY),
    ("socketpair", [2, 1], True, False, NO_FAMILY),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "network", "nested", "expected"), BY_ARGUMENT)
def test_verdict_by_argument(machine, name, arguments, network, nested, expected):
    assert verdict(machine, name, *arguments, network=network, nested=nested) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_is_one_that_the_kernel_takes(machine):
    for network in (False, True):
        for nested in (False, True):
            code = seccomp.program(machine, network=network, nested=nested)
            assert len(code) <= 4096
            for at, (operation, if_true, if_false, constant) in enumerate(code):
                jump = constant if operation == 0x05 else max(if_true, if_false)
                assert max(if_true, if_false) <= 255
                assert at + jump < len(code)
            assert code[-1][0] == 0x06


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")],
)
def test_the_numbers_are_those_of_the_kernel_headers(machine, header):
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip("no kernel headers")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)$", path.read_text(), re.MULTILINE)
    official = {name: int(number) for name, number in lines}
    column = MACHINES.index(machine)
    ours = {name: both[column] for name, both in NUMBERS.items() if both[column] is not None}
    # Calls younger than the headers are theirs to lack; the oldest such here is of Linux 6.8.
    compared = {name for name in ours if name in official or ours[name] < 450}
    assert {name: ours[name] for name in compared} == {n: official.get(n) for n in compared}
    assert len(compared) > 95
    assert len(set(ours.values())) == len(ours)
    assert max(ours.values()) <= seccomp.NEWEST


@pytest.mark.parametrize("machine", MACHINES)
def test_attributes_of_files_can_be_withheld(machine):
    column = MACHINES.index(machine)
    for attributes in (False, True):
        code = seccomp.program(machine, network=False, attributes=attributes)
        for number in (both[column] for both in ATTRIBUTES.values()):
            if number is not None:
                found = simulate(code, number, seccomp.AUDIT_ARCH[machine])[0]
                assert found == (ALLOW if attributes else REFUSE), number


@pytest.mark.parametrize("machine", MACHINES)
def test_extended_attributes_can_be_absent(machine):
    column = MACHINES.index(machine)
    for extended in (False, True):
        code = seccomp.program(machine, network=False, extended=extended)
        for both in EXTENDED.values():
            found = simulate(code, both[column], seccomp.AUDIT_ARCH[machine])[0]
            assert found == (ALLOW if extended else NOT_SUPPORTED), both
