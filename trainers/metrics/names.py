"""The metrics that a sweep names besides its task's own. Without numpy: commands that only read need nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from trainers.protocol.catalog import GENERATED


def needs_generation(metrics: Sequence[str]) -> bool:
    """Whether any of these metrics is computed from generated text."""
    return bool(set(metrics) & set(GENERATED))


def own_name(metric: str) -> str:
    """The name that the user's own metric is shown by: `cost` for `my_metrics.py:cost`."""
    return metric.rpartition(":")[2]
