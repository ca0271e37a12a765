"""Preference pairs: naive (Eq. 1) and step-controlled (Eq. 2), their mixture (Eq. 5), and the
data-equal control of the paper's comparison (arXiv 2407.00782).

Pure functions over records: the result depends on the set of rows and the config, not on the
order the rows were written in.
"""

from scdpo.pairs.building import pair
from scdpo.pairs.candidates import PairResult
from scdpo.pairs.config import PairConfig, is_heldout
from scdpo.pairs.export import trl_rows
from scdpo.pairs.mixture import mixture
from scdpo.pairs.naive import data_equal, naive_pairs
from scdpo.pairs.rows import pairs_from_rows
from scdpo.pairs.step_controlled import step_controlled_pairs
from scdpo.pairs.step_labels import LabelKind, StepLabels, step_labels

__all__ = [
    "LabelKind",
    "PairConfig",
    "PairResult",
    "StepLabels",
    "data_equal",
    "is_heldout",
    "mixture",
    "naive_pairs",
    "pair",
    "pairs_from_rows",
    "step_controlled_pairs",
    "step_labels",
    "trl_rows",
]
