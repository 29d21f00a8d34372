"""Promotion: export the champion, measure every variant, let the gate judge, release what passed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hpo.config.objective import gate_of
from hpo.errors import RequestFailed
from hpo.release.challenge import refuse_replacing, refuse_useless
from hpo.release.gates import Judged, apply_gate, choose
from hpo.results.champion import Champion
from hpo.search.context import SweepContext
from hpo.trials.calls import run_alone
from trainers.protocol.catalog import TASKS
from trainers.protocol.codec import to_json
from trainers.protocol.messages import Export, Exported, Measure, Measurement, TrialSpec


def promote(sweep: SweepContext) -> None:
    """Release the champion as ONNX, unless that very trial is released already under the same gate.

    When it is useless, no variant passed, or a better release of another sweep has the name, the study's `refusal` says
    why, with the numbers, and an earlier release stays.
    """
    champion = sweep.champion()
    sweep.study.set_attr("refusal", None)
    if champion is None:
        sweep.study.set_attr("refusal", "no complete trial keeps the constraints, so there is no champion")
        return
    if sweep.config.promote is None or _is_released(sweep, champion):
        return
    if why := sweep.inspection.unreleasable.get(str(champion.params.get("method", sweep.config.method))):
        told = f"trial {champion.number} cannot be released: {why}"
        if sweep.config.promote_is_given:
            sweep.study.set_attr("refusal", told)
        else:
            sweep.view.say(f"{told}; its adapter is kept")
        return
    if refusal := refuse_useless(sweep, champion):
        sweep.study.set_attr("refusal", refusal)
        return
    sweep.view.say(f"promoting trial {champion.number}: merging its adapter, exporting to ONNX")
    folder = sweep.paths.release
    exported = export(sweep, champion, folder)
    judged = judge_variants(sweep, exported, folder)
    chosen = choose(judged)
    if chosen is None:
        numbers = "; ".join(f"{j.variant}: {j.reason}" for j in judged)
        refusal = f"no ONNX variant of trial {champion.number} may be released: {numbers}"
        sweep.study.set_attr("refusal", refusal)
        return
    if refusal := refuse_replacing(sweep, champion, chosen):
        sweep.study.set_attr("refusal", refusal)
        return
    from hpo.release.registry import release_model  # late, for MLflow

    release = release_model(
        sweep.home, sweep.config, sweep.inspection, champion, chosen,
        sweep.executor.fetch(folder / chosen.variant), sweep.executor.fetch(sweep.champion_paths(champion).adapter),
    )  # fmt: skip
    shutil.rmtree(folder)  # the registry holds the chosen one; the others can be exported again
    sweep.study.set_attr("release", {**to_json(release), "max_drop": sweep.config.promote.max_drop})


def _is_released(sweep: SweepContext, champion: Champion) -> bool:
    stored = sweep.study.attrs().get("release")
    wanted = sweep.config.promote
    if stored is None or wanted is None:
        return False
    from hpo.release.registry import has_release  # late, for MLflow

    if not has_release(sweep.home, stored["name"], stored["version"], sweep.view.say):
        return False
    return (stored["run_id"], stored["name"], stored["max_drop"]) == (champion.run_id, wanted.name, wanted.max_drop)


def export(sweep: SweepContext, champion: Champion, folder: Path) -> Exported:
    """Merge in fp32 and write the task's ONNX variants, in a child of the trial host."""
    if folder.exists():
        shutil.rmtree(folder)
    exported = run_alone(
        sweep.executor,
        Export(champion_spec(sweep, champion), sweep.inspection, list(TASKS[sweep.config.task].variants), str(folder)),
    )
    assert isinstance(exported, Exported)  # noqa: S101  # the protocol's answer to Export
    return exported


def champion_spec(sweep: SweepContext, champion: Champion) -> TrialSpec:
    paths = sweep.champion_paths(champion)
    seed = None if champion.repeat is None else sweep.config.seed + 1 + champion.repeat
    return sweep.config.trial_spec(
        champion.number, champion.params, sweep.home, sweep.inspection, paths, threads=1, seed=seed
    )


def judge_variants(sweep: SweepContext, exported: Exported, folder: Path) -> list[Judged]:
    """Measure the variants one after the other (latency needs the machine alone), then judge them."""
    assert sweep.config.promote is not None  # noqa: S101  # `promote` returned early without it
    measurements, failures = [], dict(exported.failures)
    rows = str(Path(sweep.inspection.tokens_dir) / "validation.jsonl")
    threads = len(os.sched_getaffinity(0))
    for variant in exported.variants:
        sweep.view.say(f"measuring {variant} in onnxruntime")
        try:
            measured = run_alone(sweep.executor, Measure(variant, str(folder), rows, threads))
        except RequestFailed as error:
            failures[variant] = f"could not be measured: {error}"  # a variant that does not run is not released
            continue
        assert isinstance(measured, Measurement)  # noqa: S101  # the protocol's answer to Measure
        measurements.append(measured)
    gate = gate_of(sweep.config.task, sweep.config.objective)
    judged = apply_gate(exported.metrics, measurements, failures, gate, sweep.config.promote.max_drop)
    sweep.study.set_attr("torch", {"metrics": exported.metrics, "latency_p50_ms": exported.latency_p50_ms})
    sweep.study.set_attr("variants", [to_json(j) for j in judged])
    return judged
