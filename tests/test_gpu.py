"""The benchmark for a GPU, tried as far as a CPU goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ["attention", "training", "pairs", "engine", "qlora"]
HANGING = """
import time
def run(part, dry, say):
    say({"what": "begun"})
    if part == "dies":
        raise ValueError("no luck")
    time.sleep(600)
"""
DRIVE = """
import gpu
for part in ("hangs", "dies", "hangs"):
    gpu.lines_of(part, True, 2)
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "PYTHON": sys.executable,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    paths = [str(ROOT / "src"), *filter(None, [env.get("PYTHONPATH")])]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)


def test_all_parts_on_the_cpu(tmp_path: Path) -> None:
    done = run("sh", "benchmarks/gpu.sh", "--dry", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["part"] for line in lines)) == PARTS
    assert [f"\n{part}\n" in done.stdout for part in PARTS] == [True] * 5
    errors = [v for line in lines for key, v in line.items() if key.startswith("error")]
    assert len(errors) >= 9
    assert max(errors) < 1e-5
    pairs = [line for line in lines if line["part"] == "pairs"]
    trees, alone, trl = pairs
    assert trees["tokens saved %"] > 50
    assert trl["what"].startswith("TRL 1.")
    # The same pairs, weights and steps; TRL's adapter begins with other random numbers.
    assert abs(trees["loss"] - alone["loss"]) < 1e-5
    assert abs(trees["loss"] - trl["loss"]) < 0.01
    assert all(line["tokens/s"] > 0 for line in lines if "tokens/s" in line)


def test_parts_that_hang_or_fail_do_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "gpu_parts.py").write_text(HANGING)
    (tmp_path / "drive.py").write_text(f"import sys; sys.path.append('benchmarks')\n{DRIVE}")
    done = run(sys.executable, str(tmp_path / "drive.py"))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    hangs = [{"part": "hangs", "what": "begun"}, {"part": "hangs", "failed": "not done after 2 s"}]
    dies = [{"part": "dies", "what": "begun"}, {"part": "dies", "failed": "ValueError: no luck"}]
    assert lines == [*hangs, *dies, *hangs]


def test_what_the_machine_lacks_is_said_in_one_line(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, 'benchmarks'); import gpu; sys.argv[1:] = []; gpu.main()"
    )
    done = run(sys.executable, "-S", "-c", script)
    assert done.returncode == 1
    assert done.stderr.startswith("gpu.py: not installed here: torch, transformers, ")
    assert len(done.stderr.splitlines()) == 1
