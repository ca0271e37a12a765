"""Check that a wheel holds every tracked file of the package, and nothing else of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile


def main(wheel: str, source: str) -> None:
    """Compare the names in the wheel with those that git tracks under src/."""
    listed = subprocess.run(
        ["git", "ls-files", "src"], cwd=source, capture_output=True, text=True, check=True
    )
    tracked = {name.removeprefix("src/") for name in listed.stdout.splitlines()}
    tracked = {name for name in tracked if (Path(source) / "src" / name).is_file()}
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    needed = {
        "scdpo/py.typed",
        "scdpo/recipes/embedded.yaml",
        "scdpo/recipes/accelerate/fsdp2.yaml",
        "scdpo/embedded/policy/model.safetensors",
        "scdpo/embedded/test.jsonl.gz",
    }
    complaints = [f"not in the wheel: {name}" for name in sorted((tracked | needed) - packed)]
    complaints += [f"in the wheel, but not tracked: {name}" for name in sorted(packed - tracked)]
    if complaints:
        sys.exit("\n".join(complaints))
    sys.stdout.write(f"wheel: {len(packed)} files\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
