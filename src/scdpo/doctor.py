"""What this machine offers: versions, devices, and the sandbox levels, each actually tried."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import get_args

from scdpo.errors import SandboxError
from scdpo.records import Record
from scdpo.sandbox import Level, ProcessSandbox, SandboxConfig
from scdpo.store import versions
from scdpo.waiting import run

_TRIES = 9
_CAP_SYS_ADMIN = 21
_OF_NAMESPACES = ("user", "mnt", "pid", "net", "ipc")


class Device(Record):
    """What torch can compute on: `cpu` with its threads, or `cuda:N` with its memory (MiB)."""

    name: str
    model: str
    threads: int | None = None
    memory_mb: int | None = None


class LevelFound(Record):
    """Result of trying one level of the sandbox.

    `isolation` names the level and its parts. `warm_seconds` is how long the warm process took to
    start, and `first_result_ms` the median time from requesting a session to the output of its
    first block. If the level is not available, `missing` is the error message and `hints` say
    what to do about it.
    """

    level: Level
    default: bool
    obtained: bool
    isolation: str = ""
    warm_seconds: float | None = None
    first_result_ms: float | None = None
    missing: str = ""
    hints: tuple[str, ...] = ()


class Diagnosis(Record):
    """Everything `scdpo doctor` prints. `torch` says why torch cannot be imported, or is empty."""

    versions: dict[str, str]
    devices: tuple[Device, ...]
    torch: str
    levels: tuple[LevelFound, ...]

    @property
    def ready(self) -> bool:
        """Whether the level that runs use by default is available."""
        return any(result.obtained for result in self.levels if result.default)

    @property
    def text(self) -> str:
        """The diagnosis as text, one fact per line."""
        lines = [(name, version) for name, version in self.versions.items()]
        lines += [(device.name, _described(device)) for device in self.devices]
        if self.torch:
            lines.append(("torch", f"cannot be imported: {self.torch}"))
        elif len(self.devices) == 1:
            lines.append(("gpu", "none that torch can use"))
        for result in self.levels:
            lines.append((f"{result.level}{' *' if result.default else ''}", _outcome(result)))
            lines += [("", f"hint: {hint}") for hint in result.hints]
        lines.append(("", "* what runs use unless a recipe says otherwise"))
        return "\n".join(f"{label:<13} {text}".rstrip() for label, text in lines)


def diagnose() -> Diagnosis:
    """Inspect the machine and start a sandbox at every level; this takes a few seconds."""
    devices, torch = _devices()
    default = SandboxConfig().level
    levels = [_tried(level, default=level == default) for level in get_args(Level)]
    if any(result.obtained for result in levels):
        levels = [_with_fallback(result, levels) for result in levels]
    return Diagnosis(
        versions=versions() | {"kernel": _kernel(), "libc": _libc()},
        devices=devices,
        torch=torch,
        levels=tuple(levels),
    )


def forbidding(root: Path = Path("/proc")) -> list[str]:
    """Kernel settings, read below `root`, that forbid what the level `namespace` needs.

    Sources: namespaces(7); seccomp(2); the sysctl of Debian's kernels; Ubuntu's AppArmor.
    """
    status = dict(
        line.split(":", 1) for line in _read(root / "self/status").splitlines() if ":" in line
    )
    privileged = int(status.get("CapEff", "0"), 16) >> _CAP_SYS_ADMIN & 1
    hints = [
        f"user.max_{kind}_namespaces is 0, which forbids {kind} namespaces: "
        f"`sysctl user.max_{kind}_namespaces=10000`"
        for kind in _OF_NAMESPACES
        if _read(root / f"sys/user/max_{kind}_namespaces") == "0"
    ]
    for name, value in {
        "unprivileged_userns_clone": "0",
        "apparmor_restrict_unprivileged_userns": "1",
    }.items():
        if not privileged and _read(root / "sys/kernel" / name) == value:
            hints.append(
                f"kernel.{name} is {value}, which forbids user namespaces to all but root: "
                f"`sysctl kernel.{name}={1 - int(value)}`"
            )
    hints += forbidding_filters(root)
    if not hints and status.get("Seccomp", "").strip() == "2":
        hints.append(
            "a seccomp filter applies to this process, as under container runtimes, and may forbid "
            "namespaces: with docker, use `--security-opt seccomp=unconfined`"
        )
    return hints


def forbidding_filters(root: Path = Path("/proc")) -> list[str]:
    """Kernel settings, read below `root`, that forbid seccomp filters, which every level needs."""
    actions = _read(root / "sys/kernel/seccomp/actions_avail").split()
    if not actions:
        return ["this kernel has no seccomp filters (no kernel.seccomp.actions_avail)"]
    missing = [action for action in ("kill_process", "errno", "allow") if action not in actions]
    return [f"kernel.seccomp.actions_avail lacks {' and '.join(missing)}"] if missing else []


def _tried(level: Level, *, default: bool) -> LevelFound:
    began = time.perf_counter()
    try:
        with ProcessSandbox(SandboxConfig(level=level)) as sandbox:
            warm = time.perf_counter() - began
            seconds = run(_first_results(sandbox))
            return LevelFound(
                level=level,
                default=default,
                obtained=True,
                isolation=sandbox.isolation,
                warm_seconds=round(warm, 3),
                first_result_ms=round(1000 * statistics.median(seconds), 2),
            )
    except (SandboxError, OSError) as error:
        hints = forbidding() if level == "namespace" else forbidding_filters()
        missing = " ".join(str(error).split())
        return LevelFound(
            level=level, default=default, obtained=False, missing=missing, hints=tuple(hints)
        )


async def _first_results(sandbox: ProcessSandbox) -> list[float]:
    """Seconds from requesting a session to its first output, for each try. Raises SandboxError."""
    taken = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        session = await sandbox.session()
        execution = await session.run("6 * 7")
        taken.append(time.perf_counter() - began)
        await session.close()
        if execution.output != "42":
            printed = execution.cut or repr(execution.output[:60])
            raise SandboxError(f"the sandbox started, but 6 * 7 gave {printed}")
    return taken


def _with_fallback(result: LevelFound, levels: list[LevelFound]) -> LevelFound:
    """Add to an unavailable default level the hint that another level is available."""
    if result.obtained or not result.default:
        return result
    fallback = next(level.level for level in levels if level.obtained)
    hint = f"level {fallback} is available: put `sandbox: {{level: {fallback}}}` in the recipe"
    return result.model_copy(update={"hints": (*result.hints, hint)})


def _devices() -> tuple[tuple[Device, ...], str]:
    """The devices, and why torch could not list its own (empty if it could)."""
    usable = len(os.sched_getaffinity(0))
    cpu = Device(name="cpu", model=_cpu_model(), threads=usable)
    try:
        import torch

        devices = [cpu]
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            gpu = torch.cuda.get_device_properties(i)
            memory = gpu.total_memory // 2**20
            devices.append(Device(name=f"cuda:{i}", model=gpu.name, memory_mb=memory))
    except Exception as error:  # a broken installation fails in many ways; report any of them
        return (cpu,), " ".join(f"{type(error).__name__}: {error}".split())
    return tuple(devices), ""


def _described(device: Device) -> str:
    if device.threads is not None:
        return f"{device.threads} threads, {device.model}"
    return f"{device.model}, {device.memory_mb or 0:,} MiB"


def _outcome(result: LevelFound) -> str:
    if not result.obtained:
        return f"not available: {result.missing}"
    parts = result.isolation.removeprefix(f"{result.level}: ")
    return (
        f"{parts}; starts in {result.warm_seconds:.1f} s, "
        f"then {result.first_result_ms:.1f} ms to a session's first result"
    )


def _cpu_model() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _kernel() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    except (ValueError, OSError):
        return "not glibc"


def _read(path: Path) -> str:
    """The text of a small file, stripped; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
