"""The budget of a search: whether it allows another trial, with room for the trainings that come after."""

from __future__ import annotations

from hpo.results.records import TrialRecord
from hpo.results.time_left import Ahead
from hpo.trials.context import SweepContext
from hpo.trials.trial_files import read_spec
from trainers.protocol.events import TrialResult
from trainers.protocol.trial_spec import TrialSpec

KEPT_EVERY_S = 60.0
"""How much of the time that a session has spent a kill may lose."""


class SearchBudget:
    """What one session of a search may spend, and what its trials take."""

    def __init__(self, sweep: SweepContext, ahead: Ahead) -> None:
        self._meter = sweep.meter
        self._slots = sweep.slots
        self._study = sweep.study
        self._view = sweep.view
        self._ahead = ahead
        """Trainings to come after the search, for which the budget must leave room."""
        records = sweep.study.records()
        self._longest_s = max((r.result.seconds for r in records if r.result), default=0.0)
        self._may_end = any(r.state == "complete" for r in records)
        """Without a champion this session begins one trial, whatever the budget says."""
        self._under_way = {r.number: _gpu_seconds_so_far(sweep, r) for r in records if not r.is_over}
        """Trial that has not ended -> seconds of GPUs that it has taken. The meter counts the same ones."""
        sweep.meter.under_way = self._under_way
        self.ended_by: str | None = None
        """The bound that ended the search, if one did."""

    def begin(self) -> None:
        """A trial is about to be trained."""
        self._meter.begin()
        self._may_end = True

    def runs(self, spec: TrialSpec, seconds: float) -> None:
        """A trial has taken so long by now, in all sessions."""
        self._under_way[spec.number] = gpu_seconds(spec, seconds)

    def count(self, spec: TrialSpec, result: TrialResult) -> None:
        """A trial has ended: add what it took of GPUs."""
        self._under_way.pop(spec.number, None)
        self._meter.gpu_seconds += gpu_seconds(spec, result.seconds)

    def take_back(self, spec: TrialSpec, result: TrialResult) -> None:
        """A trial that had ended goes on: its clock does so too, and is counted at its end."""
        self._meter.gpu_seconds -= gpu_seconds(spec, result.seconds)
        self.runs(spec, result.seconds)
        self.write()

    def note(self, result: TrialResult) -> None:
        """A trial has this result, trained or taken over: by the longest one the room for the finalists is known."""
        self._longest_s = max(self._longest_s, result.seconds)
        self._may_end = self._may_end or result.state == "complete"

    def write(self) -> None:
        """Write into the study what all sessions have spent so far."""
        self._study.update_state(spent=self._meter.spent)

    def keep(self) -> None:
        """Write it once a minute, as time goes by: a kill loses no more of it."""
        if self._meter.spent.seconds - self._study.state.spent.seconds >= KEPT_EVERY_S:
            self.write()

    def is_spent(self) -> bool:
        """Whether no trial begins any more; once it is, it stays so."""
        if self.ended_by is None and self._may_end:
            gpu_s = self._ahead.trainings * self._longest_s * self._slots.devices_per_trial
            self.ended_by = self._meter.exhausted(self._reserve_s(), gpu_s)
            if self.ended_by:
                self._view.say(f"the budget is spent ({self.ended_by}): no new trials")
        return self.ended_by is not None

    def seconds_left(self) -> float | None:
        """Until the budget ends the search; None where it bounds no time."""
        bound = self._meter.seconds_left()
        return None if bound is None else bound[0] - self._reserve_s()

    def _reserve_s(self) -> float:
        """For the repeats to come, each as long as the longest trial so far."""
        return self._ahead.rounds(self._slots.jobs) * self._longest_s


def gpu_seconds(spec: TrialSpec, seconds: float) -> float:
    """What a training that took so long took of GPUs, all of its devices together."""
    return 0.0 if "cpu" in spec.devices else seconds * len(spec.devices)


def _gpu_seconds_so_far(sweep: SweepContext, record: TrialRecord) -> float:
    """The same of a trial that was interrupted; 0 where a kill has left no word of it."""
    paths = sweep.paths.trial(record.number)
    if not record.attempts or not paths.spec.exists():
        return 0.0
    return gpu_seconds(read_spec(paths), record.attempts[-1].seconds)
