"""The flow of `hpo sweep`, on one screen; each step is a verb."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from hpo.commands.preflight import (
    WORKER,
    at_its_clock,
    check_edit,
    explained_by_log,
    nothing_left_behind,
    prepared_data,
    slots_for,
    trial_host,
    warm_up,
)
from hpo.commands.session import finish_run, open_run, plain_errors
from hpo.commands.show import read_sweep
from hpo.config.file import load_config
from hpo.config.run import ExecutorName
from hpo.config.space import Point
from hpo.config.sweep_config import SweepConfig
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import GateRefused
from hpo.paths import Home
from hpo.progress_view import ProgressView, Silent
from hpo.release.promote import promote
from hpo.release.promotion_time import promotion_seconds
from hpo.results.progress_text import evaluations_line
from hpo.results.row_parts import what_rows_show
from hpo.results.summary import SweepSummary
from hpo.search.contest import finals_planned
from hpo.search.controller import SearchController
from hpo.search.finalists import run_finalists
from hpo.search.lost_runs import write_lost_runs
from hpo.search.proposals import Proposals
from hpo.search.warm_start import take_over, warm_points
from hpo.signals import terminate_as_interrupt
from hpo.study.one_writer import one_writer
from hpo.tracking.ahead import made_ready
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.scheduler import TrialScheduler
from hpo.trials.slots import cores, first_devices
from hpo.trials.trial_files import read_result, write_examples
from trainers.protocol.catalog import TASKS
from trainers.protocol.counted import counted
from trainers.protocol.events import Scored
from trainers.protocol.requests import Score


def run_sweep(
    file: Path, home: Home, *, jobs: int | None = None, threads: int | None = None, view: ProgressView | None = None,
    worker: str = WORKER, executor: ExecutorName | None = None, address: str | None = None,
) -> SweepSummary:  # fmt: skip
    """Run or continue the sweep of a YAML file; returns it summed up. `executor` and `address` take the place of what
    the file says in `run:`.

    `worker` is the module that the trial host answers requests with. When no ONNX variant passed the gate, `refusal`
    says why; see `raise_refusal`. Raises `ConfigError` (then nothing was written), `SweepError`, and `Interrupted` on
    Ctrl-C, after which the same call continues.
    """
    config = load_config(file, home)
    config = dataclasses.replace(config, run=config.run.instead(executor, address))
    return run_sweep_of(config, home, jobs=jobs, threads=threads, view=view, worker=worker)


def run_sweep_of(
    config: SweepConfig, home: Home, *, jobs: int | None = None, threads: int | None = None,
    view: ProgressView | None = None, worker: str = WORKER,
) -> SweepSummary:  # fmt: skip
    """The same for a config that need not be what its file says, as that of one night. Raises the same."""
    view = view or Silent()
    config = at_its_clock(config, home)
    check_edit(config, home)
    paths = home.sweep(config.name)
    try:
        with (
            plain_errors(), terminate_as_interrupt(), nothing_left_behind(home, config.name),
            one_writer(home, config.name) as lock_fd,
            trial_host(paths, lock_fd, worker, config.run, view.say) as executor, ExitStack() as in_use,
        ):  # fmt: skip
            view.say(f"{config.name}: reading {Path(config.data.train.source).name}, {Path(config.model.source).name}")
            with explained_by_log("reading data and model", paths.host_log), made_ready(home, paths.store) as put_store:
                prepared = in_use.enter_context(prepared_data(executor, config, home))
                specs = warm_up(executor, TrialSpecs(config, home, prepared))
                slots, memory = slots_for(executor, specs, jobs, threads, view.say)
                put_store()  # from here on the home has what a sweep leaves
            with open_run(specs, executor, view, slots, memory) as sweep:
                say_data(sweep)
                for line in memory.lines:
                    view.say(line)
                write_lost_runs(sweep)
                score_base(sweep)
                search(sweep)
                run_finalists(sweep)
                write_error_analysis(sweep)
                promote(sweep)
                finish_run(sweep)
    finally:
        view.end()
    return read_sweep(home, config.name)


def raise_refusal(summary: SweepSummary) -> None:
    """Raises `GateRefused` where a sweep ended without a release because its gate said no."""
    if summary.refusal:
        raise GateRefused(summary.refusal)


# --- its steps -----------------------------------------------------------------------------------------


def say_data(sweep: SweepContext) -> None:
    """Say how many rows each split has, what a trial will see of them, and what to know of the data."""
    rows = sweep.inspection.rows
    sweep.view.say(
        f"{rows['train']:,} training rows, {rows['validation']:,} validation, {rows['test']:,} test (sealed); "
        f"{sweep.config.examples_per_trial(rows['train']):,} examples per trial"
    )
    some = sweep.config.evaluation_rows(sweep.inspection) or rows["validation"]
    sweep.view.say(evaluations_line(sweep.config.evaluations(rows["train"]), some, rows["validation"]))
    for note in [*sweep.inspection.notes, *what_rows_show(sweep.config, rows["validation"])]:
        sweep.view.say(f"note: {note}")


def score_base(sweep: SweepContext) -> None:
    """The untouched base model's own metrics, where the task has them without training."""
    if not TASKS[sweep.config.task].base_is_scored or sweep.study.state.base_score is not None:
        return
    workload = sweep.config.workload(sweep.home)
    devices = first_devices(sweep.inspection, sweep.slots.devices_per_trial)
    with sweep.view.doing("evaluating the untouched base model"):
        scored = run_alone(sweep.executor, Score(workload, sweep.inspection, max(1, cores() // len(devices)), devices))
    assert isinstance(scored, Scored)  # noqa: S101  # the protocol's answer to Score
    sweep.study.update_state(base_score=scored.metrics)
    metric = sweep.config.objective.metric
    sweep.view.say(f"the untouched base model: {metric} {scored.metrics[metric]:.4f}")


def search(sweep: SweepContext) -> None:
    """Train what is not trained yet, within the budget."""
    config, study = sweep.config, sweep.study
    study.update_state(search_ended_by=None)  # an edit may have given it more to do
    warm: list[Point] = []
    if config.strategy.warm_start:
        taken = take_over(sweep)
        warm = warm_points(config, sweep.home, sweep.view.say)
        sweep.view.say(f"warm start: {counted(taken, 'trial')} taken over, {counted(len(warm), 'point')} lined up")
    proposals = Proposals(config, study, warm, sweep.is_possible)
    ahead = replace(finals_planned(config), promotion_s=promotion_seconds(sweep))
    controller = SearchController(sweep, proposals, ahead)
    sweep.view.say(f"search strategy: {study.strategy.type} ({study.strategy.why})")
    sweep.view.begin(
        sweep.planned_trials(), controller.finished_count, config.objective.metric, sweep.slots.jobs, controller.best,
        ahead, controller.seconds_left,
    )  # fmt: skip
    TrialScheduler(sweep).run(controller)
    controller.end()
    sweep.view.end()
    ended_by = controller.stopped_by or ("space exhausted" if proposals.exhausted else "all trials done")
    if proposals.exhausted and config.space.dimensions:
        but = " that fits into memory" if study.state.left_out.points else ""
        sweep.view.say(f"every point of the space{but} has been tried: the search ends here")
    study.update_state(search_ended_by=ended_by)
    controller.check_any_succeeded()


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
