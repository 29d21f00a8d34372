"""Which run a person names: a sweep's champion, one of its trials or repeats, or what made a released version"""

from __future__ import annotations

import dataclasses
import re

from hpo.errors import UsageError
from hpo.paths import Home
from hpo.quoting import listed, quoted
from hpo.results.champion import choose_champion, run_name
from hpo.results.changes import change_in_words
from hpo.results.records import StudySnapshot, TrialRecord
from hpo.study.store import revision_with, view_study
from hpo.trials.environment import read_environment
from hpo.trials.recorded_run import RecordedRun
from hpo.trials.trial_files import read_result, read_spec
from trainers.protocol.files import TrialPaths

_TRIAL = re.compile(r"(?P<sweep>[^#@/]+)#(?P<trial>[0-9]{1,9})(?:\.(?P<repeat>[0-9]{1,9}))?")
_FORMS = "expected SWEEP (its champion), SWEEP#TRIAL, SWEEP#TRIAL.REPEAT, NAME/VERSION or NAME@ALIAS"


def find_run(home: Home, given: str) -> RecordedRun:
    """The run that a person names. Raises `UsageError` with what there is, `HpoError` where records are damaged."""
    if parts := _TRIAL.fullmatch(given):
        sweep, trial, repeat = parts.group("sweep", "trial", "repeat")
        return _run_of(home, sweep, int(trial), None if repeat is None else int(repeat))
    if "#" in given:
        raise UsageError(f"no run {quoted(given)}; {_FORMS}")
    if "/" in given or "@" in given:
        return _run_of_release(home, given)
    stored = view_study(home.studies_db, given)
    champion = choose_champion(stored.records, stored.objective, stored.config["constraints"], stored.state.finalists)
    if champion is None:
        raise UsageError(f"sweep {given!r} has no champion; {given}#0 names its first trial")
    return _run_of(home, given, champion.number, champion.repeat)


def _run_of_release(home: Home, given: str) -> RecordedRun:
    from hpo.release.origin import differences_from  # late, for MLflow
    from hpo.release.reference import version_named

    version = version_named(home, given)
    manifest = version.manifest()
    if manifest.adapters and not manifest.sweep:
        runs = [run_name(of["sweep"], of["trial"], of.get("repeat")) for of in manifest.adapters.values()]
        raise UsageError(f"{given} is a bundle of several trainings; name one of them: {listed(runs)}")
    if not manifest.sweep or manifest.trial is None:
        raise UsageError(f"{given}: no sweep of hpo released it, so its training is not recorded")
    try:
        run = _run_of(home, manifest.sweep, manifest.trial, manifest.repeat)
    except UsageError as error:
        raise UsageError(f"{given} was made of {manifest.run}, which has no record any more: {error}") from error
    if other := differences_from(manifest, run):
        raise UsageError(
            f"{run.name} is not what {given} was made of: another sweep has that name now; {listed(other)}"
        )
    return dataclasses.replace(run, environment=run.environment or manifest.environment())


def _run_of(home: Home, sweep: str, trial: int, repeat: int | None) -> RecordedRun:
    """A trial of a sweep, or a repeat of a finalist; what was taken over from another trial is that trial's run.

    A trial that an edit of the sweep's file left out is in an earlier revision, as that one had it.
    """
    newest = view_study(home.studies_db, sweep)
    stored = newest if newest.record(trial) else revision_with(home.studies_db, sweep, trial)
    record = None if stored is None else stored.record(trial)
    if stored is None or record is None:
        numbers = [record.number for record in newest.records]
        known = f"it has the trials {min(numbers)} to {max(numbers)}" if numbers else "it has no trial yet"
        raise UsageError(f"no trial {trial} in sweep {sweep!r}; {known}")
    if record.reused_from is not None and repeat is None:
        origin, _, number = record.reused_from.rpartition("/")
        return _run_of(home, origin or sweep, int(number), None)
    folder = home.sweep(sweep)
    paths = folder.trial(trial) if repeat is None else folder.repeat(trial, repeat)
    run = _recorded(stored, record, paths, run_name(sweep, trial, repeat), repeat)
    return dataclasses.replace(run, newest_config=newest.config, notes=_notes(newest, stored))


def _notes(newest: StudySnapshot, stored: StudySnapshot) -> list[str]:
    """What a reader should know where an edit of the file left the trial out."""
    revision = stored.state.revision
    edit = next((edit for edit in newest.state.revisions if edit.revision > revision), None)
    if stored is newest or edit is None:
        return []
    changes = listed(map(change_in_words, edit.changes))
    return [f"trained as revision {revision} of the sweep had it; revision {edit.revision} left it out ({changes})"]


def _recorded(
    stored: StudySnapshot, record: TrialRecord, paths: TrialPaths, name: str, repeat: int | None
) -> RecordedRun:
    """Raises `UsageError` for a run that has not ended with a result, or whose files are gone."""
    if not paths.spec.exists() or not paths.result.exists():
        raise UsageError(f"no run {name}: {paths.dir} does not hold the spec and the result of one")
    result = read_result(paths)
    if result.value is None or stored.state.data is None:
        raise UsageError(f"{name} ended without a result ({result.cause or result.state}); nothing can be compared")
    attempts, resumed_from = ((), None) if repeat is not None else (record.attempts, record.resumed_from)
    spec = dataclasses.replace(read_spec(paths), number=record.number)  # a repeat has another one while it runs
    return RecordedRun(
        name, spec, result, stored.state.data, stored.config, paths, record.params, attempts, resumed_from,
        read_environment(paths),
    )  # fmt: skip
