"""What a GPU does with this package, in at most 8 minutes (`make bench-gpu`).

    python benchmarks/gpu.py [--parts attention,training,pairs,engine,qlora] [--out DIR]
        [--limit 480] [--dry]

Each part (gpu_parts.py) is a process with a time limit, and prints its figures as JSON lines as
soon as it has them; they are kept in OUT/gpu.jsonl. A part that fails or runs out of time does not
stop the others. At the end there is a table. `--dry` tries all of it with tiny shapes on the CPU.
The exit code is 1 if a part failed. benchmarks/gpu.sh runs it on a bare machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Line = dict[str, Any]

SHARES = {"attention": 80, "training": 100, "pairs": 130, "engine": 75, "qlora": 85}
"""Seconds of the parts; what one leaves is the next one's."""


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(SHARES), help="comma-separated")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-figures"))
    parser.add_argument("--limit", type=float, default=480.0, help="seconds of everything")
    parser.add_argument("--dry", action="store_true", help="tiny shapes, on the CPU")
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    if unknown := [part for part in args.parts if part not in SHARES]:
        parser.error(f"--parts: {unknown[0]} is not one of {', '.join(SHARES)}")
    return args


def run_part(name: str, dry: bool, send: Connection) -> None:
    """In a process of its own: the figures of a part, one after the other, then how it ended."""
    os.setsid()
    warnings.simplefilter("ignore")
    try:
        import gpu_parts

        gpu_parts.run(name, dry, lambda line: send.send({"part": name} | line))
        send.send(None)
    except BaseException as error:  # whatever happens is a result
        traceback.print_exc()
        text = " ".join(str(error).split())[:300]
        send.send({"part": name, "failed": f"{type(error).__name__}: {text}"})
        send.send(None)


def lines_of(name: str, dry: bool, seconds: float) -> list[Line]:
    """Run a part, for at most `seconds`; what it said."""
    receive, send = multiprocessing.Pipe(duplex=False)
    # Forked, so that the imports are done once. This process itself never touches the GPU, as a
    # child could not use it then.
    process = multiprocessing.get_context("fork").Process(target=run_part, args=(name, dry, send))
    process.start()
    send.close()
    found: list[Line] = []
    deadline = time.monotonic() + seconds
    try:
        while receive.poll(max(deadline - time.monotonic(), 0)):
            line = receive.recv()
            if line is None:
                break
            found.append(said(line))
        else:
            found.append(said({"part": name, "failed": f"not done after {seconds:.0f} s"}))
    except EOFError:
        process.join(5)
        found.append(said({"part": name, "failed": f"died with code {process.exitcode}"}))
    process.join(5)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)  # its own group: it called setsid
        process.join()
    return found


def said(line: Line) -> Line:
    """Print a line as it comes."""
    print(json.dumps(line), flush=True)
    return line


def table(lines: Sequence[Line]) -> str:
    """All figures, a part at a time."""
    out: list[str] = []
    for part in dict.fromkeys(line["part"] for line in lines):
        mine = [line for line in lines if line["part"] == part]
        rows = [{k: v for k, v in line.items() if k not in ("part", "failed")} for line in mine]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [[_cell(row.get(key)) for key in columns] for row in rows if row]
        widths = [max(len(c), *(len(row[n]) for row in cells)) for n, c in enumerate(columns)]
        out.append(f"\n{part}")
        if columns:
            out.append("  " + _line(columns, widths))
        out += ["  " + _line(row, widths) for row in cells]
        out += [f"  FAILED: {line['failed']}" for line in mine if "failed" in line]
    return "\n".join(out)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (cell.ljust(w) if n == 0 else cell.rjust(w)
                    for n, (cell, w) in enumerate(zip(cells, widths, strict=True)))  # fmt: skip
    return "  ".join([first, *rest]).rstrip()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2e}" if value and abs(value) < 0.01 else f"{value:,.2f}"
    return "" if value is None else str(value)


def missing() -> list[str]:
    """Modules that every part needs and the machine does not have."""
    from importlib.util import find_spec

    needed = ("torch", "transformers", "accelerate", "pydantic", "lazy_loader", "yaml", "numpy")
    return [name for name in needed if find_spec(name) is None]


def environment(dry: bool) -> Mapping[str, str]:
    """What the parts find in their environment."""
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    return quiet | ({"CUDA_VISIBLE_DEVICES": ""} if dry else {})


def main() -> None:
    args = options()
    if lacking := missing():
        sys.exit(f"gpu.py: not installed here: {', '.join(lacking)} (benchmarks/gpu.sh --wheels)")
    os.environ.update(environment(args.dry))
    sys.path.insert(0, str(Path(__file__).parent))
    import gpu_parts  # noqa: F401  # its imports take seconds, and children have them too

    started = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    kept: list[Line] = []
    spare = 0.0
    for name in args.parts:
        left = args.limit - (time.monotonic() - started)
        if left < 5:
            kept.append(said({"part": name, "failed": "no time left"}))
            continue
        began = time.monotonic()
        kept += lines_of(name, args.dry, min(SHARES[name] + spare, left))
        spare = max(0.0, spare + SHARES[name] - (time.monotonic() - began))
        text = "".join(json.dumps(line) + "\n" for line in kept)
        (args.out / "gpu.jsonl").write_text(text)
    print(table(kept))
    print(f"\n{time.monotonic() - started:.0f} s in all; figures in {args.out / 'gpu.jsonl'}")
    sys.exit(any("failed" in line for line in kept))


if __name__ == "__main__":
    main()
