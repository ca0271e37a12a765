"""Step-Controlled DPO (arXiv 2407.00782): sample, branch, pair, train and measure.

    problems = scdpo.load_problems("gsm8k", "train.jsonl", limit=100)
    with scdpo.Engine("my-sft-7b") as engine, scdpo.Sandbox() as box:
        solutions = scdpo.sample(problems, engine, sandbox=box)
        branches = scdpo.branch(solutions, engine, sandbox=box)
    pairs = scdpo.pair(solutions, branches)
    report = scdpo.train("my-sft-7b", pairs, out="scdpo-7b", beta=0.1)

Functions that wait for a policy or a program work with and without a running event loop, and have
a twin `…_async`. Errors are subclasses of `scdpo.errors.ScdpoError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

if TYPE_CHECKING:
    from scdpo.engines import EngineProtocol
    from scdpo.engines import LocalEngine as Engine
    from scdpo.evaluation import compare, evaluate, evaluate_async
    from scdpo.formats import get_format
    from scdpo.grading import grade, grade_async
    from scdpo.pairs import pair, pairs_from_rows
    from scdpo.problems import load_problems
    from scdpo.records import Pair, Problem, Solution, Step, Verdict
    from scdpo.sampling import Schedule, branch, branch_async, sample, sample_async
    from scdpo.sandbox import ProcessSandbox as Sandbox
    from scdpo.training import dpo_loss, dpop_loss, ipo_loss, sft, train, tree_logps

__version__ = "0.1.0"

__all__ = [
    "Engine",
    "EngineProtocol",
    "Pair",
    "Problem",
    "Sandbox",
    "Schedule",
    "Solution",
    "Step",
    "Verdict",
    "branch",
    "branch_async",
    "compare",
    "dpo_loss",
    "dpop_loss",
    "evaluate",
    "evaluate_async",
    "get_format",
    "grade",
    "grade_async",
    "ipo_loss",
    "load_problems",
    "pair",
    "pairs_from_rows",
    "sample",
    "sample_async",
    "sft",
    "train",
    "tree_logps",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "engines": "Engine=LocalEngine EngineProtocol",
        "evaluation": "compare evaluate evaluate_async",
        "formats": "get_format",
        "grading": "grade grade_async",
        "pairs": "pair pairs_from_rows",
        "problems": "load_problems",
        "records": "Pair Problem Solution Step Verdict",
        "sampling": "Schedule branch branch_async sample sample_async",
        "sandbox": "Sandbox=ProcessSandbox",
        "training": "dpo_loss dpop_loss ipo_loss sft train tree_logps",
    },
    packages=(
        *("engines", "evaluation", "formats", "grading", "pairs", "pipeline", "problems"),
        *("sampling", "sandbox", "store", "training"),
    ),
)
