"""Solutions from a policy: the step loop, naive sampling, and branching at rising temperatures.

Everything here works on records in memory; `pipeline` stores them on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdpo.lazy import lazy_names

if TYPE_CHECKING:
    from scdpo.sampling.branching import (
        branch,
        branch_async,
        branch_solutions,
        count_branches,
        first_preferred,
    )
    from scdpo.sampling.config import BranchConfig, Limits, SampleConfig, Schedule
    from scdpo.sampling.driver import drive
    from scdpo.sampling.naive import sample, sample_async, sample_solutions
    from scdpo.sampling.rollout import RolloutResult, Task
    from scdpo.sampling.solutions import Attempt, Sampler, count_solutions

_NAMES = {
    "branching": "branch branch_async branch_solutions count_branches first_preferred",
    "config": "BranchConfig Limits SampleConfig Schedule",
    "driver": "drive",
    "naive": "sample sample_async sample_solutions",
    "rollout": "RolloutResult Task",
    "solutions": "Attempt Sampler count_solutions",
}

__all__ = [
    "Attempt",
    "BranchConfig",
    "Limits",
    "RolloutResult",
    "SampleConfig",
    "Sampler",
    "Schedule",
    "Task",
    "branch",
    "branch_async",
    "branch_solutions",
    "count_branches",
    "count_solutions",
    "drive",
    "first_preferred",
    "sample",
    "sample_async",
    "sample_solutions",
]

__getattr__, __dir__ = lazy_names(__name__, _NAMES)
