"""The pruning rules by the names that a YAML uses."""

from __future__ import annotations

from collections.abc import Mapping

from hpo.pruning.base import Never
from hpo.pruning.halving import Hyperband, SuccessiveHalving
from hpo.pruning.paired import Paired
from hpo.pruning.patient import Patient
from hpo.pruning.percentile import Median, Percentile
from hpo.pruning.threshold import Threshold

RULES: Mapping[str, type] = {
    "none": Never,
    "successive_halving": SuccessiveHalving,
    "hyperband": Hyperband,
    "median": Median,
    "percentile": Percentile,
    "threshold": Threshold,
    "patient": Patient,
    "paired": Paired,
}
"""The rules by their names in YAML."""
