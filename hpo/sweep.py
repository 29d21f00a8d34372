"""The flow of `hpo sweep`, on one screen; each step is a verb."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpo.config import SweepConfig, load_config
from hpo.errors import ConfigError, GateRefused, Interrupted, Problem, RequestFailed
from hpo.executors.base import Executor
from hpo.executors.local import LocalExecutor
from hpo.home import Home, SweepPaths
from hpo.lock import is_locked, sweep_lock
from hpo.promote import promote
from hpo.report import leaderboard_text, show
from hpo.running import RunningSweep
from hpo.search import Search, Slots, run_alone
from hpo.study import open_study, stored_attrs, study_names, view_study
from hpo.tracking import Tracker
from hpo.view import Silent, View
from trainers.catalog import TASKS
from trainers.codec import to_json
from trainers.spec import Inspect, Inspection, Load, Score, Scored

WORKER = "trainers.work"

# What may change between two runs of one sweep without making its trials incomparable.
# (Where data and model lie may change too: what they hold is compared by hash.)
_MAY_CHANGE = (
    "search_strategy.num_trials", "promote", "pruner", "model.source", "data.train", "data.validation", "data.test",
)  # fmt: skip


def run_sweep(
    file: Path, home: Home, *, jobs: int | None = None, view: View | None = None, worker: str = WORKER
) -> dict[str, Any]:
    """Run or continue the sweep of a YAML file; returns it as `hpo show --json` does.

    `worker` is the module that the trial host answers requests with. When no ONNX variant passed the gate, `refusal`
    says why; see `raise_refusal`. Raises `ConfigError` (then nothing was written), `SweepError`, and `Interrupted` on
    Ctrl-C, after which the same call continues.
    """
    view = view or Silent()
    config = load_config(file, home)
    refuse_changed(config, home)
    paths = home.sweep(config.name)
    try:
        with sweep_lock(paths.lock) as lock_fd, trial_host(paths, lock_fd, worker) as executor:
            view.say(f"{config.name}: reading {Path(config.data.train).name}, {Path(config.model.source).name}")
            with nothing_left_behind(home, config.name):
                inspection = inspect(executor, config, home)
                warm_up(executor, config, home, inspection)
            with opened_books(config, home, inspection, executor, view) as sweep:
                tell_data(sweep)
                score_base(sweep)
                search(sweep, slots_for(config, inspection, jobs))
                promote(sweep)
                close_books(sweep)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command continues") from None
    finally:
        view.end()
    return read_sweep(home, config.name)


def raise_refusal(shown: dict[str, Any]) -> None:
    """Raises `GateRefused` where a sweep ended without a release because its gate said no."""
    if shown["refusal"]:
        raise GateRefused(shown["refusal"])


def read_sweep(home: Home, name: str) -> dict[str, Any]:
    """A sweep as `hpo show --json` gives it. Raises `UsageError` for a name that is none."""
    stored = view_study(home.studies_db, name)
    state = stored.attrs.get("state", "interrupted")
    if is_locked(home.sweep(name).lock):
        state = "running"
    elif state == "running":  # whoever wrote that was killed
        state = "interrupted"
    return show(stored, state)


def list_sweeps(home: Home) -> list[dict[str, Any]]:
    """Every sweep as `hpo show --json` gives it, by name."""
    return [read_sweep(home, name) for name in study_names(home.studies_db)]


# --- before anything is written ------------------------------------------------------------------------


def refuse_changed(config: SweepConfig, home: Home) -> None:
    """An edited file would mix results that cannot be compared. Raises `ConfigError` with every difference."""
    before = stored_attrs(home.studies_db, config.name).get("config")
    if before is None:
        return
    differences = _differences(before, config.resolved())
    problems = [
        Problem(f"{config.file}: {path}", f"was {old!r} when sweep {config.name!r} began, now {new!r}",
                "restore it, or give the sweep another name:")
        for path, old, new in differences
        if not path.startswith(_MAY_CHANGE)
    ]  # fmt: skip
    if problems:
        raise ConfigError(problems)


def _differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    plain = list(new) if isinstance(new, tuple) else new
    return [] if old == plain else [(path, old, plain)]


@contextmanager
def nothing_left_behind(home: Home, name: str) -> Iterator[None]:
    """Take a folder with nothing but lock and log away again when data or model turn out to be unusable."""
    try:
        yield
    except ConfigError:
        paths = home.sweep(name)
        if name not in study_names(home.studies_db):
            shutil.rmtree(paths.dir)
            for folder in (paths.dir.parent, home.dir):
                if not any(folder.iterdir()):
                    folder.rmdir()
        raise


@contextmanager
def trial_host(paths: SweepPaths, lock_fd: int, worker: str) -> Iterator[Executor]:
    """The host's process; it and its children keep the sweep's lock."""
    executor = LocalExecutor(paths.host_log, worker, keep_fds=[lock_fd])
    try:
        yield executor
    finally:
        executor.close()


def inspect(executor: Executor, config: SweepConfig, home: Home) -> Inspection:
    """Everything that can be wrong with data or model is found here, before any study or run exists."""
    inspection = run_alone(executor, Inspect(config.workload(home)))
    assert isinstance(inspection, Inspection)  # noqa: S101  # the protocol's answer to Inspect
    before = stored_attrs(home.studies_db, config.name).get("data")
    for name in ("fingerprint", "model_fingerprint"):
        if before and before[name] != getattr(inspection, name):
            what = "data" if name == "fingerprint" else "model"
            found = f"the {what} of sweep {config.name!r} has changed since it began"
            raise ConfigError([Problem(f"{config.file}: {what}", found, "give the sweep another name:")])
    return inspection


def warm_up(executor: Executor, config: SweepConfig, home: Home, inspection: Inspection) -> None:
    """Make the base model resident in the trial host. Raises `ConfigError` when its weights cannot be loaded."""
    try:
        run_alone(executor, Load(config.workload(home), inspection))
    except RequestFailed as error:
        found = f"{config.model.source} cannot be loaded: {error}"
        raise ConfigError([Problem(f"{config.file}: model", found, "a complete safetensors model")]) from error


# --- the sweep -----------------------------------------------------------------------------------------


@contextmanager
def opened_books(
    config: SweepConfig, home: Home, inspection: Inspection, executor: Executor, view: View
) -> Iterator[RunningSweep]:
    """The study and its MLflow view, from here on written by this process alone; closed however the sweep ends."""
    study = open_study(config, home.studies_db)
    study.set_attr("state", "running")
    study.set_attr("data", to_json(inspection))
    tracker = None
    try:
        tracker = Tracker(home, config, inspection)
        yield RunningSweep(config, home, inspection, study, tracker, executor, view)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        if study.attrs()["state"] != "complete":
            study.set_attr("state", "interrupted" if stopped else "failed")
            if tracker:
                tracker.abandon("KILLED" if stopped else "FAILED")
        raise


def tell_data(sweep: RunningSweep) -> None:
    rows = sweep.inspection.rows
    sweep.view.say(
        f"{rows['train']:,} training rows, {rows['validation']:,} validation, {rows['test']:,} test (sealed); "
        f"{sweep.config.examples_per_trial(rows['train']):,} examples per trial"
    )
    for note in sweep.inspection.notes:
        sweep.view.say(f"note: {note}")


def score_base(sweep: RunningSweep) -> None:
    """The untouched base model's own metrics, where the task has them without training."""
    if not TASKS[sweep.config.task].base_is_scored or "base_score" in sweep.study.attrs():
        return
    workload = sweep.config.workload(sweep.home)
    device = "cuda:0" if sweep.inspection.gpus else "cpu"
    scored = run_alone(sweep.executor, Score(workload, sweep.inspection, _cores(), device))
    assert isinstance(scored, Scored)  # noqa: S101  # the protocol's answer to Score
    sweep.study.set_attr("base_score", scored.metrics)
    metric = sweep.config.objective.metric
    sweep.view.say(f"the untouched base model: {metric} {scored.metrics[metric]:.4f}")


