"""The flow of `hpo sweep`, on one screen; each step is a verb."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.commands.preflight import (
    WORKER,
    at_its_clock,
    check_edit,
    doing,
    inspect,
    nothing_left_behind,
    slots_for,
    trial_host,
    warm_up,
)
from hpo.config.budget import Meter, Spent
from hpo.config.file import load_config
from hpo.config.space import Point
from hpo.config.sweep_config import SweepConfig
from hpo.errors import GateRefused, HpoError, Interrupted, SweepError
from hpo.executors.base import Executor, Fetch, here
from hpo.lock import is_locked, sweep_lock
from hpo.paths import Home
from hpo.quoting import quoted
from hpo.release.promote import promote
from hpo.remedies import first_line, way_on
from hpo.results.summary import leaderboard_text, show
from hpo.search.context import SweepContext
from hpo.search.controller import SearchController, identity_of
from hpo.search.finalists import repeats_planned, run_finalists
from hpo.search.lost_runs import write_lost_runs
from hpo.search.proposals import Proposals
from hpo.search.warm_start import take_over, warm_points
from hpo.signals import terminate_as_interrupt
from hpo.study.revision import Change, open_revision
from hpo.study.store import study_names, view_study
from hpo.study.study import STUDY_ERRORS, Study
from hpo.terminal import ProgressView, Silent
from hpo.trials.calls import run_alone
from hpo.trials.scheduler import TrialScheduler
from hpo.trials.slots import Slots, cores, first_devices
from hpo.trials.trial_files import read_result, write_examples
from trainers.protocol.catalog import TASKS
from trainers.protocol.codec import from_json, to_json
from trainers.protocol.messages import PreparedData, Score, Scored

if TYPE_CHECKING:
    from hpo.tracking.mlflow_tracker import Tracker


def run_sweep(
    file: Path, home: Home, *, jobs: int | None = None, threads: int | None = None, view: ProgressView | None = None,
    worker: str = WORKER,
) -> dict[str, Any]:  # fmt: skip
    """Run or continue the sweep of a YAML file; returns it as `hpo show --json` does.

    `worker` is the module that the trial host answers requests with. When no ONNX variant passed the gate, `refusal`
    says why; see `raise_refusal`. Raises `ConfigError` (then nothing was written), `SweepError`, and `Interrupted` on
    Ctrl-C, after which the same call continues.
    """
    view = view or Silent()
    config = at_its_clock(load_config(file, home), home)
    check_edit(config, home)
    paths = home.sweep(config.name)
    try:
        with (
            terminate_as_interrupt(),
            sweep_lock(paths.lock) as lock_fd,
            trial_host(paths, lock_fd, worker) as executor,
        ):
            view.say(f"{config.name}: reading {Path(config.data.train.source).name}, {Path(config.model.source).name}")
            with nothing_left_behind(home, config.name), doing("reading data and model", paths.host_log):
                inspection = inspect(executor, config, home)
                warm_up(executor, config, home, inspection)
                slots = slots_for(executor, config, home, inspection, jobs, threads)
            with open_run(config, home, inspection, executor, view, slots) as sweep:
                tell_data(sweep)
                write_lost_runs(sweep)
                score_base(sweep)
                search(sweep)
                run_finalists(sweep)
                write_error_analysis(sweep)
                promote(sweep)
                finish_run(sweep)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command continues") from None
    except BrokenPipeError:  # nobody reads what we say: the command line knows what to do
        raise
    except OSError as error:  # a full disk, say
        raise SweepError(f"{error}; {way_on(error)}") from error
    except HpoError:
        raise
    except store_errors() as error:
        raise SweepError(f"a store cannot be written: {first_line(error)}; {way_on(error)}") from error
    finally:
        view.end()
    return read_sweep(home, config.name)


def raise_refusal(shown: dict[str, Any]) -> None:
    """Raises `GateRefused` where a sweep ended without a release because its gate said no."""
    if shown["refusal"]:
        raise GateRefused(shown["refusal"])


def read_sweep(home: Home, name: str) -> dict[str, Any]:
    """A sweep as `hpo show --json` gives it. Raises `UsageError` for a name that is none, `HpoError` for a damaged
    study."""
    try:
        return _read(home, name)
    except (LookupError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"[:100]
        raise HpoError(
            f"sweep {name!r} cannot be read ({what}): another version of hpo, or a hand, wrote in its study; "
            f"bring back a copy of {home.studies_db}"
        ) from error


def _read(home: Home, name: str) -> dict[str, Any]:
    stored = view_study(home.studies_db, name)
    state = stored.attrs.get("state", "interrupted")
    if is_locked(home.sweep(name).lock):
        state = "running"
    elif state == "running":  # whoever wrote that was killed
        state = "interrupted"
    files = sorted(home.sweep(name).champion.glob("*")) if state == "complete" else []
    return {**show(stored, state), "champion_files": {file.name: str(file) for file in files}}


def list_sweeps(home: Home) -> list[dict[str, Any]]:
    """Every sweep as `hpo show --json` gives it, by name; of one that cannot be read its name, state and `problem`.

    Raises `HpoError` where there are sweeps and none of them can be read.
    """
    sweeps = [_read_or_problem(home, name) for name in study_names(home.studies_db)]
    if sweeps and all("problem" in sweep for sweep in sweeps):
        raise HpoError("\n".join(sweep["problem"] for sweep in sweeps[:10]))
    return sweeps


def _read_or_problem(home: Home, name: str) -> dict[str, Any]:
    try:
        return read_sweep(home, name)
    except HpoError as error:
        return {"sweep": name, "state": "unreadable", "problem": str(error)}


# --- the sweep -----------------------------------------------------------------------------------------


@contextmanager
def open_run(
    config: SweepConfig, home: Home, inspection: PreparedData, executor: Executor, view: ProgressView, slots: Slots
) -> Iterator[SweepContext]:
    """The study and its MLflow view, from here on written by this process alone; closed however the sweep ends."""
    study, changes, left_out = open_revision(
        config, home.studies_db, lambda point: identity_of(config, home, inspection, point)
    )
    tell_revision(view, study, changes, left_out)
    study.set_attr("state", "running")
    study.set_attr("clock", config.clock)
    study.set_attr("data", to_json(inspection))
    meter = Meter(config.budget, from_json(Spent, study.attrs().get("spent", {})), time.time)
    tracker = None
    try:
        tracker = tracker_of(home, config, inspection, view, executor.fetch)
        yield SweepContext(config, home, inspection, study, tracker, executor, view, slots, meter)
    except BaseException as error:
        try:
            note_end(study, tracker, meter, is_wish=isinstance(error, KeyboardInterrupt))
        except store_errors() as second:  # the first error is the one to tell
            view.say(f"how it ended could not be written down: {first_line(second)}")
        raise
    else:
        study.set_attr("spent", to_json(meter.spent))
    finally:
        study.close()


def tracker_of(
    home: Home, config: SweepConfig, inspection: PreparedData, view: ProgressView | None = None, fetch: Fetch = here
) -> Tracker:
    """MLflow's tracker, or one that writes the other views of `report_to` too."""
    say = (view or Silent()).say
    if "tensorboard" not in config.report_to:
        from hpo.tracking.mlflow_tracker import (
            Tracker,  # late: MLflow takes two seconds, which no other command and no error needs
        )

        return Tracker(home, config, inspection, say, fetch)
    from hpo.tracking.tensorboard import TensorBoardTracker

    return TensorBoardTracker(home, config, inspection, say, fetch)


