"""A session of a sweep: study and MLflow's run opened, and closed however it ends."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hpo.commands.live_page import LivePage
from hpo.commands.memory import UNMEASURED, MemoryPlan
from hpo.config.budget import Meter
from hpo.config.objective import gate_of
from hpo.config.sweep_config import SweepConfig
from hpo.config.trial_specs import TrialSpecs
from hpo.databases.postgres import ServerGone
from hpo.errors import HpoError, Interrupted, SweepError
from hpo.executors.base import Executor, Fetch, here
from hpo.progress_view import ProgressView
from hpo.remedies import first_line, way_on
from hpo.results.changes import change_in_words
from hpo.results.leaderboard import leaderboard_text
from hpo.results.records import StudySnapshot
from hpo.results.release_text import variants_text
from hpo.results.state import Change
from hpo.results.summary import SweepSummary, summarize
from hpo.study.lease import LeaseLost
from hpo.study.revision import open_revision
from hpo.study.storage import STUDY_ERRORS
from hpo.study.store import view_study
from hpo.study.study import Study
from hpo.tracking.base import RunTracker
from hpo.tracking.remote.live_copy import copied_to_server
from hpo.trials.context import SweepContext
from hpo.trials.environment import git_commit
from hpo.trials.slots import Slots
from hpo.trials.timeline_file import timeline_or_why

if TYPE_CHECKING:
    from hpo.report.facts import ReportFacts


@contextmanager
def plain_errors() -> Iterator[None]:
    """Interruptions and failed stores as errors for people.

    Raises `Interrupted`, `SweepError`, or what is plain already. A broken pipe passes: the command line handles it.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command continues") from None
    except (BrokenPipeError, HpoError):
        raise
    except OSError as error:  # a full disk, say
        raise SweepError(f"{error}; {way_on(error)}") from error
    except store_errors() as error:
        raise SweepError(in_words(error)) from error


def in_words(error: Exception) -> str:
    """What is wrong with a store, and what to do about it."""
    return f"a store cannot be written: {first_line(error)}; {way_on(error)}"


def store_errors() -> tuple[type[Exception], ...]:
    """What is raised where study or MLflow cannot be written: a full disk, say."""
    from hpo.tracking.mlflow_tracker import TRACKING_ERRORS  # late, as in `tracker_of`

    return (*STUDY_ERRORS, *TRACKING_ERRORS, OSError, ServerGone, LeaseLost)


@contextmanager
def open_run(
    specs: TrialSpecs, executor: Executor, view: ProgressView, slots: Slots, memory: MemoryPlan | None = None
) -> Iterator[SweepContext]:  # fmt: skip
    """The study and its MLflow view, from here on written by this process alone; closed however the sweep ends.

    Meanwhile the runs are also copied to a tracking server, where the environment names one.
    """
    config, home, memory = specs.config, specs.home, memory or UNMEASURED
    study, changes, left_out = open_revision(config, specs.fingerprint, home.studies_db)
    say_revision(view, study, changes, left_out)
    study.update_state(
        state="running", clock=config.clock, precision=config.decision, data=specs.prepared,
        evaluation_rows=config.evaluation_rows(specs.prepared), left_out=memory.left_out,
    )  # fmt: skip
    meter = Meter(config.budget, study.state.spent, time.time, config.ends_at)
    tracker = page = None
    try:
        with copied_to_server(home, config.name, view.say):
            try:
                tracker = tracker_of(specs, view, executor.fetch)
                page = LivePage(home, config.name, tracker, view.say)
                yield SweepContext(specs, study, tracker, executor, view, slots, meter, page, memory.fitting)
            except BaseException as error:
                try:
                    note_end(study, tracker, page, meter, is_wish=isinstance(error, KeyboardInterrupt))
                except store_errors() as second:  # the first error is the one to tell
                    view.say(f"how it ended could not be written down: {first_line(second)}")
                raise
            else:
                study.update_state(spent=meter.spent)
    finally:
        study.close()


