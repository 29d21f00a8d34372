"""The two parts of the validation rows: those that choose the champion, and those that certify its lead. Pure.

Whoever is best on some rows owes a part of it to them: on the rows that chose it, its lead is too large. On others it
is not. A row is in one part or the other by its content, so in every sweep on this data it is in the same one. Its
label counts as content: nights, whose claims must hold together, set rows apart by the input alone when they freeze.
The turns of one conversation are in one part: a model that is good at one of them is good at the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hpo.config.sweep_config import SweepConfig
from hpo.results.gaps import FEWEST_ROWS
from hpo.results.statistics import Units
from trainers.protocol.catalog import GENERATED

SMALLEST = 200
"""With fewer rows all do both: half of them would show next to nothing (differences from 0.06 on, as below)."""
SHARES_OF_ROWS = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "exact_match")
"""Metrics that are about a share of right rows, for which it can be said beforehand what rows show."""
DISAGREEMENT = 0.1
"""Assumed share of rows on which one of two fine-tuned models is right and the other is wrong."""

Numbers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class RowParts:
    """Numbers of the validation rows in each part."""

    choosing: Numbers
    certifying: Numbers
    units: Units | None = None
    """Of all validation rows; None where each row is one."""

    @property
    def is_split(self) -> bool:
        """Whether no row does both."""
        return self.choosing is not self.certifying

    def among(self, rows: Numbers) -> RowParts:
        """The parts of some of the rows."""
        choosing = np.intersect1d(self.choosing, rows)
        return replace(self, choosing=choosing,
                       certifying=np.intersect1d(self.certifying, rows) if self.is_split else choosing)  # fmt: skip

    def units_of(self, rows: Numbers) -> Units | None:
        """The units of one part."""
        return None if self.units is None else self.units[rows]


def split_rows(contents: Iterable[bytes]) -> RowParts:
    """About half of the rows in each part, by a hash of their content; all in both where one part would be empty."""
    chooses = np.array([hashlib.sha256(content).digest()[0] % 2 == 0 for content in contents], dtype=bool)
    if chooses.all() or not chooses.any():
        return whole(len(chooses))
    return RowParts(np.flatnonzero(chooses), np.flatnonzero(~chooses))


def whole(rows: int) -> RowParts:
    """All rows in both parts."""
    numbers = np.arange(rows)
    return RowParts(numbers, numbers)


def counted_rows(config: SweepConfig, rows: int) -> int:
    """Rows that the objective is measured on: a metric of generated text has answers for some of them alone."""
    return min(rows, config.generation.examples) if config.objective.metric in GENERATED else rows


def is_split(config: SweepConfig, rows: int) -> bool:
    """Whether finalists are chosen on some rows and certified on others. A night has set rows apart for that already:
    all that its sweep has choose."""
    is_wanted = config.finalists is not None and not config.is_certified_later
    return is_wanted and counted_rows(config, rows) >= SMALLEST


def smallest_difference(rows: int) -> float:
    """About the smallest difference of two shares that is beyond noise on the same `rows`: 1.96 sqrt(d / rows).

    McNemar's standard error (1947) of a paired difference, with the share d of rows on which the two disagree.
    """
    return 1.96 * math.sqrt(DISAGREEMENT / rows)


def what_rows_show(config: SweepConfig, validation_rows: int) -> list[str]:
    """What to know of the validation rows before a sweep starts, in sentences."""
    rows, metric, lines = counted_rows(config, validation_rows), config.objective.metric, []
    certifying = rows // 2 if (splits := is_split(config, validation_rows)) else rows
    if splits:
        lines.append(
            f"finalists: about half of the {rows:,} validation rows choose the champion, the others certify its lead"
        )
    elif config.is_certified_later:
        lines.append(f"{rows:,} validation rows choose the champion; other rows certify it after the sweep")
    elif config.finalists is not None:
        lines.append(
            f"finalists: {rows:,} validation rows are fewer than {SMALLEST}, so the same rows choose the champion and "
            "certify its lead"
        )
    if 0 < certifying < FEWEST_ROWS:
        lines.append(f"{certifying} rows can show no difference, however large it is: {FEWEST_ROWS} are the fewest")
    elif metric in SHARES_OF_ROWS and rows:
        lines.append(
            f"{certifying:,} rows can show a difference of about {smallest_difference(certifying):.1g} in {metric} at "
            f"best, where two models disagree on {DISAGREEMENT:.0%} of the rows; a smaller one needs more rows"
        )
    return lines