def store_errors() -> tuple[type[Exception], ...]:
    """What is raised where study or MLflow cannot be written: a full disk, say."""
    from hpo.tracking.mlflow_tracker import TRACKING_ERRORS  # late, as in `tracker_of`

    return (*STUDY_ERRORS, *TRACKING_ERRORS, OSError)


def note_end(study: Study, tracker: Tracker | None, meter: Meter, *, is_wish: bool) -> None:
    """What an interruption or an error leaves behind: no state and no run that says it is still running."""
    study.set_attr("spent", to_json(meter.spent))
    if study.attrs()["state"] != "complete":
        study.set_attr("state", "interrupted" if is_wish else "failed")
        if tracker:
            tracker.abandon("KILLED" if is_wish else "FAILED")


def tell_revision(view: ProgressView, study: Study, changes: Sequence[Change], left_out: int) -> None:
    """What an edit of the file changed, and what it did to the trials so far."""
    if not changes:
        return
    view.say(f"revision {study.revision}:")
    for key, old, new in changes:
        view.say(f"  {key}: {quoted(old)} -> {quoted(new)}")
    kept = len(study.records())
    view.say(f"  {kept} trial{'s' * (kept != 1)} kept, {left_out} left out (they do not fit any more)")


def tell_data(sweep: SweepContext) -> None:
    rows = sweep.inspection.rows
    sweep.view.say(
        f"{rows['train']:,} training rows, {rows['validation']:,} validation, {rows['test']:,} test (sealed); "
        f"{sweep.config.examples_per_trial(rows['train']):,} examples per trial"
    )
    for note in sweep.inspection.notes:
        sweep.view.say(f"note: {note}")


