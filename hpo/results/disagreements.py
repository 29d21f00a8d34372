"""Rows on which the champion and the baseline differ: how many each alone has right, and the clearest of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.results.error_analysis import example
from trainers.metrics.table import ROW_RESULTS, Rows

SHOWN = 10
"""Rows of each kind."""


@dataclass(frozen=True)
class Disagreement:
    """Rows that one of the two does better, by number: those with the largest difference in loss first."""

    better: Sequence[int]
    """The champion is right and the baseline wrong; where rows have no one label, its loss is lower."""
    worse: Sequence[int]


def disagreement(task: str, champion: Rows, baseline: Rows) -> Disagreement:
    """Compare per-row results, [rows, columns], on the same rows in the same order."""
    losses = ROW_RESULTS[task].losses
    gained = np.nan_to_num(losses(baseline) - losses(champion))
    if task == "text-classification":
        mine, other = champion[:, 0] == champion[:, 1], baseline[:, 0] == baseline[:, 1]
        better, worse = np.flatnonzero(mine & ~other), np.flatnonzero(other & ~mine)
    else:
        better, worse = np.flatnonzero(gained > 0), np.flatnonzero(gained < 0)
    order = np.argsort(-np.abs(gained), kind="stable")
    return Disagreement(_in_order(order, better), _in_order(order, worse))


def _in_order(order: Any, chosen: Any) -> list[int]:
    kept = set(chosen.tolist())
    return [int(row) for row in order if int(row) in kept]


def both_answers(
    task: str, inputs: Mapping[str, Any], champion: Any, baseline: Any, labels: Sequence[str]
) -> dict[str, Any]:
    """One row as a person reads it: the input, the true answer, and what each of the two answered, with its loss.

    `champion` and `baseline` are its per-row results.
    """
    mine, other = (example(task, inputs, row, labels) for row in (champion, baseline))
    own = ("loss", "predicted", "true")
    shown = {name: value for name, value in mine.items() if name not in own}
    shown |= {"true": mine["true"]} if "true" in mine else {}
    for who, found in (("champion", mine), ("baseline", other)):
        shown |= {who: found["predicted"]} if "predicted" in found else {}
        shown[f"{who}'s loss"] = found["loss"]
    return shown
