"""The controller of a search: which trial comes next, what is recorded where, and when the search is over."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from hpo.config.sweep_config import SweepConfig
from hpo.errors import SweepError
from hpo.pruning.base import Look, Peers
from hpo.results.champion import is_feasible
from hpo.results.records import TrialRecord, is_lost, void_trials
from hpo.results.time_left import NOTHING, Ahead
from hpo.search.proposals import Proposals
from hpo.search.row_errors import RowErrors
from hpo.search.search_budget import SearchBudget
from hpo.search.stopped_trials import StoppedTrials
from hpo.study.study import Study
from hpo.trials.context import SweepContext
from hpo.trials.job import Job, TrialController
from hpo.trials.retries import SAME_CRASHES
from hpo.trials.trial_files import (
    finished_on_disk,
    log_tail,
    losses_of,
    prepare_folder,
    read_spec,
    rows_of,
    write_examples,
    write_result,
)
from trainers.metrics.table import Rows
from trainers.protocol.events import Evaluation, Step, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Verdict
from trainers.protocol.settings import Setting


class SearchController(TrialController):
    """One sweep's search: a `hpo.trials.scheduler.TrialController`."""

    def __init__(self, sweep: SweepContext, proposals: Proposals, ahead: Ahead = NOTHING) -> None:
        self._sweep = sweep
        self._config = sweep.config
        self._study = sweep.study
        self._view = sweep.view
        self._fetch = sweep.executor.fetch
        self._errors = RowErrors(sweep.config, sweep.inspection.labels, self._rows_of)
        self._stopped = StoppedTrials(sweep.study, sweep.paths)
        self._proposals = proposals
        self._budget = SearchBudget(sweep, ahead)
        self._interrupted = deque(self._study.interrupted())
        self._parked: list[int] = []
        """Trials that wait for the result of an equal one that is still under way."""
        self._crashes: list[str] = []
        """Messages of the last trials that crashed, without another one between."""
        self._baseline_fingerprint = self._study.fingerprint_of(self._config.baseline())
        records = self._study.records()
        self.finished_count = self._finished(records)
        self._has_complete = any(r.state == "complete" for r in records)
        self.best = best_value(self._study)
        """Of the trials that may be champion."""

    def _finished(self, records: Sequence[TrialRecord]) -> int:
        void = void_trials(records, self._baseline_fingerprint, self._study.state.void)
        return sum(record.is_over and record.number not in void for record in records)

    def end(self) -> None:
        """The search is over: nothing goes on any more. What the budget left interrupted may, once it is larger."""
        for number in self._parked:  # what they wait for was interrupted
            self._sweep.tracker.pause_trial(number)
        self._stopped.clear()

    def check_any_succeeded(self) -> None:
        """Raises `SweepError` when no trial has a value."""
        if not self._has_complete:
            failures = [r for r in self._study.records() if r.result and r.result.state == "failed"]
            raise SweepError(f"no trial of {self._config.name} succeeded{self._what_happened(failures)}")

    def _what_happened(self, failures: Sequence[TrialRecord]) -> str:
        if not failures or (result := failures[-1].result) is None:
            return ""
        log = self._fetch(self._sweep.paths.trial(failures[-1].number).log)
        where = f"; its log is {log}" if log.exists() else ""
        again = "; fix that, and the same command tries again" if is_lost(result) else ""
        return f"; the last one: {result.cause}: {result.message}{where}{again}"

    # --- what to run -------------------------------------------------------------------------------------

    def next_job(self, slot: int) -> Job | None:
        """The next trial that must be trained, interrupted ones first. Others get their result here."""
        while True:
            if self._interrupted:
                number = self._interrupted.popleft()
                params = self._study.resume(number)
            elif begun := self._proposals.begin():
                number, params = begun
            elif (spared := self._second_chance()) is not None:
                number, params = spared, self._study.resume(spared)
            else:
                return None
            if job := self._job(number, params, slot):
                return job

    def _second_chance(self) -> int | None:
        """A stopped trial that goes on, because there is no new point to try."""
        champion = self._sweep.champion()
        if champion is None:
            return None
        stopped = self._stopped.next(self._peers(), champion.number)
        if stopped is None:
            return None
        self.finished_count -= 1
        self._uncount(stopped)
        self._view.trial_goes_on(stopped.number, champion.number, self.finished_count)
        return stopped.number

    def _uncount(self, stopped: TrialRecord) -> None:
        """Take back the GPU time of a trial that goes on: its clock does so too, and is counted at its end."""
        if stopped.result is not None:
            spec = read_spec(self._sweep.paths.trial(stopped.number))
            self._budget.take_back(spec, stopped.result)

    def _job(self, number: int, params: Mapping[str, Setting], slot: int) -> Job | None:
        """The trial as a job; None when an equal trial or an earlier process has its result already."""
        record = self._study.record(number)
        paths = self._sweep.paths.trial(number)
        slots = self._sweep.slots
        spec = self._sweep.specs.spec(number, params, paths, threads=slots.threads, devices=slots.devices(slot))
        spec = self._sweep.as_it_runs(spec, paths)
        is_baseline = record.fingerprint == self._baseline_fingerprint
        if is_baseline and not self._has_baseline():
            self._study.update_state(baseline=number)
            self.finished_count = self._finished(self._study.records())  # without the one that was lost
        self._study.set_run_id(number, self._sweep.tracker.start_trial(spec, record, is_baseline=is_baseline))
        self._view.trial_started(number, params)
        if record.reused_from is not None:
            self._parked.append(number)
            self._settle_parked()
            return None
        job = Job(spec, paths, slot, list(record.attempts))
        if result := finished_on_disk(spec, paths):
            for evaluation in result.evaluations:
                self.evaluated(job, evaluation)
            self.finished(job, result)
            return None
        prepare_folder(spec, paths)
        self._budget.begin()
        return job

    def _has_baseline(self) -> bool:
        """One that was lost is none: the next trial at that point takes its place."""
        number = self._study.state.baseline
        result = None if number is None else self._study.record(number).result
        return number is not None and (result is None or not is_lost(result))

    def is_spent(self) -> bool:
        return self._budget.is_spent()

    @property
    def stopped_by(self) -> str | None:
        """The bound of the budget that ended the search, if one did."""
        return self._budget.ended_by

    def seconds_left(self) -> float | None:
        """Until the budget ends the search; None where it bounds no time."""
        return self._budget.seconds_left()

    def spared(self, jobs: list[Job]) -> Job | None:
        """Without any complete trial, the one that is furthest on: there is always a champion."""
        return None if self._has_complete else max(jobs, key=lambda job: len(job.evaluations), default=None)

    # --- what happened -----------------------------------------------------------------------------------

    def resumed(self, job: Job) -> None:
        self._study.set_attempts(job.number, job.attempts, job.resumed_from)
        self._view.resumed(job.number, job.resumed_from or 0)

    def stepped(self, job: Job, step: Step) -> None:
        self._budget.runs(job.spec, step.seconds)
        self._budget.keep()
        self._sweep.tracker.step(job.number, step)
        self._view.step(job.number, step.examples / job.spec.max_examples, step.loss, step.seconds)

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        value = evaluation.metrics[job.spec.metric]
        judged = evaluation.metrics[self._config.pruner.objective.metric]
        self._budget.runs(job.spec, evaluation.seconds)
        is_new = evaluation.index >= len(self._study.record(job.number).curve)  # a retry repeats what it resumes from
        self._study.report(job.number, evaluation.index, evaluation.fraction, judged)
        self._sweep.tracker.evaluation(job.number, evaluation)
        if is_new:
            self._view.evaluated(job.number, evaluation.fraction, value)

    def verdict(self, job: Job) -> Verdict:
        """The baseline is never pruned: everything is compared with it. A trial at its end has nothing to save."""
        is_over = job.evaluations[-1].examples >= job.spec.max_examples
        if is_over or job.number == self._study.state.baseline:
            return "go"
        peers = self._peers()
        if self._study.record(job.number).has_gone_on and (champion := self._sweep.champion()):
            return "go" if self._stopped.may_go_on(peers, job.number, champion.number) else "stop"
        return "stop" if self._config.pruner.rule.should_prune(peers, job.number) else "go"

    def _peers(self) -> Peers:
        folder = self._sweep.paths
        return Peers(
            self._study.curves,
            self._config.pruner.objective,
            lambda n, i: losses_of(folder.trial(n), i, self._config.task, self._fetch),
            self._errors,
        )

    def _rows_of(self, look: Look) -> Rows:
        number, index = look
        return rows_of(self._sweep.paths.trial(number), index, self._fetch)

    def retrying(self, job: Job) -> None:
        last = job.attempts[-1]
        self._study.set_attempts(job.number, job.attempts, None)
        self._view.say(f"trial {job.number}: {last.cause} ({last.message}); trying again")

    def paused(self, job: Job) -> None:
        self._study.set_attempts(job.number, job.attempts, job.resumed_from)
        self._budget.write()
        self._sweep.tracker.pause_trial(job.number)
        self._view.trial_paused(job.number)

    def finished(self, job: Job, result: TrialResult) -> None:
        """Disk, then MLflow, then the study. The study is written last, so a crash in between repeats this step."""
        write_result(result, job.paths)
        write_examples(result, job.paths, self._config.task, self._sweep.inspection, job.paths.examples, self._fetch)
        if job.attempts:
            self._study.set_attempts(job.number, job.attempts, job.resumed_from)
        self._budget.count(job.spec, result)
        self._book(job.number, result, job.paths)
        self._stopped.settle(result, job.paths)
        self._stop_if_all_crash(job, result)
        self._settle_parked()

    def _settle_parked(self) -> None:
        """Give every waiting duplicate the result of its twin, where that is known by now. Where that was lost, one of
        them is trained, as after a restart; not on a spent budget."""
        for number in list(self._parked):
            twin = self._study.record(int(self._study.record(number).reused_from or 0))
            if twin.result is None:
                continue
            self._parked.remove(number)
            if is_lost(twin.result) and not self.is_spent():
                self._sweep.tracker.pause_trial(number)  # until its turn comes
                self._interrupted.append(number)
            else:
                self._book(number, twin.result, self._sweep.paths.trial(number))

    def _book(self, number: int, result: TrialResult, paths: TrialPaths) -> None:
        self._sweep.tracker.finish_trial(number, result, paths)
        self._study.finish(number, result)
        self._budget.write()
        self._budget.note(result)
        self.finished_count += 1
        is_best = False
        self._has_complete = self._has_complete or result.state == "complete"
        if result.value is not None and may_lead(self._study.record(number), self._config):
            is_best = self.best is None or self._config.objective.better(result.value, self.best)
            self.best = result.value if is_best else self.best
        if self.best is not None:
            self._sweep.tracker.best_so_far(self.finished_count, self.best)
        self._view.trial_finished(number, result, self.finished_count, is_best=is_best)

    def _stop_if_all_crash(self, job: Job, result: TrialResult) -> None:
        self._crashes = [*self._crashes, result.message] if result.cause == "crash" else []
        if len(self._crashes) >= SAME_CRASHES and len(set(self._crashes[-SAME_CRASHES:])) == 1:
            raise SweepError(
                f"{SAME_CRASHES} trials in a row crashed alike: {result.message}\n"
                f"the end of {job.paths.log}:\n{log_tail(job.paths, self._fetch)}"
            )


def may_lead(record: TrialRecord, config: SweepConfig) -> bool:
    """Whether a trial is complete and keeps the constraints (a pruned one's last value is not comparable)."""
    return record.state == "complete" and is_feasible(record, config.constraints)


def best_value(study: Study) -> float | None:
    """The best value of any trial that may lead."""
    values = [r.result.value for r in study.records() if r.result and may_lead(r, study.config)]
    known = [v for v in values if v is not None]
    return min(known, key=study.objective.sort_key) if known else None