def score_base(sweep: SweepContext) -> None:
    """The untouched base model's own metrics, where the task has them without training."""
    if not TASKS[sweep.config.task].base_is_scored or "base_score" in sweep.study.attrs():
        return
    workload = sweep.config.workload(sweep.home)
    devices = first_devices(sweep.inspection)
    scored = run_alone(sweep.executor, Score(workload, sweep.inspection, cores(), devices))
    assert isinstance(scored, Scored)  # noqa: S101  # the protocol's answer to Score
    sweep.study.set_attr("base_score", scored.metrics)
    metric = sweep.config.objective.metric
    sweep.view.say(f"the untouched base model: {metric} {scored.metrics[metric]:.4f}")


def search(sweep: SweepContext) -> None:
    """Train what is not trained yet, within the budget."""
    config, study = sweep.config, sweep.study

    def identify(point: Point) -> str:
        return identity_of(config, sweep.home, sweep.inspection, point)

    warm: list[Point] = []
    if config.strategy.warm_start:
        taken = take_over(config, sweep.home, sweep.inspection, study, sweep.tracker, identify)
        warm = warm_points(config, sweep.home)
        sweep.view.say(f"warm start: {taken} trials taken over, {len(warm)} points lined up")
    proposals = Proposals(config, study, identify, warm)
    engine = SearchController(
        config, sweep.home, sweep.inspection, study, sweep.tracker, sweep.view, sweep.slots, proposals, sweep.meter,
        repeats_planned(config), sweep.executor.fetch,
    )  # fmt: skip
    sweep.view.say(f"search strategy: {study.strategy.type} ({study.strategy.why})")
    sweep.view.begin(
        config.planned_trials(), engine.finished_count, config.objective.metric, sweep.slots.jobs, engine.best
    )
    TrialScheduler(
        sweep.executor, sweep.inspection, sweep.slots, config.retry_policy, config.budget.trial_minutes, sweep.view
    ).run(engine)  # fmt: skip
    sweep.view.end()
    ended_by = engine.stopped_by or ("space exhausted" if proposals.exhausted else "all trials done")
    if proposals.exhausted and config.space.dimensions:
        sweep.view.say("every point of the space has been tried: the search ends here")
    study.set_attr("search_ended_by", ended_by)
    engine.check_any_succeeded()


def write_error_analysis(sweep: SweepContext) -> None:
    """What the champion gets wrong, for people to read; a sweep that continues writes it anew."""
    folder = sweep.paths.champion
    shutil.rmtree(folder, ignore_errors=True)
    champion = sweep.champion()
    if champion is None:
        return
    paths = sweep.champion_paths(champion)
    write_examples(read_result(paths), paths, sweep.config.task, sweep.inspection, folder, sweep.executor.fetch)
    if folder.exists():
        sweep.tracker.artifacts(folder)


def finish_run(sweep: SweepContext) -> None:
    """Leaderboard and summary into MLflow; the study is told last."""
    sweep.study.set_attr("spent", to_json(sweep.meter.spent))
    stored = show(view_study(sweep.home.studies_db, sweep.config.name), "complete")
    sweep.tracker.artifact("leaderboard.txt", leaderboard_text(stored))
    champion = stored["champion"]
    summary, tags = {"trials": float(len(stored["trials"]))}, {}
    if champion:
        summary[f"champion/{stored['objective']['metric']}"] = champion["value"]
        tags = {"hpo.champion": str(champion["number"]), "hpo.champion_run": champion["run_id"]}
    sweep.tracker.finish_sweep(summary, tags)
    sweep.study.set_attr("state", "complete")
