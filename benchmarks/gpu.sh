#!/bin/sh
# Everything of interest on a GPU, in at most 8 minutes: see benchmarks/gpu.py.
#
#   benchmarks/gpu.sh [--wheels DIR] [--out DIR] [--parts attention,pairs] [--dry]
#   benchmarks/gpu.sh --fetch DIR     on a machine with a network: the wheels for DIR
#
# The machine needs Python with torch and transformers, and no network. Wheels of what else is
# used, if given, are installed without their dependencies into a virtual environment that sees
# the machine's packages; a package that the machine has already is left as it is.
set -eu
ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-python3}
WHEELS=

if [ "${1:-}" = --fetch ]; then
    exec "$PYTHON" -m pip download --no-deps --only-binary :all: -c "$ROOT/constraints.txt" \
        -d "${2:?a folder}" accelerate pydantic pydantic_core annotated-types typing-inspection \
        lazy-loader PyYAML psutil peft trl datasets pyarrow xxhash dill multiprocess pandas \
        bitsandbytes
fi
if [ "${1:-}" = --wheels ]; then
    WHEELS=$(cd "$2" && pwd)
    shift 2
fi
cd "$ROOT"
if [ -n "$WHEELS" ]; then
    "$PYTHON" -m venv --system-site-packages build/gpu
    # Packages of an environment that $PYTHON itself belongs to are seen too.
    SITE=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    build/gpu/bin/python -c "import pathlib, sysconfig
folder = pathlib.Path(sysconfig.get_path('purelib'))
(folder / 'machine.pth').write_text('$SITE\n')"
    for wheel in "$WHEELS"/*.whl; do
        build/gpu/bin/python benchmarks/gpu_wheel.py "$wheel" ||
            build/gpu/bin/python -m pip install --quiet --no-index --no-deps "$wheel" ||
            echo "gpu.sh: $wheel was not installed; parts that need it will say so" >&2
    done
    PYTHON=build/gpu/bin/python
fi
PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" exec "$PYTHON" benchmarks/gpu.py "$@"
