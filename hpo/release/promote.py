"""Promotion: exports the champion, measures every variant, registers the best that passed, and lets it challenge."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpo.config.objective import Objective, gate_of
from hpo.config.promotion import Promote
from hpo.errors import RequestFailed
from hpo.release.adapters import adapters_of, champion_spec
from hpo.release.bundle import origins
from hpo.release.candidate import Candidate
from hpo.release.challenge import refuse_useless
from hpo.release.gates import Limits, apply_gate, choose, failed, verdict_of
from hpo.release.model_card import CARD_FILE
from hpo.release.promotion_time import note_promotion, promotion_seconds
from hpo.results.champion import Champion, why_none
from hpo.results.released import Release, TorchNumbers, VariantVerdict
from hpo.results.summary import summarize
from hpo.study.store import view_study
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.slots import cores
from trainers.protocol.catalog import TASKS
from trainers.protocol.exported import Exported
from trainers.protocol.measured import AllJudged, Measurement, Tuned
from trainers.protocol.requests import BundledTrial, Export, Gate, Measure, MeasureAll, Tune


def promote(sweep: SweepContext) -> None:
    """Release the sweep's champion (or the trial that a person chose) as ONNX, as champion of its name where it earned
    that.

    It is refused when it is useless or no variant passed. A version that was registered and did not show enough
    against the champion of its name stays its challenger. Then the study's `refusal` gives the reason with the numbers.
    A trial that is released already under the same gate and with the same model card is not released again.
    """
    champion = sweep.to_release()
    sweep.study.update_state(refusal=None)
    if champion is None:
        states = (record.state for record in sweep.study.records())
        sweep.study.update_state(refusal=why_none(states, sweep.study.state.finalists))
        return
    if sweep.config.promote is None or _is_released(sweep, champion):
        return
    if (registered := _registered_challenger(sweep, champion)) is not None:
        challenge(sweep, registered)
    elif _may_be_released(sweep, champion):
        began = time.monotonic()
        sweep.view.begin_promotion(promotion_seconds(sweep))
        release = _register_best_variant(sweep, champion, sweep.config.promote)
        if release is not None:
            challenge(sweep, release)
            note_promotion(sweep, time.monotonic() - began)


def _may_be_released(sweep: SweepContext, champion: Champion) -> bool:
    """Whether the champion can be and is worth being released; else the study has the reason."""
    if why := sweep.inspection.unreleasable.get(str(champion.params.get("method", sweep.config.method))):
        found = f"trial {champion.number} cannot be released: {why}"
        if sweep.config.promote_is_given:
            sweep.study.update_state(refusal=found)
        else:
            sweep.view.say(f"{found}; its adapter is kept")
        return False
    if not sweep.executor.fetch(sweep.champion_paths(champion).adapter).exists():
        found = f"the adapter of trial {champion.number} is gone: hpo gc freed it while the trial was not the champion"
        sweep.study.update_state(refusal=f"{found}; give the sweep another name to train it again")
        return False
    if useless := refuse_useless(sweep, champion):
        sweep.study.update_state(refusal=useless)
        return False
    return True


def _register_best_variant(sweep: SweepContext, champion: Champion, wanted: Promote) -> Release | None:
    """Export and measure the champion's variants, and register the one preferred that passed; None where none did."""
    folder, parts = sweep.paths.release, adapters_of(sweep, champion, wanted)
    ways = "exporting its base to ONNX, with adapters as inputs" if parts else "merging its adapter, exporting to ONNX"
    sweep.study.update_state(variants=[], variants_trial=champion.number)
    with sweep.view.doing(f"promoting trial {champion.number}: {ways}"):
        exported = export(sweep, champion, folder, [part.trial for part in parts])
    for adapter, why in exported.left_out.items():
        sweep.view.say(f"{adapter} is left out of the release: {why}")
    verdicts = measure_variants(sweep, exported, folder, wanted)
    chosen = choose(verdicts, wanted.prefer)
    if chosen is None:
        numbers = "; ".join(f"{verdict.variant}: {verdict.why}" for verdict in verdicts)
        sweep.study.update_state(refusal=f"no ONNX variant of trial {champion.number} passed: {numbers}")
        return None
    _tune(sweep, folder / chosen.variant)
    from hpo.release.registry import register  # late, for MLflow

    fetch, trained = sweep.executor.fetch, sweep.champion_paths(champion)
    files = (trained, fetch(trained.adapter), chosen, fetch(folder / chosen.variant))
    summary = summarize(view_study(sweep.home.studies_db, sweep.config.name), "complete").of_release(champion)
    adapters = origins([part for part in parts if part.trial.name not in exported.left_out], exported.adapters)
    candidate = Candidate(sweep.config, sweep.inspection, champion, *files, summary, adapters)
    release = register(sweep.home, candidate)
    sweep.tracker.artifact("model_card.md", (candidate.folder / CARD_FILE).read_text(encoding="utf-8"))
    sweep.study.update_state(challenger=release)
    shutil.rmtree(folder)  # the registry has the chosen variant; the others can be exported again
    return release


def challenge(sweep: SweepContext, release: Release) -> None:
    """Let a registered version take the alias `champion`, or leave it as the challenger with the reason.

    One that a night decides on gets no alias here: an earlier one may be the challenger and wait for a person.
    """
    if sweep.config.is_certified_later:
        sweep.study.update_state(challenger=replace(release, decision="night"))
        return
    from hpo.release.registry import seat  # late, for MLflow
    from hpo.release.ruling import rule_on

    seated = seat(sweep.home, release, lambda incumbent: rule_on(sweep, release, incumbent))
    if seated.decision == "champion":
        if seated.why:
            sweep.view.say(f"version {release.version} replaces {seated.why}")
        sweep.study.update_state(release=seated, challenger=None)
        return
    sweep.study.update_state(challenger=seated)
    way = f"hpo approve {release.name}/{release.version} makes it the champion"
    if seated.decision == "waits":
        sweep.view.say(f"version {release.version} of {release.name!r} waits for your approval: {way}")
        return
    sweep.study.update_state(
        refusal=f"models:/{release.name}@champion stays {seated.why}; version {release.version} is registered: {way}, "
        "and so does promote: {require: always} in the YAML"
    )


def _is_released(sweep: SweepContext, champion: Champion) -> bool:
    """Whether this very training is registered and was champion: a person may have moved the alias since."""
    stored = sweep.study.state.release
    if stored is None or not _is_of(sweep, champion, stored):
        return False
    from hpo.release.registry import give_back, is_registered  # late, for MLflow

    if not is_registered(sweep.home, stored, sweep.view.say):
        return False
    give_back(sweep.home, stored, sweep.view.say)
    sweep.view.say(f"trial {champion.number} is released under these terms already: version {stored.version} of "
                   f"{stored.name!r}")  # fmt: skip
    return True


def _registered_challenger(sweep: SweepContext, champion: Champion) -> Release | None:
    """The version that an earlier session registered of this very training, and that did not become champion."""
    stored = sweep.study.state.challenger
    if stored is None or not _is_of(sweep, champion, stored):
        return None
    from hpo.release.registry import is_registered  # late, for MLflow

    return stored if is_registered(sweep.home, stored, sweep.view.say) else None


def _is_of(sweep: SweepContext, champion: Champion, release: Release) -> bool:
    """Whether a release is of this training, under this name and gate, and its model card says what the file says."""
    wanted = sweep.config.promote
    assert wanted is not None  # noqa: S101  # the caller promotes
    asked = (champion.run_id, wanted.name, wanted.max_drop, wanted.terms)
    is_asked = (release.run_id, release.name, release.max_drop, release.terms) == asked
    return is_asked and release.card in (None, wanted.said)


def export(
    sweep: SweepContext, champion: Champion, folder: Path, adapters: Sequence[BundledTrial] = ()
) -> Exported:  # fmt: skip
    """Merge the champion's adapter in fp32 and write the task's ONNX variants, in a child of the trial host.

    With `adapters`, the first of which is the champion's, one variant is written, which has them beside its base.
    """
    assert sweep.config.promote is not None  # noqa: S101  # the caller promotes
    target = sweep.config.promote.target
    if folder.exists():
        shutil.rmtree(folder)
    variants = ["fp32"] if adapters else list(TASKS[sweep.config.task].variants[target])
    spec = champion_spec(sweep, champion)
    request = Export(spec, sweep.inspection, variants, str(folder), target, tuple(adapters))
    exported = run_alone(sweep.executor, request)
    assert isinstance(exported, Exported)  # noqa: S101  # the protocol's answer to Export
    return exported


def measure_variants(sweep: SweepContext, exported: Exported, folder: Path, wanted: Promote) -> list[VariantVerdict]:
    """Measure the variants, nothing else under way, and apply the gates."""
    objective = gate_of(sweep.config.task, sweep.config.objective)
    try:
        verdicts = _in_turns(sweep, exported, folder, objective, wanted) if exported.variants else []
    except RequestFailed as error:
        sweep.view.say(f"measuring in turns failed ({error}): measuring each variant alone")
        verdicts = _each_alone(sweep, exported, folder, objective, wanted)
    verdicts += failed(exported.failures)
    sweep.study.update_state(torch=TorchNumbers(exported.metrics, exported.latency_p50_ms), variants=verdicts)
    return verdicts


def _in_turns(
    sweep: SweepContext, exported: Exported, folder: Path, objective: Objective, wanted: Promote
) -> list[VariantVerdict]:
    """All variants in one process, each on as many rows as its verdict needs."""
    gate = Gate(
        objective.metric, objective.direction, wanted.max_drop, wanted.min_agreement, wanted.max_latency_ms,
        wanted.max_size_mb, wanted.prefer,
    )  # fmt: skip
    request = MeasureAll(exported.variants, str(folder), _rows(sweep), cores(), gate)
    with sweep.view.doing(f"measuring {', '.join(exported.variants)} in onnxruntime, in turns"):
        found = run_alone(sweep.executor, request)
    assert isinstance(found, AllJudged)  # noqa: S101  # the protocol's answer to MeasureAll
    limits = Limits.of(wanted)
    verdicts = [
        verdict_of(judged, found.count, objective, wanted.max_drop, limits, wanted.prefer) for judged in found.judged
    ]
    for verdict in verdicts:
        sweep.view.say(f"{verdict.variant}: {verdict.word} on {verdict.rows} rows")
    return verdicts + failed({name: f"could not be measured: {why}" for name, why in found.failures.items()})


def _each_alone(
    sweep: SweepContext, exported: Exported, folder: Path, objective: Objective, wanted: Promote
) -> list[VariantVerdict]:
    """Each variant in a process of its own, on all rows: one that crashes or needs too much memory harms no other."""
    measurements, failures = [], {}
    for variant in exported.variants:
        try:
            measurements.append(_alone(sweep, folder, variant))
        except RequestFailed as error:
            failures[variant] = f"could not be measured: {error}"  # such a variant is not released
    return apply_gate(exported.metrics, measurements, failures, objective, wanted.max_drop, Limits.of(wanted))


def _alone(sweep: SweepContext, folder: Path, variant: str) -> Measurement:
    """One variant on all validation rows. Raises `RequestFailed`."""
    with sweep.view.doing(f"measuring {variant} in onnxruntime"):
        measured = run_alone(sweep.executor, Measure(variant, str(folder), _rows(sweep), cores()))
    assert isinstance(measured, Measurement)  # noqa: S101  # the protocol's answer to Measure
    return measured


def _tune(sweep: SweepContext, folder: Path) -> None:
    """Keep session options that are faster on this machine in the release's card; without any it is released too."""
    try:
        with sweep.view.doing("trying session options"):
            found = run_alone(sweep.executor, Tune(str(folder), _rows(sweep), cores()))
    except RequestFailed as error:
        sweep.view.say(f"session options could not be tried ({error}): the defaults stay")
        return
    assert isinstance(found, Tuned)  # noqa: S101  # the protocol's answer to Tune
    if found.options:
        named = ", ".join(f"{name} {value}" for name, value in found.options.items())
        sweep.view.say(f"session options for {cores()} cores: {named}, {found.gain:.0%} faster than the defaults")
    else:
        sweep.view.say(f"session options: the defaults stay, none is surely faster with {cores()} cores")


def _rows(sweep: SweepContext) -> str:
    return str(Path(sweep.inspection.tokens_dir) / "validation.jsonl")
