"""Exit code 0 if the package of a wheel is installed already, in whatever version.

python benchmarks/gpu_wheel.py DIR/accelerate-1.15.0-py3-none-any.whl
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

if __name__ == "__main__":
    try:
        version(Path(sys.argv[1]).name.split("-")[0])
    except PackageNotFoundError:
        raise SystemExit(1) from None
