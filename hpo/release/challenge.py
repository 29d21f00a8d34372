"""What a champion must beat to be released at all: a model with one answer to everything."""

from __future__ import annotations

from hpo.config.objective import gate_of
from hpo.release.gates import useless
from hpo.results.champion import Champion
from hpo.trials.context import SweepContext
from hpo.trials.trial_files import read_result, rows_of_result
from trainers.metrics.constant import ANSWERS, constant_rows
from trainers.metrics.table import ROW_RESULTS


def refuse_useless(sweep: SweepContext, champion: Champion) -> str | None:
    """Why the champion is not worth a release, with the numbers; None where it is, or that cannot be computed."""
    task, gate = sweep.config.task, gate_of(sweep.config.task, sweep.config.objective)
    paths = sweep.champion_paths(champion)
    if sweep.config.promote and sweep.config.promote.allow_useless:
        return None
    try:
        rows = rows_of_result(paths, read_result(paths), sweep.executor.fetch)
    except FileNotFoundError:
        return None
    kind, labels = ROW_RESULTS[task], sweep.inspection.labels
    constant = constant_rows(task, rows[:, : kind.width(labels)], labels)
    if constant is None:
        return None
    least, value = kind.metrics(constant, labels)[gate.metric], champion.metrics[gate.metric]
    if not useless(gate, value, least):
        return None
    numbers = f"{gate.metric} {value:.4f} against {least:.4f} on the validation rows"
    return (
        f"trial {champion.number} is no better than always answering {ANSWERS[task]}: {numbers}; "
        "to release it anyway, write promote: {allow_useless: true}"
    )
