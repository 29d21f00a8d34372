"""`hpo promote`: releases the champion of a sweep that has ended, or another of its trials, without any training."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path

from hpo.commands.preflight import (
    WORKER,
    at_its_clock,
    check_edit,
    explained_by_log,
    prepared_data,
    trial_host,
    warm_up,
)
from hpo.commands.session import finish_run, open_run, plain_errors
from hpo.commands.show import read_sweep
from hpo.config.file import load_config
from hpo.config.small_sections import promote_by_default
from hpo.config.sweep_config import SweepConfig
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import UsageError
from hpo.paths import Home
from hpo.progress_view import ProgressView, Silent
from hpo.release.promote import promote
from hpo.results.summary import SweepSummary
from hpo.search.lost_runs import write_lost_runs
from hpo.signals import terminate_as_interrupt
from hpo.study.one_writer import one_writer
from hpo.study.revision import changes_of
from hpo.study.store import view_study
from hpo.trials.slots import Slots, cores


def run_promotion(
    file: Path, home: Home, *, trial: int | None = None, view: ProgressView | None = None, worker: str = WORKER
) -> SweepSummary:
    """Export, measure and register the champion, or the trial that a person chose; returns the sweep summed up.

    A chosen trial stays what this sweep releases, until the command is given without one. `refusal` says why nothing
    was released. Raises `UsageError` for a sweep that has not ended, and for a trial that is not complete;
    `SweepError`, and `Interrupted` on Ctrl-C.
    """
    view = view or Silent()
    config = at_its_clock(load_config(file, home), home)
    check_edit(config, home)
    config = _to_promote(config)
    _check_ended(config, home, trial)
    paths = home.sweep(config.name)
    try:
        with (
            plain_errors(), terminate_as_interrupt(), one_writer(home, config.name) as lock_fd,
            trial_host(paths, lock_fd, worker) as executor, ExitStack() as in_use,
        ):  # fmt: skip
            view.say(f"{config.name}: reading {Path(config.data.train.source).name}, {Path(config.model.source).name}")
            with explained_by_log("reading data and model", paths.host_log):
                prepared = in_use.enter_context(prepared_data(executor, config, home))
                specs = warm_up(executor, TrialSpecs(config, home, prepared))
            with open_run(specs, executor, view, Slots(1, cores())) as sweep:
                write_lost_runs(sweep)
                sweep.study.update_state(chosen_trial=trial)
                promote(sweep)
                finish_run(sweep)
    finally:
        view.end()
    return read_sweep(home, config.name)


def _to_promote(config: SweepConfig) -> SweepConfig:
    """The command asks for a release, also where the file says `promote: false`."""
    wanted = config.promote or promote_by_default(config.name)
    return dataclasses.replace(config, promote=wanted, promote_is_given=True)


def _check_ended(config: SweepConfig, home: Home, trial: int | None) -> None:
    study = view_study(home.studies_db, config.name)
    name, state = config.name, study.state
    way = f"hpo sweep {config.file} continues it"
    is_under_way = state.state != "complete" and any(not record.is_over for record in study.records)
    if is_under_way or state.search_ended_by is None or (config.finalists and state.finalists is None):
        raise UsageError(f"sweep {name!r} has not come to its end; {way}")
    if changes := changes_of(config, state.config):
        keys = ", ".join(change.key for change in changes[:5])
        raise UsageError(f"{config.file} was edited since sweep {name!r} ended ({keys}); {way}")
    if trial is None:
        return
    found = next((record for record in study.records if record.number == trial), None)
    if found is None:
        raise UsageError(f"sweep {name!r} has no trial {trial}; hpo show {name} lists them")
    if found.state != "complete":
        raise UsageError(f"trial {trial} of {name!r} is {found.state}; expected a complete one: hpo show {name}")
