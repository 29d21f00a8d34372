"""What pruning and evaluations on some rows have saved in a search: counted, not timed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.results.records import StudySnapshot, TrialRecord
from trainers.protocol.settings import BUDGETS


@dataclass(frozen=True)
class PruningSavings:
    """What the pruning rule has saved."""

    stopped: int
    trials: int
    """Trained in this sweep, to their end or until they were pruned."""
    examples: float | None
    """Training examples that were left out, as a share of those in the budgets of all `trials`; None where the budget
    is a dimension: a pruned trial does not say how long it would have been."""


@dataclass(frozen=True)
class EvaluationSavings:
    """What evaluations on a part of the validation rows have saved."""

    used: int
    """Validation rows that evaluations inside a trial used."""
    of: int
    """All validation rows."""
    rows: float
    """Rows that were not evaluated, as a share of what the same evaluations on all rows would have taken; the one on
    all rows at the end of a complete trial is counted."""


@dataclass(frozen=True)
class Savings:
    """What a search has saved; a part is None where it has saved nothing, or where nobody can know."""

    pruning: PruningSavings | None = None
    evaluation: EvaluationSavings | None = None


def savings(view: StudySnapshot) -> Savings:
    """What the search of a sweep has saved so far. The finalists' race says so itself (`RaceReport`)."""
    trained = [r for r in view.records if r.state in ("complete", "pruned") and not r.reused_from and r.curve]
    return Savings(_of_pruning(trained, view), _of_evaluation(trained, view))


def _of_pruning(trained: Sequence[TrialRecord], view: StudySnapshot) -> PruningSavings | None:
    ended = [r for r in trained if r.result and r.result.stopped_by != "sweep_budget"]  # which the rule had no part in
    pruned = [record for record in ended if record.state == "pruned"]
    if not pruned:
        return None
    left_out = sum(1 - record.curve[-1][0] for record in pruned) / len(ended)
    is_searched = any(name in view.config["search_space"] for name in BUDGETS)
    return PruningSavings(len(pruned), len(ended), None if is_searched else left_out)


def _of_evaluation(trained: Sequence[TrialRecord], view: StudySnapshot) -> EvaluationSavings | None:
    some, data = view.state.evaluation_rows, view.state.data
    if some is None or data is None or not trained:
        return None
    rows = data.rows["validation"]
    evaluations = sum(len(record.curve) for record in trained)
    on_all = sum(record.state == "complete" for record in trained)
    saved = 1 - (evaluations * some + on_all * rows) / (evaluations * rows)
    return EvaluationSavings(some, rows, saved) if saved > 0 else None
