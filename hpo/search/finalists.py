"""Who really won: the best trials and the baseline race over fresh seeds, are compared, and read the sealed test once.

Repeats stay outside the study: they have their own record (`SweepState.finalists`), folders and MLflow runs.
"""

from __future__ import annotations

import dataclasses

from hpo.results.finalists_text import drop_in_words
from hpo.results.outcome import Dropped
from hpo.search.contest import Contest, Planned, contest_of
from hpo.search.final_scores import FinalScores
from hpo.search.scoreboard import Results, Scoreboard
from hpo.search.sealed_test import read_test
from hpo.search.search_budget import gpu_seconds
from hpo.trials.context import SweepContext
from hpo.trials.job import Job, TrialController
from hpo.trials.scheduler import TrialScheduler
from hpo.trials.trial_files import finished_on_disk, prepare_folder, write_examples, write_result
from trainers.protocol.events import Evaluation, Step, TrialResult
from trainers.protocol.requests import Verdict


def run_finalists(sweep: SweepContext) -> None:
    """Race, compare, choose the champion, read the test split; unless that has been done for these contestants."""
    wanted, before = sweep.config.finalists, sweep.study.state.finalists
    if wanted is None:
        sweep.study.update_state(finalists=None)
        return
    # An outcome of before rows were split is about the search's own ranking, and stands.
    earlier = contest_of(sweep, wanted.top, wanted.seeds, wanted.claim)
    if not earlier.contestants:  # no complete trial keeps the constraints
        sweep.study.update_state(finalists=None)
        return
    if before is not None and before.fingerprint == earlier.fingerprint:
        return
    board = Scoreboard(sweep)
    rank = board.chosen_by if board.parts.is_split else None
    contest = contest_of(sweep, wanted.top, wanted.seeds, wanted.claim, rank)
    if before is not None and before.fingerprint == contest.fingerprint:
        return
    sweep.study.update_state(finalists=None)  # those of before an edit: a kill must not leave them as the outcome
    sweep.view.say(_announcement(contest))
    controller = FinalistController(sweep, contest, board)
    sweep.view.begin_repeats(len(contest.contestants), contest.seeds, sweep.config.objective.metric)
    TrialScheduler(sweep).run(controller)
    sweep.view.end()
    outcome = FinalScores(sweep, contest, board, controller.results).outcome()
    test = None if sweep.config.is_certified_later else read_test(sweep, board, outcome)
    sweep.study.update_state(finalists=dataclasses.replace(outcome, test=test))


def _announcement(contest: Contest) -> str:
    trials = f"finalists: trials {', '.join(str(c.number) for c in contest.contestants)}"
    if contest.claim == "adapter":
        return f"{trials}; their adapters are compared, without repeats (finalists.claim: adapter)"
    return f"{trials}; a race over at most {contest.seeds} fresh seeds of each"


class FinalistController(TrialController):
    """The trainings that the race asks for, until it is over: a `hpo.trials.scheduler.TrialController`."""

    def __init__(self, sweep: SweepContext, contest: Contest, board: Scoreboard) -> None:
        self._sweep = sweep
        self._contest = contest
        self._board = board
        self._planned = {(repeat.trial, repeat.repeat): repeat for repeat in contest.repeats}
        self._by_number = {repeat.spec.number: repeat for repeat in contest.repeats}
        self._begun: set[tuple[int, int]] = set()
        self._dropped: set[Dropped] = set()
        self.results: Results = {}
        self._run_ids: dict[int, str] = {}

    def next_job(self, slot: int) -> Job | None:
        while (repeat := self._next()) is not None:
            self._begun.add((repeat.trial, repeat.repeat))
            devices = self._sweep.slots.devices(slot)[: len(repeat.spec.devices)]
            paths = self._sweep.paths.repeat(repeat.trial, repeat.repeat)
            spec = self._sweep.as_it_runs(dataclasses.replace(repeat.spec, devices=devices), paths)
            run_id = self._sweep.tracker.start_repeat(spec, repeat.trial, repeat.repeat)
            self._run_ids[spec.number] = run_id
            job = Job(spec, paths, slot, repeat=(repeat.trial, repeat.repeat))
            if result := finished_on_disk(spec, paths):
                for evaluation in result.evaluations:  # those that a killed session had not written
                    self._sweep.tracker.evaluation(spec.number, evaluation)
                self._sweep.tracker.finish_trial(spec.number, result, paths)
                self.results[repeat.trial, repeat.repeat] = (result, run_id)
                continue
            prepare_folder(spec, paths)
            self._sweep.meter.begin()
            params = self._contest.params_of(repeat.trial)
            self._sweep.view.repeat_started(spec.number, f"{repeat.trial} with seed {repeat.repeat}", params)
            return job
        return None

    def _next(self) -> Planned | None:
        """The first training that the race asks for and that has not begun; None while others of its round run."""
        standing = self._contest.race(self._board, self.results).standing()
        for dropped in standing.dropped:
            if dropped not in self._dropped:
                self._dropped.add(dropped)
                self._sweep.view.say(f"race: {drop_in_words(dropped)}")
        if following := standing.following:
            self._sweep.view.race_stands(following[0][1] + 1, len(standing.still_in), len(following))
        return next((self._planned[key] for key in standing.following if key not in self._begun), None)

    def is_spent(self) -> bool:
        """Room for the repeats was kept when the search ended: they are run, whatever the clock says now."""
        return False

    def spared(self, jobs: list[Job]) -> Job | None:
        return None

    def resumed(self, job: Job) -> None:
        self._sweep.view.resumed(job.number, job.resumed_from or 0)

    def stepped(self, job: Job, step: Step) -> None:
        self._sweep.tracker.step(job.number, step)
        self._sweep.view.step(job.number, step.examples / job.spec.max_examples, step.loss, step.seconds)

    def evaluated(self, job: Job, evaluation: Evaluation) -> None:
        self._sweep.tracker.evaluation(job.number, evaluation)
        if evaluation.index >= job.resumed_evaluations:  # those before it have been shown
            value = evaluation.metrics[self._sweep.config.objective.metric]
            self._sweep.view.evaluated(job.number, evaluation.fraction, value)

    def verdict(self, job: Job) -> Verdict:
        return "go"

    def retrying(self, job: Job) -> None:
        last = job.attempts[-1]
        repeat = self._by_number[job.number]
        self._sweep.view.say(f"trial {repeat.trial}, seed {repeat.repeat}: {last.cause} ({last.message}); trying again")

    def paused(self, job: Job) -> None:
        self._sweep.tracker.pause_trial(job.number)
        self._sweep.view.trial_paused(job.number)

    def finished(self, job: Job, result: TrialResult) -> None:
        repeat = self._by_number[job.number]
        write_result(result, job.paths)
        write_examples(
            result, job.paths, self._sweep.config.task, self._sweep.inspection, job.paths.examples,
            self._sweep.executor.fetch,
        )  # fmt: skip
        self._sweep.meter.gpu_seconds += gpu_seconds(job.spec, result.seconds)
        self._sweep.tracker.finish_trial(job.number, result, job.paths)
        self._sweep.study.update_state(spent=self._sweep.meter.spent)
        self.results[repeat.trial, repeat.repeat] = (result, self._run_ids[job.number])
        self._sweep.view.repeat_finished(job.number, result)
