"""Promotion: exports the champion, measures every variant, applies the gate and releases the fastest that passed."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from hpo.config.objective import Objective, gate_of
from hpo.errors import RequestFailed
from hpo.release.challenge import refuse_replacing, refuse_useless
from hpo.release.gates import apply_gate, choose, failed, verdict_of
from hpo.results.champion import Champion
from hpo.results.released import TorchNumbers, VariantVerdict
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.slots import cores
from trainers.protocol.catalog import TASKS
from trainers.protocol.events import AllJudged, Exported, Measurement
from trainers.protocol.requests import Export, Gate, Measure, MeasureAll
from trainers.protocol.trial_spec import TrialSpec


def promote(sweep: SweepContext) -> None:
    """Release the champion as ONNX, unless this trial is already released under the same gate.

    It is refused when it is useless, no variant passed, or another sweep has a better release of that name. Then the
    study's `refusal` gives the reason with the numbers, and an earlier release stays.
    """
    champion = sweep.champion()
    sweep.study.update_state(refusal=None)
    if champion is None:
        sweep.study.update_state(refusal="no complete trial meets the constraints, so there is no champion")
        return
    if sweep.config.promote is None or _is_released(sweep, champion):
        return
    if why := sweep.inspection.unreleasable.get(str(champion.params.get("method", sweep.config.method))):
        found = f"trial {champion.number} cannot be released: {why}"
        if sweep.config.promote_is_given:
            sweep.study.update_state(refusal=found)
        else:
            sweep.view.say(f"{found}; its adapter is kept")
        return
    if useless := refuse_useless(sweep, champion):
        sweep.study.update_state(refusal=useless)
        return
    _release_best_variant(sweep, champion, sweep.config.promote.max_drop)


def _release_best_variant(sweep: SweepContext, champion: Champion, max_drop: float) -> None:
    """Export and measure the champion's variants, and register the fastest that passed, or record the refusal."""
    sweep.view.say(f"promoting trial {champion.number}: merging its adapter, exporting to ONNX")
    folder = sweep.paths.release
    verdicts = measure_variants(sweep, export(sweep, champion, folder), folder, max_drop)
    chosen = choose(verdicts)
    if chosen is None:
        numbers = "; ".join(f"{verdict.variant}: {verdict.reason}" for verdict in verdicts)
        sweep.study.update_state(refusal=f"no ONNX variant of trial {champion.number} passed: {numbers}")
        return
    if refusal := refuse_replacing(sweep, champion, chosen):
        sweep.study.update_state(refusal=refusal)
        return
    from hpo.release.registry import Candidate, release_model  # late, for MLflow

    fetch, adapter = sweep.executor.fetch, sweep.champion_paths(champion).adapter
    parts = (fetch(adapter), chosen, fetch(folder / chosen.variant))
    release = release_model(sweep.home, Candidate(sweep.config, sweep.inspection, champion, *parts))
    shutil.rmtree(folder)  # the registry has the chosen variant; the others can be exported again
    sweep.study.update_state(release=dataclasses.replace(release, max_drop=max_drop))


def _is_released(sweep: SweepContext, champion: Champion) -> bool:
    stored = sweep.study.state.release
    wanted = sweep.config.promote
    if stored is None or wanted is None:
        return False
    from hpo.release.registry import has_release  # late, for MLflow

    if not has_release(sweep.home, stored.name, stored.version, sweep.view.say):
        return False
    return (stored.run_id, stored.name, stored.max_drop) == (champion.run_id, wanted.name, wanted.max_drop)


def export(sweep: SweepContext, champion: Champion, folder: Path) -> Exported:
    """Merge the champion's adapter in fp32 and write the task's ONNX variants, in a child of the trial host."""
    if folder.exists():
        shutil.rmtree(folder)
    exported = run_alone(
        sweep.executor,
        Export(champion_spec(sweep, champion), sweep.inspection, list(TASKS[sweep.config.task].variants), str(folder)),
    )
    assert isinstance(exported, Exported)  # noqa: S101  # the protocol's answer to Export
    return exported


def champion_spec(sweep: SweepContext, champion: Champion) -> TrialSpec:
    """The specification that the champion was trained with; a finalist's repeat has its own seed."""
    paths = sweep.champion_paths(champion)
    seed = None if champion.repeat is None else sweep.config.seed + 1 + champion.repeat
    return sweep.specs.spec(champion.number, champion.params, paths, seed=seed)


def measure_variants(sweep: SweepContext, exported: Exported, folder: Path, max_drop: float) -> list[VariantVerdict]:
    """Measure the variants, nothing else under way, and apply the gate."""
    gate = gate_of(sweep.config.task, sweep.config.objective)
    try:
        verdicts = _in_turns(sweep, exported, folder, gate, max_drop) if exported.variants else []
    except RequestFailed as error:
        sweep.view.say(f"measuring in turns failed ({error}): measuring each variant alone")
        verdicts = _each_alone(sweep, exported, folder, gate, max_drop)
    verdicts += failed(exported.failures)
    sweep.study.update_state(torch=TorchNumbers(exported.metrics, exported.latency_p50_ms), variants=verdicts)
    return verdicts


def _in_turns(
    sweep: SweepContext, exported: Exported, folder: Path, gate: Objective, max_drop: float
) -> list[VariantVerdict]:
    """All variants in one process, each on as many rows as its verdict needs."""
    sweep.view.say(f"measuring {', '.join(exported.variants)} in onnxruntime, in turns")
    wanted = Gate(gate.metric, gate.direction, max_drop)
    request = MeasureAll(exported.variants, str(folder), _rows(sweep), cores(), wanted)
    found = run_alone(sweep.executor, request)
    assert isinstance(found, AllJudged)  # noqa: S101  # the protocol's answer to MeasureAll
    verdicts = [verdict_of(judged, found.count, gate, max_drop) for judged in found.judged]
    for verdict in verdicts:
        sweep.view.say(f"{verdict.variant}: {verdict.word} on {verdict.rows} rows")
    return verdicts + failed({name: f"could not be measured: {why}" for name, why in found.failures.items()})


def _each_alone(
    sweep: SweepContext, exported: Exported, folder: Path, gate: Objective, max_drop: float
) -> list[VariantVerdict]:
    """Each variant in a process of its own, on all rows: one that crashes or needs too much memory harms no other."""
    measurements, failures = [], {}
    for variant in exported.variants:
        try:
            measurements.append(_alone(sweep, folder, variant))
        except RequestFailed as error:
            failures[variant] = f"could not be measured: {error}"  # such a variant is not released
    return apply_gate(exported.metrics, measurements, failures, gate, max_drop)


def _alone(sweep: SweepContext, folder: Path, variant: str) -> Measurement:
    """One variant on all validation rows. Raises `RequestFailed`."""
    sweep.view.say(f"measuring {variant} in onnxruntime")
    measured = run_alone(sweep.executor, Measure(variant, str(folder), _rows(sweep), cores()))
    assert isinstance(measured, Measurement)  # noqa: S101  # the protocol's answer to Measure
    return measured


def _rows(sweep: SweepContext) -> str:
    return str(Path(sweep.inspection.tokens_dir) / "validation.jsonl")
