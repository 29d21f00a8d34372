"""Runs the nights of one file: each step once and in its order, continued where a kill has left it."""

from __future__ import annotations

import datetime
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpo.errors import HpoError, Interrupted, SweepError
from hpo.nights.agenda import Due, agenda, has_result, is_settled
from hpo.nights.night import Night, night_at
from hpo.nights.record import NightRecord, Step, StepName
from hpo.nights.steps import AFTER, WORK, Frame, Outcome, Steps, Tonight
from hpo.nights.zone import window_end

NIGHTS_READ_FOR_ONE_KEPT = 2
"""Earlier nights that steps are given, for each that is kept: in some nights nothing had changed."""


@dataclass(frozen=True)
class Failure:
    """Why a night failed, and the exit code that says so."""

    reason: str
    exit_code: int


@dataclass(frozen=True)
class Ran:
    """A night that a call worked on, as it ended."""

    record: NightRecord
    failure: Failure | None = None
    """What went wrong in this call."""


@dataclass(frozen=True)
class Engine:
    """Runs what is due of the nights of one name."""

    frame: Frame
    steps: Steps

    def run(self) -> list[Ran]:
        """Run, continue or close the nights that are due; the caller holds their lock.

        A record that is damaged fails tonight's run. Raises its `SweepError` where nobody has to hear of that (see
        `refuse`), and lets pass what stops the process (`Interrupted`).
        """
        frame, cutoff, until = self.frame, self.frame.nightly.cutoff_time, self.frame.config.budget.until
        now, tonight = self._tonight()

        def ends(night: Night) -> datetime.datetime:
            return window_end(night, until, cutoff, frame.zone)

        since = tonight.date - datetime.timedelta(days=NIGHTS_READ_FOR_ONE_KEPT * frame.nightly.keep.nights)
        try:
            known = {record.night: record for record in frame.files.all(since)}
        except SweepError as error:
            if ran := self._refuse(Failure(self._damaged(error), error.exit_code)):
                return ran
            raise
        done = []
        for due in agenda(list(known.values()), tonight, frame.nightly.missed, ends, now, always=frame.always):
            earlier = [known[night] for night in sorted(known) if night < due.night]
            done.append(self._do(due, known.get(due.night), earlier))
            known[due.night] = done[-1].record
        if not done:
            self._idle()
        return done

    def refuse(self, error: HpoError) -> list[Ran]:
        """Fail tonight's run, because the file is wrong: whoever waits for it hears of it.

        Returns nothing where it has ended already, has a result, or has failed for this reason before: then it stays as
        it is. The next call with a file that is right continues, and closes what is due of earlier nights.
        """
        return self._refuse(Failure(f"the file is wrong: {error}", error.exit_code))

    def _refuse(self, failure: Failure) -> list[Ran]:
        """The same for any failure that comes before the first step."""
        night = self._tonight()[1]
        try:
            known = self.frame.files.read(night)
        except SweepError as error:
            return [self._without_record(night, Failure(self._damaged(error), error.exit_code))]
        if known and (
            known.state not in ("running", "failed")
            or has_result(known)
            or (is_settled(known) and known.reason == failure.reason)
        ):
            self._idle()
            return []
        record = _begun(known or self._new(night), self._time(), begins_again=False)
        tonight = Tonight(self.frame, record, [], self.frame.now())
        return [self._after(*self._failed(tonight, failure))]

    def _without_record(self, night: Night, failure: Failure) -> Ran:
        """A night that fails because its own record is damaged. The file stays as it is, for a person to look at; the
        outbox knows who has heard of it."""
        record = replace(self._new(night), state="failed", reason=failure.reason, ended=self._time())
        self.frame.say(f"{night} has failed: {failure.reason}")
        if isinstance(sent := self._try(Tonight(self.frame, record, [], self.frame.now()), "signal"), Failure):
            self.frame.say(sent.reason)
        return Ran(record, failure)

    def _damaged(self, error: SweepError) -> str:
        """Why no night runs."""
        return f"{error}; until then no night of {self.frame.config.name!r} runs, and hpo doctor names each such file"

    def _tonight(self) -> tuple[datetime.datetime, Night]:
        """The time, and the night that this call is for."""
        frame = self.frame
        night = night_at(frame.config.name, frame.called, frame.zone, frame.nightly.cutoff_time)
        return frame.now().astimezone(frame.zone), night

    def _new(self, night: Night) -> NightRecord:
        file = str(self.frame.config.file.absolute())
        return NightRecord(night.name, night.date.isoformat(), str(self.frame.zone), file)

    def _do(self, due: Due, known: NightRecord | None, earlier: Sequence[NightRecord]) -> Ran:
        tonight = Tonight(self.frame, known or self._new(due.night), earlier, self.frame.now())
        if due.what == "close":
            return self._close(tonight, due)
        if due.what == "finish":
            return self._after(tonight, None)
        return self._run(tonight)

    def _idle(self) -> None:
        for line in self.steps.idle(self.frame):
            self.frame.say(line)

    def _close(self, tonight: Tonight, due: Due) -> Ran:
        """End a night as missed, and tell it. One that no call came to is written down with its report: killed before
        that, it is closed once more."""
        record = replace(tonight.record, state="missed", reason=due.why, ended=self._time())
        failure = self._unwritten(record) if record.began or not due.is_reported else None
        if not due.is_reported:
            return Ran(record, failure)
        self.frame.say(f"{due.night} is missed: {due.why}")
        return self._after(_with(tonight, record), failure)

    def _run(self, tonight: Tonight) -> Ran:
        before, was_failed = tonight.record, tonight.record.state == "failed"
        begins_again = self._begins_again(tonight)
        tonight = _with(tonight, _begun(before, self._time(), begins_again=begins_again))
        if (failure := self._unwritten(tonight.record)) is not None:
            return self._after(*self._failed(tonight, failure))
        self.frame.say(f"{tonight.night}: {_how(before, begins_again=begins_again)}")
        for line in self.steps.started(tonight) if not was_failed else ():
            self.frame.say(line)
        for name in WORK:
            if tonight.record.step(name) is not None:
                continue
            tonight, failure = self._work(tonight, name)
            if tonight.record.is_over:
                break
        if failure and is_settled(before) and before.reason == failure.reason:  # whoever waits for it knows that
            self._unwritten(before)
            self._idle()
            return Ran(before, failure)
        return self._after(tonight, failure)

    def _begins_again(self, tonight: Tonight) -> bool:
        """Whether rows are read again: a person wants the sweep of a night that was skipped, or it failed without a
        result, and nothing was decided about its rows or there are others now."""
        record = tonight.record
        if record.state != "failed" or has_result(record):
            return record.state == "skipped"
        return record.step("decide") is None or self.steps.is_outdated(tonight)

    def _work(self, tonight: Tonight, name: StepName) -> tuple[Tonight, Failure | None]:
        """One step, written down together with the end of the night where it is its last."""
        began, found = self._time(), self._try(tonight, name)
        if isinstance(found, Failure):
            return self._failed(tonight, found)
        record = tonight.record.with_step(self._step(name, began, found))
        state = found.ends or ("complete" if name == WORK[-1] else None)
        if state is not None:
            record = replace(record, state=state, reason=found.said if found.ends else "", ended=self._time())
        if (unwritten := self._unwritten(record)) is not None:
            return self._failed(tonight, unwritten)
        return _with(tonight, record), Failure(found.said, HpoError.exit_code) if state == "failed" else None

    def _failed(self, tonight: Tonight, failure: Failure) -> tuple[Tonight, Failure]:
        """A night that has failed. Where that cannot be written down, whoever waits hears of it all the same, and the
        next call continues."""
        self.frame.say(f"{tonight.night} has failed: {failure.reason}")
        record = replace(tonight.record, state="failed", reason=failure.reason, ended=self._time())
        if (unwritten := self._unwritten(record)) is not None:
            self.frame.say(unwritten.reason)
        return _with(tonight, record), failure

    def _after(self, tonight: Tonight, failure: Failure | None) -> Ran:
        """The report and the signals. One that fails does not keep the other one from being tried.

        Signals that failed are not written down as a step: the next call tries them again.
        """
        for name in AFTER:
            if tonight.record.step(name) is not None:
                continue
            began, found = self._time(), self._try(tonight, name)
            if isinstance(found, Failure):
                self.frame.say(found.reason)
                failure = failure or found
                if name == "signal":
                    break
                found = Outcome(f"failed: {found.reason}", {"failed": True})
            tonight = _with(tonight, tonight.record.with_step(self._step(name, began, found)))
            unwritten = self._unwritten(tonight.record)
            failure = failure or unwritten
        return Ran(tonight.record, failure)

    def _try(self, tonight: Tonight, name: StepName) -> Outcome | Failure:
        """What came of a step. Whatever goes wrong, it must not go unsaid: nobody watches a night."""
        try:
            outcome = self.steps.act(name)(tonight)
        except Interrupted:
            raise
        except HpoError as error:
            return Failure(f"{name}: {error}", error.exit_code)
        except OSError as error:  # a full disk, say
            return Failure(f"{name}: {error}", SweepError.exit_code)
        except Exception as error:  # noqa: BLE001  # of ours: the night says so, and the others run
            where = self._traceback(tonight.night, error)
            return Failure(f"{name}: unexpected {type(error).__name__}: {error} ({where})", SweepError.exit_code)
        self.frame.say(f"{name}: {outcome.said}")
        return outcome

    def _step(self, name: StepName, began: str, outcome: Outcome) -> Step:
        return Step(name, began, self._time(), outcome.said, outcome.facts)

    def _traceback(self, night: Night, error: Exception) -> str:
        """Where it can be read."""
        path = self.frame.files.failure(night)
        try:
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError as full:
            return f"its traceback cannot be written: {full}"
        return f"see {path}"

    def _unwritten(self, record: NightRecord) -> Failure | None:
        """Why a record could not be written down, on a full disk say; None where it was."""
        try:
            self.frame.files.write(record)
        except OSError as error:
            return Failure(f"the record of the night cannot be written: {error}", SweepError.exit_code)
        return None

    def _time(self) -> str:
        return self.frame.now().astimezone(self.frame.zone).isoformat(timespec="seconds")


def _with(tonight: Tonight, record: NightRecord) -> Tonight:
    return replace(tonight, record=record)


def _how(record: NightRecord, *, begins_again: bool) -> str:
    if begins_again:
        return "begins again, with the file and the rows as they are now"
    return "continues" if record.began else "begins"


def _begun(record: NightRecord, now: str, *, begins_again: bool) -> NightRecord:
    """The record of a night that runs. One that failed is reported again at its end."""
    steps = [] if begins_again else [step for step in record.steps if step.name not in AFTER]
    began = now if begins_again or not record.began else record.began
    return replace(record, state="running", began=began, ended="", reason="", steps=steps)