def tracker_of(specs: TrialSpecs, view: ProgressView, fetch: Fetch = here) -> RunTracker:
    """MLflow's tracker, or one that writes the other views of `report_to` too."""
    given = (specs.home, specs.config, specs.prepared, view.say, fetch, origin_of(specs.config))
    # Imported late: MLflow takes two seconds, which no other command and no error needs.
    if "tensorboard" not in specs.config.report_to:
        from hpo.tracking.mlflow_tracker import Tracker

        return Tracker(*given)
    from hpo.tracking.tensorboard import TensorBoardTracker

    return TensorBoardTracker(*given)


def origin_of(config: SweepConfig) -> dict[str, str]:
    """Tags of a run that say where it comes from: file, host, and the git commit around the file."""
    tags = {"mlflow.source.name": config.file.name, "mlflow.source.type": "LOCAL", "hpo.host": platform.node()}
    if commit := git_commit(config.file.resolve().parent):
        tags["mlflow.source.git.commit"] = commit
    return tags


def note_end(
    study: Study, tracker: RunTracker | None, page: LivePage | None, meter: Meter, *, is_wish: bool
) -> None:  # fmt: skip
    """What an interruption or an error leaves behind: no state, no page and no run that says it is still running."""
    study.update_state(spent=meter.spent)
    if study.state.state == "complete":
        return
    study.update_state(state="interrupted" if is_wish else "failed")
    try:
        if page:
            page.ended(study.state.state)  # before the run ends: a file that came later would not be copied to a server
    finally:
        if tracker:
            tracker.abandon("KILLED" if is_wish else "FAILED")


def say_revision(view: ProgressView, study: Study, changes: Sequence[Change], left_out: int) -> None:
    """What an edit of the file changed, and what it did to the trials so far."""
    if not changes:
        return
    view.say(f"revision {study.revision}:")
    for change in changes:
        view.say(f"  {change_in_words(change)}")
    kept = len(study.records())
    why = " (they do not fit any more)" * (left_out > 0)
    view.say(f"  {kept} trial{'s' * (kept != 1)} kept, {left_out} left out{why}")


def facts_and_page(
    sweep: SweepContext, study: StudySnapshot, summary: SweepSummary
) -> tuple[ReportFacts, str | None]:  # fmt: skip
    """What the report shows, and the report. Nothing that goes wrong with it ends a sweep that has its champion: it is
    said, and the facts are then those of the study alone."""
    from hpo.commands.report_facts import facts_from  # late: the template library would delay the first step
    from hpo.report.facts import facts_of
    from hpo.report.page import html_page

    facts = None
    try:
        facts = facts_from(sweep.home, study, summary)
        return facts, html_page(facts)
    except Exception as error:  # noqa: BLE001  # see above
        sweep.view.say(f"note: the sweep's report.html is not written: {first_line(error)}")
    return facts or facts_of(study, dataclasses.replace(summary, champion_files={})), None


def finish_run(sweep: SweepContext) -> None:
    """Leaderboard and report into MLflow; the study is written last, so a crash in between repeats this step."""
    sweep.study.update_state(spent=sweep.meter.spent)
    study = view_study(sweep.home.studies_db, sweep.config.name)
    files, timeline = sweep.paths.champion_files(), timeline_or_why(sweep.paths.timeline)
    summary = summarize(study, "complete", files, *timeline)
    sweep.tracker.artifact("leaderboard.txt", leaderboard_text(summary))
    facts, page = facts_and_page(sweep, study, summary)
    if page:
        sweep.tracker.artifact("report.html", page)
    if summary.torch and summary.variants:
        metric = gate_of(summary.task, summary.objective).metric
        sweep.tracker.artifact("variants.txt", variants_text(summary.torch, summary, metric))
    sweep.tracker.finish_sweep(facts)
    sweep.study.update_state(state="complete")
