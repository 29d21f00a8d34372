"""What a champion must beat to be released: a model with one answer to everything, and the release it would replace."""

from __future__ import annotations

import json
from pathlib import Path

from hpo.config.objective import gate_of
from hpo.errors import HpoError
from hpo.release.gates import useless
from hpo.results.champion import Champion
from hpo.results.released import VariantVerdict
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.slots import cores
from hpo.trials.trial_files import read_result, rows_of_result
from trainers.metrics.constant import ANSWERS, constant_rows
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.events import Measurement
from trainers.protocol.requests import Measure
from trainers.runtime.card import GENERATIVE, REWRITING, Card, ReleaseError


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


def refuse_replacing(sweep: SweepContext, champion: Champion, chosen: VariantVerdict) -> str | None:
    """Why another sweep's release keeps the name, with both numbers; None where the champion may take the name.

    Both are compared on all validation rows.
    """
    from hpo.release.registry import incumbent_of  # late, for MLflow

    wanted = sweep.config.promote
    assert wanted is not None and chosen.measurement is not None  # noqa: S101, PT018  # it was measured to be promoted
    old = incumbent_of(sweep.home, wanted.name)
    if old is None or old.sweep == sweep.config.name:
        return None
    gate = gate_of(sweep.config.task, sweep.config.objective)
    new_value = chosen.measurement.metrics[gate.metric]
    try:
        if chosen.measurement.rows is not None:
            sweep.view.say(f"measuring {chosen.variant} on the other validation rows too")
            new_value = _metrics(sweep, sweep.paths.release / chosen.variant)[gate.metric]
        sweep.view.say(f"measuring {old} on these validation rows")
        old_value = _metrics_of_release(sweep, old.folder())[gate.metric]
        is_better = gate.better(old_value, new_value)
        numbers = f"{gate.metric} {old_value:.4f} on these validation rows, trial {champion.number} has {new_value:.4f}"
    except (HpoError, ReleaseError) as error:
        is_better = True
        numbers = f"it cannot be compared ({error}); trial {champion.number} has {gate.metric} {new_value:.4f}"
    if is_better and not wanted.replace:
        return (
            f"models:/{wanted.name}@champion stays {old}: {numbers}; "
            "to replace it, write promote: {replace: true}, or choose another promote.name"
        )
    sweep.view.say(f"replacing {old}: {numbers}")
    return None


def _metrics_of_release(sweep: SweepContext, folder: Path) -> dict[str, float]:
    """Metrics of another sweep's release on this sweep's validation rows.

    Raises `HpoError` where they do not compare.
    """
    card = Card.read(folder)
    if card.task != sweep.config.task:
        raise HpoError(f"it is a model for {card.task}")
    if card.task in (*GENERATIVE, REWRITING) and _base_of(folder) != sweep.inspection.model_fingerprint:
        raise HpoError("it has another base model, so its tokens differ")
    return _metrics(sweep, folder)


def _metrics(sweep: SweepContext, folder: Path) -> dict[str, float]:
    """Metrics of a release folder on all validation rows; labels are matched by name."""
    rows = str(Path(sweep.inspection.tokens_dir) / "validation.jsonl")
    request = Measure(folder.name, str(folder.parent), rows, cores(), sweep.inspection.labels)
    measured = run_alone(sweep.executor, request)
    assert isinstance(measured, Measurement)  # noqa: S101  # the protocol's answer to Measure
    return measured.metrics


def _base_of(folder: Path) -> str | None:
    """The hash of a release's base model; None where its manifest is missing or damaged."""
    try:
        base: str = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sha256"]["base"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return base
