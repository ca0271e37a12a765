# make demo   set up and run the whole pipeline on the embedded policy
# make view   open the run of make demo in the browser (RUN=… another)
# make test   set up and run the tests
# make attacks  hostile code against the sandbox: 475 cases, as root and without rights
# make check  format, lint, types and documentation, then the tests
# make docs   the documentation site, into build/site
# make wheel  the wheel, installed in a clean environment and run from there
# Everything lives in .venv of this checkout; no other Python packages are touched.

PYTHON ?= python3
# Recorded solutions for bench-replay, bench-clones and bench-training, in the layouts that
# `scdpo import` reads.
RECORDED ?= ../shared/data/solutions
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup setup-dev demo view test attacks check docs wheel format clean \
        bench-engine bench-path bench-sft bench-replay bench-resume \
        bench-sandbox bench-sandbox-before bench-clones bench-soak bench-grading \
        bench-grading-speed bench-training bench-gpu bench-viewer bench-plan bench-memory bench-scale

setup: .venv/base.done

.venv/base.done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=python3.11 …" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

setup-dev: .venv/dev.done

.venv/dev.done: .venv/base.done
	$(PIP) -e '.[dev,docs]'
	touch $@

demo: setup
	$(BIN)/scdpo run embedded

RUN ?= runs/embedded

view: .venv/viewer.done
	$(BIN)/scdpo view $(RUN)

.venv/viewer.done: .venv/base.done
	$(PIP) -e '.[viewer]'
	touch $@

# A worker for each core, up to four, each with torch on one thread.
test: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup \
	  --no-loadscope-reorder

# ATTACKS=3 runs every third of them.
ATTACKS ?= 1
attacks: setup-dev
	ATTACKS=$(ATTACKS) $(BIN)/python -m pytest tests/test_attacks.py

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory docs test

# Strict: a broken link, an unknown name or a page that nothing leads to is an error.
docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: setup
	PYTHON='$(PYTHON)' ./.ci/wheel build/wheel

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-engine: setup
	$(BIN)/python benchmarks/engine.py

bench-plan: setup
	$(BIN)/python benchmarks/plan.py

bench-memory: setup-dev
	$(BIN)/python benchmarks/memory.py

bench-path: setup
	$(BIN)/python benchmarks/path.py

bench-sft: setup
	$(BIN)/python benchmarks/sft.py

bench-replay: setup
	$(BIN)/python benchmarks/replay.py $(RECORDED)

bench-resume: setup
	$(BIN)/python benchmarks/resume.py --kills 20

.venv/bench.done: .venv/base.done
	$(PIP) -e '.[bench]'
	touch $@

bench-scale: setup
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/scale_store.py

bench-sandbox: .venv/bench.done
	$(BIN)/python benchmarks/sandbox.py

# make bench-sandbox-before REVISION=…: against an earlier commit, in turns.
bench-sandbox-before: setup
	$(BIN)/python benchmarks/sandbox_before.py $(REVISION)

bench-clones: setup
	$(BIN)/python benchmarks/clones.py $(RECORDED)

bench-training: setup-dev
	$(BIN)/python benchmarks/training.py $(RECORDED)

# On a machine with a GPU and its own torch; `benchmarks/gpu.sh --wheels DIR` carries the rest.
bench-gpu:
	PYTHON='$(PYTHON)' benchmarks/gpu.sh

# Needs Chromium.
bench-viewer: setup-dev
	$(BIN)/python benchmarks/viewer.py

bench-soak: setup
	$(BIN)/python benchmarks/soak.py

# The data sets and recorded solutions, in a folder as docs/grading.md says.
DATA ?= ../shared/data

bench-grading: setup
	$(BIN)/python benchmarks/grading.py $(DATA)

# The grader of a checkout of another version, in the folder BEFORE, beside this one's.
bench-grading-speed: setup
	$(BIN)/python benchmarks/grading_speed.py $(BEFORE) $(DATA)

clean:
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache
