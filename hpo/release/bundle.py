"""What a bundle is made of: trials of finished sweeps, of one base model and one task, with methods beside the base."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpo.databases.sqlite import usable
from hpo.errors import ConfigError, HpoError, Problem, UsageError
from hpo.paths import NAME_PATTERN, Home
from hpo.quoting import clipped, listed
from hpo.results.champion import choose_champion, why_none
from hpo.results.needed import is_finished, trained_in
from hpo.results.records import StudySnapshot
from hpo.study.store import view_study
from hpo.trials.trial_files import read_spec
from trainers.protocol.catalog import METHODS
from trainers.protocol.exported import BundledAdapter
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import BundledTrial

_Trained = tuple[int, int | None, float | None, TrialPaths]
"""A trial, which of its repeats, the value, and the files."""
_GIVEN = re.compile(r"(?P<sweep>[^#]*)(?:#(?P<trial>[0-9]+))?")


@dataclass(frozen=True)
class Part:
    """One trial of a bundle: what becomes the adapter of that name."""

    trial: BundledTrial
    sweep: str
    number: int
    repeat: int | None
    """Which of the finalist's repeats; None for the trial itself."""
    metric: str
    value: float | None


def parts_of(home: Home, name: str, given: Sequence[str]) -> list[Part]:
    """The trials that were given as `SWEEP` (its champion) or `SWEEP#TRIAL`.

    Raises `ConfigError` with every problem of all of them.
    """
    problems, parts = [], []
    if not NAME_PATTERN.fullmatch(name):
        found = f"{clipped(ascii(name))} is not a name"
        problems.append(Problem("NAME", found, "expected letters, digits, '.', '_' and '-'"))
    elif other := _champion_beside_bundles(home, name):
        problems.append(Problem("NAME", f"the champion of {name!r} is not a bundle: {other}", "choose another name"))
    for one in given:
        try:
            part = _part(home, one)
        except HpoError as error:
            problems.append(Problem(clipped(one), str(error)))
            continue
        parts.append(part)
        problems += [Problem(one, found, expected) for found, expected in _refusals(part, parts[0])]
    twice = [called for called, count in Counter(part.trial.name for part in parts).items() if count > 1]
    problems += [Problem(called, "is given twice", "each adapter once") for called in twice]
    if problems:
        raise ConfigError(problems)
    return parts


def origins(parts: Sequence[Part], written: Sequence[BundledAdapter]) -> dict[str, dict[str, Any]]:
    """Where each adapter comes from, and how far it is from its merged model: for a manifest."""
    return {
        part.trial.name: {
            "sweep": part.sweep, "trial": part.number, "repeat": part.repeat, part.metric: part.value,
            "sha256": {"data": part.trial.inspection.fingerprint, "adapter": adapter.hash},
            "difference": adapter.difference,
        }
        for part, adapter in zip(parts, written, strict=True)
    }  # fmt: skip


def _champion_beside_bundles(home: Home, name: str) -> str | None:
    """The champion of a name that sweeps release, which a bundle would take over without a comparison."""
    if not usable(home.mlflow_db):
        return None
    from hpo.release.versions import champion_of  # late, for MLflow

    champion = champion_of(home, name)
    return None if champion is None or champion.is_bundle else str(champion)


def _part(home: Home, given: str) -> Part:
    """Raises `HpoError` for a sweep or trial that does not exist, or has no adapter."""
    match = _GIVEN.fullmatch(given)
    if match is None:
        raise UsageError("expected SWEEP or SWEEP#TRIAL")
    sweep, trial = match["sweep"], match["trial"]
    home.sweep(sweep)  # refuses what is no name
    view = view_study(home.studies_db, sweep)
    if view.state.data is None:
        raise UsageError("the sweep has not begun to train; run hpo sweep first")
    number, repeat, value, paths = _champion(home, view) if trial is None else _trial(home, view, int(trial))
    if not paths.spec.is_file():
        raise HpoError(f"{paths.spec} is gone; run the sweep again under another name")
    spec = replace(read_spec(paths), dir=str(paths.dir))
    called = sweep if trial is None else f"{sweep}-{number}"
    return Part(BundledTrial(called, spec, view.state.data), sweep, number, repeat, view.objective.metric, value)


def _champion(home: Home, view: StudySnapshot) -> _Trained:
    if not is_finished(view):
        way = f"hpo sweep continues it; {view.name}#TRIAL takes a trial as it is"
        raise UsageError(f"the sweep is not finished ({view.state.state}); {way}")
    champion = choose_champion(view.records, view.objective, view.config["constraints"], view.state.finalists)
    if champion is None:
        raise UsageError(why_none((record.state for record in view.records), view.state.finalists))
    number, repeat = champion.number, champion.repeat
    if repeat is not None:
        return number, repeat, champion.value, home.sweep(view.name).repeat(number, repeat)
    return _trial(home, view, number)


def _trial(home: Home, view: StudySnapshot, number: int) -> _Trained:
    record = next((record for record in view.records if record.number == number), None)
    if record is None or record.state not in ("complete", "pruned") or record.result is None:
        known = [str(record.number) for record in view.records if record.state in ("complete", "pruned")]
        raise UsageError(f"the sweep has no trial {number} with an adapter; expected one of {listed(known)}")
    origin, original = trained_in(view.name, record, view.records)
    return number, None, record.result.value, home.sweep(origin).trial(original)


def _refusals(part: Part, first: Part) -> list[tuple[str, str]]:
    """What is wrong with a trial beside the first one, each with what would be right."""
    spec, other = part.trial.spec, first.trial.spec
    inspection, found = part.trial.inspection, []
    if part.trial.name.isdigit():
        found.append(("as an adapter it would have the name of a version", f"{part.sweep}#{part.number}"))
    if not METHODS[spec.method].is_beside:
        able = ", ".join(name for name, method in METHODS.items() if method.is_beside)
        found.append((f"method {spec.method} is not expressed as thin matrices beside the base", f"one of {able}"))
    if spec.workload.task != other.workload.task:
        found.append((f"its task is {spec.workload.task}", f"{other.workload.task}, as of {first.trial.name}"))
    if inspection.model_fingerprint != first.trial.inspection.model_fingerprint:
        model = Path(spec.workload.model.source).name
        found.append((f"its base model {clipped(model)} has other weights or tokens", f"the one of {first.trial.name}"))
    if not TrialPaths(Path(spec.dir)).adapter.is_dir():
        found.append(("its adapter is gone: hpo gc freed it", "a trial with its adapter"))
    for what, folder in (("base model", inspection.model_dir), ("prepared data", inspection.tokens_dir)):
        if not Path(folder).is_dir():
            found.append((f"its {what} is gone from {folder}", "run hpo sweep again to make it"))
    return found
