"""Before anything is written: the edit, the data, the model and the machine are looked at."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpo.commands.memory import MemoryPlan, most_mb, plan_memory, plan_memory_on_nodes
from hpo.config.budget import next_time
from hpo.config.intent import intent_of
from hpo.config.run import Run
from hpo.config.sweep_config import SweepConfig, largest_point
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ConfigError, HpoError, Problem, RequestFailed, SweepError
from hpo.executors.base import Executor
from hpo.executors.local import LocalExecutor
from hpo.executors.ray.executor import RayExecutor, settings_here
from hpo.executors.restarting import RestartingExecutor
from hpo.lock import hold_if_there, remove_unheld
from hpo.paths import Home, SweepPaths, held_of_prepared
from hpo.progress_view import Silent
from hpo.quoting import listed
from hpo.search.warm_start import missing_sources
from hpo.study.revision import incomparable
from hpo.study.store import stored_state, study_names
from hpo.trials.calls import lines_of, run_all, run_alone
from hpo.trials.node_slots import choose_node_slots
from hpo.trials.slots import Slots, choose_slots, first_devices
from trainers.protocol.events import Loaded, PreparedData, Probed
from trainers.protocol.requests import Import, Inspect, Load, Probe, Request
from trainers.protocol.settings import FIELDS

LOG_LINES = 12
LONGEST_LINE = 200
WORKER = "trainers.host.dispatch"
"""The module that the trial host answers requests with."""


def at_its_clock(config: SweepConfig, home: Home) -> SweepConfig:
    """The config with the clock that its sweep began at, or now: a chat template that prints the date makes the same
    tokens as long as the sweep goes on. And with the end of its `budget.until`, which stays however long data is read.
    """
    now, until, ends_at = datetime.datetime.now(), config.budget.until, config.ends_at
    before = stored_state(home.studies_db, config.name)
    clock = before.clock if before and before.clock is not None else now.isoformat(timespec="seconds")
    if until is not None and ends_at is None:
        ends_at = next_time(until, now.timestamp())
    return dataclasses.replace(config, clock=clock, ends_at=ends_at)


def check_edit(config: SweepConfig, home: Home) -> None:
    """Raises `ConfigError` with all that `edit_problems` gives."""
    if problems := edit_problems(config, home):
        raise ConfigError(problems)


def edit_problems(config: SweepConfig, home: Home) -> list[Problem]:
    """Every sweep to begin from that is not there, and every change that would mix results that cannot be compared."""
    before = stored_state(home.studies_db, config.name)
    return [*missing_sources(config, home), *(incomparable(config, before.config) if before is not None else [])]


@contextmanager
def nothing_left_behind(home: Home, name: str) -> Iterator[None]:
    """Where the sweep ends before it has a study, remove its folder, which has only its lock and its log.

    Enter it before the lock is taken: a lock is removed only when nobody holds it.
    """
    try:
        yield
    except BaseException:
        paths = home.sweep(name)
        if not _has_results(home, name):
            remove_unheld(paths.lock)
            for folder in (paths.dir.parent, home.dir):
                with suppress(OSError):  # not empty; or a volume, or in a folder of somebody else: then it stays
                    folder.rmdir()
        raise


def _has_results(home: Home, name: str) -> bool:
    """Whether there is a study, or what one left: results on disk outlive a database that was lost.

    A study on a server may be one of other homes alone.
    """
    paths = home.sweep(name)
    try:
        is_of_home = bool(home.studies_db.file) or paths.studies.exists()
        return any(paths.dir.glob("*/*/result.json")) or (is_of_home and name in study_names(home.studies_db))
    except HpoError:
        return True  # a database that cannot be read says nothing of what the folder holds


@contextmanager
def explained_by_log(what: str, log: Path) -> Iterator[None]:
    """Say what was being done when a request failed or the host ended, with the end of the host's log."""
    try:
        yield
    except RequestFailed as error:
        raise RequestFailed(f"{what} failed: {error}{_end_of(log)}", error.cause) from error
    except SweepError as error:
        raise SweepError(f"{what} failed: {error}{_end_of(log)}") from error


def _end_of(log: Path) -> str:
    """The last lines, which say where it happened: the log may be in a folder that goes away."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    shown = [line[:LONGEST_LINE] for line in lines if line.strip()][-LOG_LINES:]
    return "\nthe end of its log:\n" + "\n".join(f"  {line}" for line in shown) if shown else ""


@contextmanager
def trial_host(
    paths: SweepPaths, lock_fd: int, worker: str, run: Run | None = None, say: Callable[[str], None] | None = None
) -> Iterator[Executor]:
    """What runs requests, where `run` says; its processes on this machine keep the sweep's lock."""
    executor: Executor
    if run is not None and run.executor == "ray":
        settings = settings_here(run.address, worker, paths.host_log, shared_home=run.shared_home)
        executor = RayExecutor(settings, paths.host_log, [lock_fd], say or Silent().say)
    else:
        executor = RestartingExecutor(lambda: LocalExecutor(paths.host_log, worker, keep_fds=[lock_fd]))
    try:
        yield executor
    finally:
        executor.close()


