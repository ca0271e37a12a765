"""Problems with gold answers: benchmark files, hub data sets, and the packaged problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

if TYPE_CHECKING:
    from scdpo.problems.benchmarks import BENCHMARKS, Benchmark, load_problems
    from scdpo.problems.embedded import EMBEDDED, EmbeddedSplit, generate, load_embedded
    from scdpo.problems.gold import one_of_several, problem_id
    from scdpo.problems.places import Place

_NAMES = {
    "benchmarks": "BENCHMARKS Benchmark load_problems",
    "embedded": "EMBEDDED EmbeddedSplit generate load_embedded",
    "gold": "one_of_several problem_id",
    "places": "Place",
}

__all__ = [
    "BENCHMARKS",
    "EMBEDDED",
    "Benchmark",
    "EmbeddedSplit",
    "Place",
    "generate",
    "load_embedded",
    "load_problems",
    "one_of_several",
    "problem_id",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