def search(sweep: RunningSweep, slots: Slots) -> None:
    """Train what is not trained yet."""
    engine = Search(
        sweep.config, sweep.home, sweep.inspection, sweep.study, sweep.tracker, sweep.executor, sweep.view, slots
    )
    sweep.view.begin(
        sweep.config.planned_trials(), engine.finished, sweep.config.objective.metric, slots.jobs, engine.best
    )
    engine.run()
    sweep.view.end()


def slots_for(config: SweepConfig, inspection: Inspection, jobs: int | None) -> Slots:
    """One trial per GPU, or per core; the cores divided among them."""
    side_by_side = jobs or min(inspection.gpus or _cores(), config.planned_trials())
    return Slots(side_by_side, max(1, _cores() // side_by_side), inspection.gpus)


def close_books(sweep: RunningSweep) -> None:
    """Leaderboard and summary into MLflow; the study is told last."""
    stored = show(view_study(sweep.home.studies_db, sweep.config.name), "complete")
    sweep.tracker.artifact("leaderboard.txt", leaderboard_text(stored))
    champion = stored["champion"]
    summary = {"trials": float(len(stored["trials"])), f"champion/{stored['objective']['metric']}": champion["value"]}
    sweep.tracker.finish_sweep(
        summary, {"hpo.champion": str(champion["number"]), "hpo.champion_run": champion["run_id"]}
    )
    sweep.study.set_attr("state", "complete")


def _cores() -> int:
    return len(os.sched_getaffinity(0))