def inspect(executor: Executor, config: SweepConfig, home: Home) -> PreparedData:
    """Everything that can be wrong with data or model is found here, before any study or run exists."""
    workload = config.workload(home)
    # The host imports what both need; while a child inspects, it imports what only trials will need.
    requests: list[Request] = [Import(), Inspect(workload, intent_of(config)), Load(workload, None)]
    with lines_of(config):
        _, inspection, _ = run_all(executor, requests, at_once=len(requests))
    assert isinstance(inspection, PreparedData)  # noqa: S101  # the protocol's answer to Inspect
    if problems := data_problems(config, home, inspection):
        raise ConfigError(problems)
    before = stored_state(home.studies_db, config.name)
    if before and before.data:  # 0 in a sweep that began when evaluations used all rows: they go on to
        inspection = dataclasses.replace(inspection, validation_tokens=before.data.validation_tokens)
    return inspection


@contextmanager
def prepared_data(executor: Executor, config: SweepConfig, home: Home) -> Iterator[PreparedData]:
    """As `inspect`; while inside, `hpo gc` leaves the prepared data alone, which no study may have written down yet."""
    inspection = inspect(executor, config, home)
    fd = _hold(inspection)
    if fd is None and inspection.tokens_dir:  # freed just before
        inspection = inspect(executor, config, home)
        fd = _hold(inspection)
    try:
        yield inspection
    finally:
        if fd is not None:
            os.close(fd)


def _hold(inspection: PreparedData) -> int | None:
    folder = inspection.tokens_dir
    return hold_if_there(held_of_prepared(Path(folder))) if folder else None


def data_problems(config: SweepConfig, home: Home, now: PreparedData) -> list[Problem]:
    """What of data and model, which have no findings of their own, does not go with the file, or with what the sweep
    began with."""
    problems = []
    if why := FIELDS["evaluations"].refuse(evaluations := config.evaluations(now.rows["train"])):
        found = f"makes {evaluations:,} evaluations of a trial"
        problems.append(Problem(config.place("training.eval_steps"), found, why))
    state = stored_state(home.studies_db, config.name)
    before = state.data if state else None
    if before is None:
        return problems
    # The hash of the data has the numbers of labels; their names decide which rows of the head are kept.
    if (before.fingerprint, before.labels) != (now.fingerprint, now.labels):
        problems.append(_changed(config, "data", ""))
    if before.model_fingerprint != now.model_fingerprint:
        names = now.changed_model_files(before)
        problems.append(_changed(config, "model", f" (other content in {listed(names)})" if names else ""))
    return problems


def _changed(config: SweepConfig, what: str, how: str) -> Problem:
    found = f"the {what} of sweep {config.name!r} has changed since it began{how}"
    return Problem(config.place(what), found, "give the sweep another name")


def warm_up(executor: Executor, specs: TrialSpecs) -> TrialSpecs:
    """Make the base model resident in the trial host; returns `specs` with what the host has to note, in the precision
    that all trials of the sweep compute in.

    Raises `ConfigError` when its weights cannot be loaded.
    """
    before = stored_state(specs.home.studies_db, specs.config.name)
    is_new = before is None or not before.config
    config = dataclasses.replace(specs.config, decision=before.precision if before else None)
    decide_for = None
    if is_new and config.settings["precision"] == FIELDS["precision"].default:
        paths = specs.home.sweep(config.name).trial(0)
        decide_for = specs.spec(0, config.baseline(), paths, devices=first_devices(specs.prepared))
    try:
        loaded = run_alone(executor, Load(config.workload(specs.home), specs.prepared, decide_for))
    except RequestFailed as error:
        found = f"{config.model.source} cannot be loaded: {error}"
        raise ConfigError([Problem(config.place("model"), found, "a complete safetensors model")]) from error
    assert isinstance(loaded, Loaded)  # noqa: S101  # the protocol's answer to Load
    if decide_for is not None:
        config = dataclasses.replace(config, decision=loaded.precision)
    chosen = config.decision.notes() if config.decision else []
    notes = [*specs.prepared.notes, *loaded.notes, *chosen]
    prepared = dataclasses.replace(specs.prepared, notes=notes, parameters=loaded.parameters)
    return dataclasses.replace(specs, config=config, prepared=prepared)


def slots_for(
    executor: Executor, specs: TrialSpecs, jobs: int | None, threads: int | None, say: Callable[[str], None]
) -> tuple[Slots, MemoryPlan]:  # fmt: skip
    """How many trials side by side, and how they fit into memory; measured where memory may be short."""
    config, inspection = specs.config, specs.prepared

    def measure() -> Probed | None:
        paths = specs.home.sweep(config.name).trial(0)
        spec = specs.spec(
            0, largest_point(config), paths, devices=first_devices(inspection, config.devices_per_trial())
        )
        try:
            probed = run_alone(executor, Probe(spec, inspection))
        except RequestFailed as error:
            if error.cause == "oom":  # a trial there will be tried with smaller micro-batches
                return None
            raise
        assert isinstance(probed, Probed)  # noqa: S101  # the protocol's answer to Probe
        return probed

    planned = config.most_trials()
    if isinstance(executor, RayExecutor):
        memory = plan_memory_on_nodes(executor, specs, jobs, say)
        slots = choose_node_slots(
            executor, planned, jobs, threads, measure, config.devices_per_trial(), parameters=inspection.parameters,
            most_mb=most_mb(config), trial_mb=memory.trial_mb,
        )  # fmt: skip
        return slots, memory
    memory = plan_memory(executor, specs, jobs, say)
    asked = memory.jobs_of(jobs, planned)
    devices = config.devices_per_trial()
    return choose_slots(inspection, planned, asked, threads, measure, devices, most_mb(config)), memory
