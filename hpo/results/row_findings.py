"""What the validation rows say of the champion: slices, and rows on which it and the baseline differ. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.results.disagreements import SHOWN, both_answers, disagreement
from hpo.results.row_slices import RowSlice, by_label, by_length, by_word, measure_of
from trainers.metrics.table import Rows


@dataclass(frozen=True)
class JudgedRows:
    """Validation rows as the tokens' folder has them, with what two trainings made of each, in one order."""

    task: str
    labels: Sequence[str]
    inputs: Sequence[dict[str, Any]]
    champion: Rows
    """Shape [rows, columns]."""
    baseline: Rows | None
    """None where the champion is the baseline, or the baseline's rows are not kept."""
    total: int
    """Validation rows; `inputs` are the first of them, where there are more than anybody looks at."""
    readable: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row
    """What makes of an input one that a person reads."""


@dataclass(frozen=True)
class RowFindings:
    """What there is to say of the rows."""

    rows: int
    """That were looked at."""
    total: int
    measure: str
    """What slices are measured in."""
    slices: Sequence[RowSlice]
    words_looked_at: int
    better: int | None = None
    """Rows that the champion alone has right, or does better; None without a baseline to compare with."""
    worse: int | None = None
    examples_better: Sequence[Mapping[str, Any]] = ()
    """The clearest of them, as people read them."""
    examples_worse: Sequence[Mapping[str, Any]] = ()


def row_findings(judged: JudgedRows) -> RowFindings:
    """All findings."""
    task, mine, other = judged.task, judged.champion, judged.baseline
    words, looked_at = by_word(task, mine, other, judged.inputs)
    slices = [*by_label(task, mine, other, judged.labels), *by_length(task, mine, other, judged.inputs), *words]
    rows = (len(mine), judged.total, measure_of(task), slices, looked_at)
    if other is None:
        return RowFindings(*rows)
    found = disagreement(task, mine, other)

    def shown(numbers: Sequence[int]) -> list[Mapping[str, Any]]:
        return [
            both_answers(task, judged.readable(judged.inputs[n]), mine[n], other[n], judged.labels)
            for n in numbers[:SHOWN]
        ]

    return RowFindings(*rows, len(found.better), len(found.worse), shown(found.better), shown(found.worse))
