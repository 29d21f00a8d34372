"""Trials under way: started, answered, tried again, paused, stopped. The trainer does what a script says."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections import deque
from pathlib import Path
from typing import ClassVar

import pytest

import hpo.trials.scheduler
from hpo.config.sweep_config import RetryPolicy
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ConfigError, SweepError
from hpo.executors.inline import InlineExecutor
from hpo.executors.local import LocalExecutor
from hpo.paths import Home
from hpo.progress_view import Silent
from hpo.results.records import Attempt
from hpo.results.timeline import Stint
from hpo.trials.job import Job
from hpo.trials.observer import Unobserved
from hpo.trials.slots import Slots
from tests.hpo.books import Books
from tests.hpo.builders import INSPECTION, evaluation, make_config, scheduler
from tests.hpo.executors.driving import last_of, score
from trainers.host import fake
from trainers.host.in_turn import in_turn
from trainers.protocol.events import (
    PAUSED,
    Evaluation,
    Failed,
    Finding,
    Resumed,
    Scored,
    Step,
    Trained,
    TrialEvent,
    TrialResult,
)
from trainers.protocol.requests import STOPPED_BY
from trainers.protocol.trial_spec import TrialSpec

ROOT = Path(__file__).parents[3]
PATIENCE = RetryPolicy(retries=2, stall_minutes=30)


def step(index, seconds=0.0):
    return Step(index, index * 10, 0.5, 1e-3, seconds)


def scored(index, value=0.5, seconds=0.0):
    return dataclasses.replace(evaluation(index, (index + 1) / 5, value), seconds=seconds)


def result(*values, stopped_by="budget"):
    state = "pruned" if stopped_by == "pruner" else "complete"
    evaluations = [scored(index, value) for index, value in enumerate(values)]
    return TrialResult(state, max(values), {"f1_macro": max(values)}, 0, evaluations, stopped_by, 1.0)


class Script:
    """A worker: each attempt at a trial plays the next list of events; a callable among them is called.

    Told to stop or pause, an attempt ends as a trainer does, whatever the rest of its list says.
    """

    def __init__(self, *attempts, of=None):
        self.attempts = {number: deque(lists) for number, lists in (of or {0: attempts}).items()}
        self.specs: list[TrialSpec] = []
        self.packs: list[list[int]] = []
        """Numbers of the trials of each request."""

    def __call__(self, request):
        self.specs.extend(request.specs)
        self.packs.append([spec.number for spec in request.specs])
        return in_turn({spec.number: self._play(self.attempts[spec.number].popleft()) for spec in request.specs})

    def _play(self, items):
        evaluations = []
        for item in items:
            if callable(item):
                item()
                continue
            verdict = yield item
            if isinstance(item, Evaluation):
                evaluations.append(item)
            if verdict == "pause":
                yield PAUSED
            if verdict in ("stop", "finish"):
                values = [e.metrics["f1_macro"] for e in evaluations]
                yield (
                    result(*values, stopped_by=STOPPED_BY[verdict])
                    if values
                    else Failed("timeout", "stopped before its first evaluation")
                )


class Executor(InlineExecutor):
    """Notes every verdict, kill and start; a trial that has gone silent tells nothing until it is killed."""

    def __init__(self, worker):
        super().__init__(worker)
        self.numbers: dict[int, int] = {}
        """Request -> the number of its first trial."""
        self.verdicts: list[tuple[int, str]] = []
        self.kills: list[int] = []
        self.silent: set[int] = set()
        self.standing: dict[int, int | None] = {}
        """The trial at whose evaluation a request stands, where nobody has answered it."""

    def submit(self, request):
        request_id = super().submit(request)
        self.numbers[request_id] = request.specs[0].number
        return request_id

    def wait(self, timeout_s=None):
        if self._ready and self.numbers[self._ready[0][0]] in self.silent and not self._killed:
            self._ready.rotate(-1)
            return None
        message = super().wait(timeout_s)
        if message:
            request_id, event = message
            stands = isinstance(event, TrialEvent) and isinstance(event.report, Evaluation)
            self.standing[request_id] = event.trial if stands else None
        return message

    def reply(self, request_id, trial, verdict):
        self.verdicts.append((trial, verdict))
        if verdict == "go":
            assert self.standing[request_id] == trial, "a go that nobody waits for would answer the next evaluation"
        self.standing[request_id] = None
        super().reply(request_id, trial, verdict)

    def kill(self, request_id):
        self.kills.append(self.numbers[request_id])
        super().kill(request_id)


class Late(Executor):
    """A kill takes its time: it does not end anything as long as a test looks."""

    def kill(self, request_id):
        self.kills.append(self.numbers[request_id])


@pytest.fixture
def job(tmp_path):
    def make(number=0, attempts=(), **training):
        settings = {"batch_size": 64, "evaluations": 5, **training}
        home = Home(tmp_path / "home")
        config = make_config(tmp_path, training=settings)
        paths = home.sweep("sweep").trial(number)
        return Job(TrialSpecs(config, home, INSPECTION).spec(number, {}, paths), paths, 0, list(attempts))

    return make


@pytest.fixture
def clock(monkeypatch):
    """Time that only a script moves."""

    class Clock:
        now = 1000.0

        def move(self, seconds):
            self.now += seconds

        def moves(self, seconds):
            return lambda: self.move(seconds)

    clock = Clock()
    monkeypatch.setattr(hpo.trials.scheduler.time, "monotonic", lambda: clock.now)
    return clock


def run(executor, books, jobs=1, patience=PATIENCE, trial_minutes=None, view=None, pack=1):
    scheduler(executor, Slots(jobs, 1, trials_per_request=pack), patience, trial_minutes, view or Silent()).run(books)


def whole(*values):
    """A trial that is never disturbed."""
    events = [e for index, value in enumerate(values) for e in (step(index), scored(index, value))]
    return [*events, result(*values)]


# --- undisturbed ---------------------------------------------------------------------------------------


def test_a_trial_is_told_in_order_and_answered_once_an_evaluation(job):
    books, executor = Books([job()]), Executor(Script(whole(0.1, 0.2)))
    run(executor, books)
    assert books.told == [
        ("start", 0, 0), ("step", 0, 0), ("evaluated", 0, 0), ("step", 0, 1), ("evaluated", 0, 1),
        ("finished", 0, "complete"),
    ]  # fmt: skip
    assert executor.verdicts == [(0, "go"), (0, "go")]
    assert books.attempts == {0: []}
    assert executor.kills == []


def test_its_spec_is_on_disk_before_it_runs(job):
    given = job()
    seen = []

    def look():
        seen.append(given.paths.spec.read_text())

    run(Executor(Script([look, *whole(0.1)])), Books([given]))
    assert '"number": 0' in seen[0]


def test_slots_are_filled_and_freed(job):
    lengths = {0: 1, 1: 6, 2: 1, 3: 1, 4: 1}
    script = Script(of={number: [whole(*[0.5] * length)] for number, length in lengths.items()})
    books = Books([job(number) for number in lengths])
    run(Executor(script), books, jobs=2)
    assert [(n, slot) for what, n, slot in books.told if what == "start"] == [(0, 0), (1, 1), (2, 0), (3, 0), (4, 0)]
    assert set(books.results) == set(lengths)


def test_a_trial_that_is_tried_again_has_as_many_devices_as_before(job):
    """Its slot has more, for the trials that ask for them."""
    script = Script([Failed("crash", "once")], whole(0.1))
    slots = Slots(1, 1, gpus=2, devices_per_trial=2)
    scheduler(Executor(script), slots, PATIENCE).run(Books([job(devices=1)]))
    assert [len(spec.devices) for spec in script.specs] == [1, 1]


def test_the_books_verdict_reaches_the_trial(job):
    books, executor = Books([job()]), Executor(Script(whole(0.1, 0.2, 0.3)))
    books.verdicts[0, 1] = "stop"
    run(executor, books)
    assert executor.verdicts == [(0, "go"), (0, "stop")]
    assert (books.results[0].state, books.results[0].stopped_by) == ("pruned", "pruner")


def test_books_without_jobs_are_closed_at_once():
    books = Books([])
    run(Executor(Script()), books)
    assert books.told == []


def test_a_spent_budget_starts_nothing(job):
    books = Books([job()])
    books.spent = True
    run(Executor(Script()), books)
    assert books.told == []


def test_time_passes_for_the_view_while_nothing_happens(job):
    ticks = []

    class Counting(Silent):
        def tick(self):
            ticks.append(1)
            if len(ticks) == 3:
                executor.silent.clear()

    executor = Executor(Script(whole(0.1)))
    executor.silent.add(0)
    books = Books([job()])
    run(executor, books, view=Counting())
    assert len(ticks) == 3
    assert 0 in books.results


# --- failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["crash", "interrupted", "timeout"])
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_it_is_tried_again_so_often_and_then_given_up(job, cause, retries):
    fails = [step(0), scored(0, 0.4), Failed(cause, "why")]
    script = Script(*[fails] * (retries + 1))
    books = Books([job()])
    run(Executor(script), books, patience=RetryPolicy(retries, 30))
    assert len(script.specs) == retries + 1
    assert books.attempts[0] == [Attempt(cause, "why", 0.0, None, 0)] * retries
    given_up = books.results[0]
    assert (given_up.state, given_up.cause, given_up.message, given_up.stopped_by) == (
        "failed",
        cause,
        "why",
        "failure",
    )
    assert (given_up.value, given_up.best_index, given_up.metrics) == (None, 0, {"f1_macro": 0.4})
    assert [what for what, _ in books.of(0)].count("retrying") == retries


@pytest.mark.parametrize("cause", ["diverged"])
def test_what_would_only_happen_again_is_given_up_at_once(job, cause):
    books = Books([job()])
    run(Executor(Script([Failed(cause, "why")])), books)
    assert books.results[0].cause == cause
    assert books.attempts[0] == []


def test_every_attempt_is_observed_with_its_worker_and_its_end(job):
    class Observed(Unobserved):
        stints: ClassVar[list[Stint]] = []

        def attempted(self, stint):
            self.stints.append(stint)

    under_way = scheduler(Executor(Script([step(0), Failed("crash", "why")], whole(0.1, 0.2))), Slots(1, 1), PATIENCE)
    under_way._observer = Observed()
    repeat = dataclasses.replace(job(1), repeat=(7, 2))
    under_way.run(Books([job(0)]))
    assert [(s.trial, s.repeat, s.slot, s.workers, s.how) for s in Observed.stints] == [
        (0, None, 0, 1, "crash"), (0, None, 0, 1, "complete"),
    ]  # fmt: skip
    first, second = Observed.stints
    assert first.phase <= first.began <= first.ended <= second.began <= second.ended
    under_way._executor = Executor(Script(of={1: [whole(0.1)]}))
    under_way.run(Books([repeat]))
    assert (Observed.stints[2].trial, Observed.stints[2].repeat) == (7, 2)


def test_a_retry_that_succeeds_ends_as_if_nothing_had_been(job):
    books = Books([job()])
    run(Executor(Script([step(0), Failed("crash", "why")], whole(0.1, 0.2))), books)
    assert books.results[0] == result(0.1, 0.2)
    assert [a.cause for a in books.attempts[0]] == ["crash"]


def test_retries_are_counted_over_sessions(job):
    earlier = [Attempt("crash", "why", 1.0, None, 0), Attempt("interrupted", PAUSED.message, 1.0, None, 0)]
    script = Script(*[[Failed("crash", "again")]] * 2)
    books = Books([job(attempts=earlier)])
    run(Executor(script), books)
    assert len(script.specs) == 2
    assert [a.message for a in books.attempts[0]] == ["why", PAUSED.message, "again"]
    assert books.results[0].cause == "crash"


def test_its_best_evaluation_follows_from_the_metric_s_direction(job):
    given = job()
    given.spec = dataclasses.replace(given.spec, direction="minimize")
    books = Books([given])
    run(Executor(Script([scored(0, 0.4), scored(1, 0.2), scored(2, 0.3), Failed("diverged", "why")])), books)
    assert (books.results[0].best_index, books.results[0].metrics) == (1, {"f1_macro": 0.2})


def test_the_one_that_failed_holds_up_nobody(job):
    script = Script(of={0: [[step(0), Failed("diverged", "why")]], 1: [whole(*[0.5] * 4)], 2: [whole(0.5)]})
    books = Books([job(number) for number in range(3)])
    run(Executor(script), books, jobs=2)
    assert {n: r.state for n, r in books.results.items()} == {0: "failed", 1: "complete", 2: "complete"}


def test_unusable_data_ends_the_sweep(job):
    failed = Failed("data", "bad data", [Finding("train.jsonl:3", "no text")])
    books = Books([job()])
    with pytest.raises(ConfigError, match=r"train\.jsonl:3: no text"):
        run(Executor(Script([failed])), books)
    assert books.results == {}


@pytest.mark.parametrize("retries", [0, 2])
def test_a_full_disk_ends_the_sweep_and_no_trial(job, retries):
    failed = Failed("crash", "OSError: [Errno 28] No space left on device: '/x'")
    books = Books([job(7)])
    with pytest.raises(SweepError, match=r"trial 7: .*No space left on device.*make room, and the same command"):
        run(Executor(Script(of={7: [[scored(0), failed]]})), books, patience=RetryPolicy(retries, 30))
    assert books.results == {}
    assert ("retrying", 7, "crash") not in books.told


# --- memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fits_at", [0, 1, 2, 3])
def test_out_of_memory_halves_the_micro_batch_until_it_fits(job, fits_at):
    oom = [step(0), Failed("oom", "MemoryError: ")]
    script = Script(*[oom] * fits_at, whole(0.1))
    books = Books([job(micro_batch_size=8)])
    run(Executor(script), books, patience=RetryPolicy(0, 30))
    assert [spec.micro_batch_halvings for spec in script.specs] == list(range(fits_at + 1))
    assert books.attempts[0] == [Attempt("oom", "MemoryError: ", 0.0, None, n) for n in range(fits_at)]
    assert books.results[0].state == "complete"
    assert len({spec.fingerprint() for spec in script.specs}) == 1
    assert {spec.settings["batch_size"] for spec in script.specs} == {64}


def test_what_never_fits_is_given_up_after_three_halvings(job):
    script = Script(*[[Failed("oom", "MemoryError: ")]] * 4)
    books = Books([job(micro_batch_size=64)])
    run(Executor(script), books)
    assert [spec.micro_batch_halvings for spec in script.specs] == [0, 1, 2, 3]
    assert (books.results[0].cause, books.results[0].state) == ("oom", "failed")
    assert [a.micro_batch_halvings for a in books.attempts[0]] == [0, 1, 2]


def test_halvings_are_kept_by_later_retries(job):
    script = Script([Failed("oom", "m")], [Failed("crash", "c")], [Failed("oom", "m")], whole(0.1))
    books = Books([job()])
    run(Executor(script), books)
    assert [spec.micro_batch_halvings for spec in script.specs] == [0, 1, 1, 2]
    assert [(a.cause, a.micro_batch_halvings) for a in books.attempts[0]] == [("oom", 0), ("crash", 1), ("oom", 1)]


def test_a_session_goes_on_with_the_micro_batch_that_the_last_one_found(job):
    earlier = [Attempt("oom", "m", 1.0, None, 0), Attempt("interrupted", PAUSED.message, 1.0, None, 1)]
    script = Script(whole(0.1))
    books = Books([job(attempts=earlier)])
    run(Executor(script), books)
    assert [spec.micro_batch_halvings for spec in script.specs] == [1]
    assert books.results[0].state == "complete"


# --- going on from a checkpoint ------------------------------------------------------------------------


def test_what_came_before_a_checkpoint_is_told_again_and_judged_no_more(job):
    books, executor = Books([job()]), Executor(Script())
    first = [step(0), scored(0, 0.1), step(1), scored(1, 0.2), step(2), Failed("crash", "why")]
    second = [Resumed(7, 70, [scored(0, 0.1)]), scored(1, 0.25), result(0.1, 0.25)]
    executor._worker = Script(first, second)
    books.verdicts[0, 0] = "go"
    run(executor, books)
    assert books.of(0)[6:] == [
        ("retrying", "crash"), ("resumed", 7), ("evaluated", 0), ("evaluated", 1), ("finished", "complete"),
    ]  # fmt: skip
    assert executor.verdicts == [(0, "go")] * 3
    assert books.attempts[0] == [Attempt("crash", "why", 0.0, None, 0)]


def test_an_attempt_names_the_step_that_it_had_begun_from(job):
    script = Script(
        [scored(0, seconds=5.0), Failed("crash", "a")],
        [Resumed(7, 70, [scored(0)]), step(8, seconds=9.0), Failed("crash", "b")],
        [Failed("crash", "c")],
        [Failed("crash", "d")],
    )
    books = Books([job()])
    run(Executor(script), books, patience=RetryPolicy(3, 30))
    assert [(a.message, a.resumed_from) for a in books.attempts[0]] == [("a", None), ("b", 7), ("c", None)]
    assert [a.seconds for a in books.attempts[0]][:2] == [5.0, 9.0]
    assert books.results[0].message == "d"


def test_evaluations_that_are_repeated_take_the_place_of_the_first(job):
    script = Script(
        [scored(0, 0.1), scored(1, 0.2), scored(2, 0.9), Failed("crash", "why")],
        [Resumed(7, 70, [scored(0, 0.1)]), scored(1, 0.3), Failed("diverged", "why")],
    )
    books = Books([job()])
    run(Executor(script), books)
    assert [e.metrics["f1_macro"] for e in books.results[0].evaluations] == [0.1, 0.3]
    assert books.results[0].best_index == 1


def test_evaluations_of_an_earlier_session_are_part_of_the_result(job):
    script = Script([Resumed(7, 70, [scored(0, 0.1), scored(1, 0.8)]), scored(2, 0.3), Failed("diverged", "why")])
    books = Books([job()])
    run(Executor(script), books)
    assert [e.metrics["f1_macro"] for e in books.results[0].evaluations] == [0.1, 0.8, 0.3]
    assert books.results[0].best_index == 1


# --- hung ----------------------------------------------------------------------------------------------


def test_one_that_tells_nothing_for_too_long_is_killed_and_tried_again(job, clock):
    executor = Executor(Script([step(0), lambda: None, step(1)], whole(0.1)))
    given = job()

    class Slow(Silent):
        def tick(self):
            clock.move(40)
            if len(executor.kills) == 1:
                executor.silent.clear()

    executor.silent.add(0)
    books = Books([given])
    run(executor, books, patience=RetryPolicy(2, stall_minutes=1), view=Slow())
    assert executor.kills == [0]
    assert books.attempts[0] == [Attempt("timeout", "no progress for 1 min (trials.stall_minutes)", 0.0, None, 0)]
    assert books.results[0].state == "complete"


def test_one_that_hangs_each_time_is_given_up_as_timed_out(job, clock):
    executor = Executor(Script(*[[step(0)]] * 2))
    executor.silent.add(0)

    class Slow(Silent):
        def tick(self):
            clock.move(61)

    books = Books([job()])
    run(executor, books, patience=RetryPolicy(1, stall_minutes=1), view=Slow())
    assert executor.kills == [0, 0]
    assert books.results[0].cause == "timeout"
    assert books.results[0].message == "no progress for 1 min (trials.stall_minutes)"


def test_an_event_shows_that_it_lives(job, clock):
    slow = [item for index in range(5) for item in (clock.moves(50), step(index), clock.moves(50), scored(index))]
    executor = Executor(Script([*slow, result(0.5)]))
    books = Books([job()])
    run(executor, books, patience=RetryPolicy(0, stall_minutes=1))
    assert executor.kills == []
    assert books.results[0].state == "complete"


def test_nobody_is_hung_while_a_write_waits_for_its_server(job, clock):
    class Waiting(Books):
        def stepped(self, job, report):
            super().stepped(job, report)
            clock.move(61)

    executor = Executor(Script(of={n: [[step(0), step(1), step(2), result(0.5)]] for n in range(2)}))
    books = Waiting([job(0), job(1)])
    run(executor, books, jobs=2, patience=RetryPolicy(0, stall_minutes=1))
    assert executor.kills == []
    assert {n: r.state for n, r in books.results.items()} == {0: "complete", 1: "complete"}


def test_only_the_silent_one_is_killed(job, clock):
    def beat():
        clock.move(20)
        if executor.kills:
            executor.silent.clear()

    lively = [item for index in range(10) for item in (beat, step(index))]
    executor = Executor(Script(of={0: [[step(0)], whole(0.1)], 1: [[*lively, result(0.5)]]}))
    executor.silent.add(0)
    books = Books([job(0), job(1)])
    run(executor, books, jobs=2, patience=RetryPolicy(1, stall_minutes=1))
    assert executor.kills == [0]
    assert {n: r.state for n, r in books.results.items()} == {0: "complete", 1: "complete"}
    assert books.attempts[1] == []


def test_one_that_ends_by_itself_just_before_the_kill_keeps_its_result(job, clock):
    """The kill comes too late: the executor has its result already."""

    class Slow(Silent):
        ticks = 0

        def tick(self):
            clock.move(61)
            self.ticks += 1
            if self.ticks == 4:
                executor.silent.clear()

    executor = Late(Script([result(0.5)]))
    executor.silent.add(0)
    books = Books([job()])
    run(executor, books, patience=RetryPolicy(1, stall_minutes=1), view=Slow())
    assert executor.kills == [0]
    assert books.results[0] == result(0.5)


def test_a_hung_process_is_really_killed(job, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests/hpo/executors"), str(ROOT)]))
    given = job()
    model = dataclasses.replace(given.spec.workload.model, source="hangs_the_first_time")
    workload = dataclasses.replace(given.spec.workload, model=model)
    given.spec = dataclasses.replace(given.spec, workload=workload)
    executor = LocalExecutor(tmp_path / "host.log", "misbehaving")
    books = Books([given])
    try:
        assert last_of(executor, score("is_well")) == Scored({}, 0.0)  # a busy machine takes long to start a host
        run(executor, books, patience=RetryPolicy(1, stall_minutes=0.2 / 60))
        assert [(a.cause, a.message) for a in books.attempts[0]] == [
            ("timeout", "no progress for 0.00333333 min (trials.stall_minutes)")
        ]
        assert (books.results[0].cause, books.results[0].message) == ("diverged", "but lives")
        child = int((given.paths.dir / "pid").read_text().split()[0])
        assert not Path(f"/proc/{child}").exists()
    finally:
        executor.close()


# --- several trials in one request ---------------------------------------------------------------------


def test_a_slot_takes_as_many_trials_as_share_a_request(job):
    lengths = {0: 1, 1: 9, 2: 1, 3: 1, 4: 1}
    script = Script(of={number: [whole(*[0.5] * length)] for number, length in lengths.items()})
    books = Books([job(number) for number in lengths])
    run(Executor(script), books, jobs=2, pack=2)
    assert script.packs == [[0, 1], [2, 3], [4]]
    assert [(n, slot) for what, n, slot in books.told if what == "start"] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1)]
    assert {n: len(r.evaluations) for n, r in books.results.items()} == lengths


def test_each_verdict_goes_to_its_own_trial(job):
    books = Books([job(0), job(1)])
    books.verdicts[1, 0] = "stop"
    executor = Executor(Script(of={0: [whole(0.1, 0.2, 0.3)], 1: [whole(0.4, 0.5, 0.6)]}))
    run(executor, books, pack=2)
    assert executor.verdicts == [(0, "go"), (1, "stop"), (0, "go"), (0, "go")]
    assert {n: (r.state, r.value) for n, r in books.results.items()} == {0: ("complete", 0.3), 1: ("pruned", 0.4)}


def test_one_that_fails_is_tried_again_alone_when_its_slot_is_free(job):
    failing = [step(0), Failed("crash", "why")]
    script = Script(of={0: [failing, whole(0.1)], 1: [whole(0.2, 0.3)], 2: [whole(0.4)]})
    books = Books([job(0), job(1), job(2)])
    run(Executor(script), books, pack=2)
    assert script.packs == [[0, 1], [0], [2]]
    assert [a.message for a in books.attempts[0]] == ["why"]
    assert books.attempts[1] == []
    assert [n for what, n, _ in books.told if what == "finished"] == [1, 0, 2]


@pytest.mark.parametrize(("cause", "halvings"), [("crash", 0), ("oom", 1), ("interrupted", 0)])
def test_when_the_request_fails_each_that_had_not_ended_is_tried_again_alone(job, cause, halvings):
    """What kills the process is no trial's own report: it comes without a number."""

    class Dying(Executor):
        def wait(self, timeout_s=None):
            message = super().wait(timeout_s)
            if message == (1, TrialEvent(2, step(9))):
                self.close()
                return 1, Failed(cause, "why")
            return message

    attempts = {0: [whole(0.1)], 1: [[scored(0)] * 9, whole(0.2)], 2: [[step(0)] * 4 + [step(9)], whole(0.3)]}
    script = Script(of=attempts)
    books = Books([job(n) for n in range(3)])
    run(Dying(script), books, pack=3)
    assert script.packs == [[0, 1, 2], [1], [2]]
    assert [spec.micro_batch_halvings for spec in script.specs[3:]] == [halvings] * 2
    assert {n: [(a.cause, a.message) for a in books.attempts[n]] for n in range(3)} == {
        0: [], 1: [(cause, "why")], 2: [(cause, "why")],
    }  # fmt: skip
    assert {n: r.value for n, r in books.results.items()} == {0: 0.1, 1: 0.2, 2: 0.3}


def test_a_trainer_that_leaves_a_trial_without_an_end_has_crashed(job):
    def forgets(request):
        yield TrialEvent(0, result(0.5))
        yield Trained()

    books = Books([job(0), job(1)])
    run(Executor(forgets), books, patience=RetryPolicy(0, 30), pack=2)
    assert books.results[0].state == "complete"
    assert (books.results[1].cause, books.results[1].message) == ("crash", "the trainer ended without a result")


def test_a_request_is_hung_only_when_none_of_its_trials_makes_progress(job, clock):
    """One that is silent beside another that goes on is not: they share a process."""
    lively = [e for n in range(9) for e in (step(n), clock.moves(50))]
    executor = Executor(Script(of={0: [[*lively, result(0.5)]], 1: [[step(0), result(0.5)]]}))
    run(executor, Books([job(0), job(1)]), patience=RetryPolicy(2, stall_minutes=1), pack=2)
    assert executor.kills == []

    executor = Executor(Script(of={n: [[step(0)], whole(0.1)] for n in range(2)}))
    executor.silent.add(0)

    class Slow(Silent):
        def tick(self):
            if executor.kills:
                executor.silent.clear()
            else:
                clock.move(61)

    books = Books([job(0), job(1)])
    run(executor, books, patience=RetryPolicy(2, stall_minutes=1), view=Slow(), pack=2)
    assert executor.kills == [0]
    assert {n: r.state for n, r in books.results.items()} == {0: "complete", 1: "complete"}
    hung = "no progress for 1 min (trials.stall_minutes)"
    assert {books.attempts[n][0].message for n in range(2)} == {hung}


def test_a_spent_budget_spares_one_of_a_request_and_pauses_the_others(job):
    books = Books([job(0), job(1)])
    long = [e for index in range(4) for e in (step(index), scored(index))]
    executor = Executor(Script(of={0: [[scored(0), scored(1), spends(books), *long, result(0.5)]], 1: [long]}))
    run(executor, books, pack=2)
    assert ended(books) == {0: ("complete", "budget"), 1: "paused"}


def test_ctrl_c_pauses_all_of_a_request_and_those_that_wait_to_be_tried_again(job):
    long = [e for index in range(4) for e in (step(index), scored(index))]
    books = Books([job(n) for n in range(4)])
    executor = Executor(Script(of={0: [[Failed("crash", "why")]], 1: [[step(0), press, *long]], 2: [long]}))
    with pytest.raises(KeyboardInterrupt):
        run(executor, books, pack=3)
    assert sorted(n for what, n, _ in books.told if what == "paused") == [0, 1, 2]
    assert sorted(v for v in executor.verdicts if v[1] == "pause") == [(1, "pause"), (2, "pause")]
    assert books.results == {}


def test_a_wish_while_a_pack_is_put_together_keeps_all_of_it_for_later(job):
    books = Books([job(number) for number in range(3)])
    original = books.next_job
    books.next_job = lambda slot: (original(slot), press() if len(books.jobs) == 1 else None)[0]
    script = Script()
    with pytest.raises(KeyboardInterrupt):
        run(Executor(script), books, pack=3)
    assert script.packs == []
    assert books.told == [("start", 0, 0), ("start", 1, 0), ("paused", 0, None), ("paused", 1, None)]


def test_the_fake_trainer_trains_a_pack_as_it_trains_each_alone(job):
    packed, alone = Books([job(n) for n in range(4)]), Books([job(n) for n in range(4, 8)])
    run(Executor(fake.work), packed, jobs=2, pack=2)
    run(Executor(fake.work), alone, jobs=2)
    assert [packed.results[n] for n in range(4)] == [alone.results[n] for n in range(4, 8)]


# --- minutes of a trial --------------------------------------------------------------------------------


def test_a_trial_over_its_minutes_is_stopped_once_and_says_so(job):
    events = [step(0, 10), scored(0, 0.5, 50), step(1, 61), step(2, 70), step(3, 80)]
    books, executor = Books([job()]), Executor(Script(events))
    run(executor, books, trial_minutes=1)
    assert executor.verdicts == [(0, "go"), (0, "finish")]
    assert (books.results[0].state, books.results[0].stopped_by) == ("complete", "trial_minutes")


def test_one_that_reaches_its_minutes_at_an_evaluation_gets_one_verdict_there(job):
    events = [step(0, 10), scored(0, 0.5, 61), step(1, 70), step(2, 80)]
    books, executor = Books([job()]), Executor(Script(events))
    run(executor, books, trial_minutes=1)
    assert executor.verdicts == [(0, "go"), (0, "finish")]
    assert books.results[0].stopped_by == "trial_minutes"


def test_an_evaluation_that_takes_the_unasked_stop_is_not_answered_as_well(job):
    events = [step(0, 10), scored(0, 0.5, 20), step(1, 61), scored(1, 0.6, 70), step(2, 80)]
    books, executor = Books([job()]), Executor(Script(events))
    run(executor, books, trial_minutes=1)
    assert executor.verdicts == [(0, "go"), (0, "finish")]
    assert books.of(0)[-2:] == [("evaluated", 1), ("finished", "complete")]
    assert books.results[0].stopped_by == "trial_minutes"


def test_one_without_an_evaluation_by_then_has_failed_and_is_not_tried_again(job):
    books, script = Books([job()]), Script([step(0, 61), step(1, 62), step(2, 63)])
    run(Executor(script), books, trial_minutes=1)
    failed = books.results[0]
    assert (failed.state, failed.cause) == ("failed", "timeout")
    assert failed.message == "trial_minutes ended before its first evaluation"
    assert len(script.specs) == 1


def test_its_result_counts_when_it_ends_before_it_hears_of_it(job):
    books, executor = Books([job()]), Executor(Script([scored(0, 0.5, 10), step(1, 61), result(0.5)]))
    run(executor, books, trial_minutes=1)
    assert executor.verdicts[-1] == (0, "finish")
    assert (books.results[0].state, books.results[0].stopped_by) == ("complete", "budget")


def test_a_crash_after_it_was_stopped_is_tried_again_and_stopped_again(job):
    books = Books([job()])
    executor = Executor(
        Script(
            [scored(0, 0.5, 10), step(1, 61), Failed("crash", "why")],
            [Resumed(1, 10, [scored(0, 0.5)]), scored(1, 0.6), step(2, 62), step(3, 63)],
        )
    )
    run(executor, books, trial_minutes=1)
    assert books.results[0].stopped_by == "trial_minutes"
    assert executor.verdicts == [(0, "go"), (0, "finish"), (0, "finish")]


# --- a spent budget ------------------------------------------------------------------------------------


def ended(books):
    """How each trial ended in this session."""
    paused = {number: "paused" for what, number, _ in books.told if what == "paused"}
    return {**paused, **{number: (r.state, r.stopped_by) for number, r in books.results.items()}}


def spends(books):
    def spend():
        books.spent = True

    return spend


def test_a_spent_budget_pauses_all_but_the_one_that_is_spared(job):
    books = Books([job(number) for number in range(4)])
    long = [e for index in range(4) for e in (step(index), scored(index))]
    executor = Executor(
        Script(
            of={
                0: [[*long, result(0.5)]],
                1: [[scored(0), scored(1), spends(books), scored(2), *long[6:], result(0.5)]],
                2: [[*long, result(0.5)]],
            }
        )
    )
    run(executor, books, jobs=3)
    assert ended(books) == {0: "paused", 1: ("complete", "budget"), 2: "paused"}
    assert sorted(v for v in executor.verdicts if v[1] != "go") == [(0, "pause"), (2, "pause")]
    assert [what for what, n, _ in books.told if n == 3] == []


def test_with_a_champion_already_nobody_is_spared(job):
    books = Books([job(number) for number in range(2)])
    books.best_one_is_spared = False
    long = [e for index in range(4) for e in (step(index), scored(index))]
    executor = Executor(Script(of={0: [[scored(0), spends(books), *long]], 1: [[scored(0), *long]]}))
    run(executor, books, jobs=2)
    assert ended(books) == {0: "paused", 1: "paused"}


def test_one_that_was_told_to_pause_does_not_win_the_mercy_of_the_one_that_runs_on(job):
    """It makes another evaluation before it hears of that: it is the furthest then, and pauses all the same."""
    books = Books([job(0), job(1)])
    ahead = [scored(0), step(1), spends(books), step(2), *[step(n) for n in range(3, 9)], scored(1), result(0.5)]
    executor = Executor(Script(of={0: [ahead], 1: [[scored(0), step(1), scored(1), scored(2), step(2)]]}))
    run(executor, books, jobs=2)
    assert ended(books) == {0: ("complete", "budget"), 1: "paused"}
    assert all(offered == [0] for offered in books.offered[1:])


def test_a_trial_is_paused_before_its_first_evaluation_too(job):
    books = Books([job(0), job(1)])
    executor = Executor(Script(of={0: [[scored(0), spends(books), step(1), result(0.5)]], 1: [[step(0)] * 9]}))
    run(executor, books, jobs=2)
    assert ended(books) == {0: ("complete", "budget"), 1: "paused"}
    assert [(a.cause, a.message) for a in books.attempts[1]] == [("interrupted", PAUSED.message)]


def test_a_crash_on_a_spent_budget_is_kept_for_a_later_session(job):
    books = Books([job(0), job(1)])
    fails = [scored(0), Failed("crash", "why")]
    executor = Executor(Script(of={0: [[scored(0), spends(books), step(1), result(0.5)]], 1: [fails]}))
    run(executor, books, jobs=2)
    assert ended(books) == {0: ("complete", "budget"), 1: "paused"}
    assert [a.cause for a in books.attempts[1]] == ["crash"]


def test_what_the_pruner_stopped_as_the_budget_ended_was_pruned(job):
    books = Books([job(0), job(1)])
    books.verdicts[1, 0], books.best_one_is_spared = "stop", False
    executor = Executor(Script(of={0: [[step(0), step(1), step(2)]], 1: [[scored(0), step(1)]]}))
    reply = executor.reply

    def spend_then(request_id, trial, verdict):
        books.spent = books.spent or verdict == "stop"
        reply(request_id, trial, verdict)

    executor.reply = spend_then
    run(executor, books, jobs=2)
    assert ended(books) == {0: "paused", 1: ("pruned", "pruner")}


# --- Ctrl-C --------------------------------------------------------------------------------------------


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_ctrl_c_pauses_all_and_interrupts_when_they_have_paused(job):
    books = Books([job(number) for number in range(4)])
    long = [e for index in range(4) for e in (step(index), scored(index))]
    script = Script(of={0: [[*long, result(0.5)]], 1: [[step(0), press, *long]], 2: [[*long, result(0.5)]]})
    said = []

    class Telling(Silent):
        def say(self, text):
            said.append(text)

    executor = Executor(script)
    with pytest.raises(KeyboardInterrupt):
        run(executor, books, jobs=3, view=Telling())
    assert books.results == {}
    assert sorted(n for what, n, _ in books.told if what == "paused") == [0, 1, 2]
    assert books.attempts == {n: [Attempt("interrupted", PAUSED.message, 0.0, None, 0)] for n in range(3)}
    assert [verdict for _, verdict in executor.verdicts].count("pause") == 3
    assert {n for what, n, _ in books.told if what == "start"} == {0, 1, 2}
    assert said == ["stopping: trials write their checkpoints; press Ctrl-C again to stop immediately"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_paused_sweep_goes_on_where_it_was(job, number):
    """The real order of things with the fake trainer: paused, and on from its checkpoint."""
    undisturbed = Books([job(1)])
    run(Executor(fake.work), undisturbed)
    books = Books([job(0)])
    executor = Executor(fake.work)

    def verdict(told, original=books.verdict):
        if told.evaluations[-1].index == 1:
            os.kill(os.getpid(), number)
        return original(told)

    books.verdict = verdict
    with pytest.raises(KeyboardInterrupt):
        run(executor, books)
    assert executor.verdicts == [(0, "go"), (0, "go"), (0, "pause")]
    again = Books([job(0, attempts=books.attempts[0])])
    run(Executor(fake.work), again)
    assert again.of(0)[:4] == [("start", 0), ("resumed", 1), ("evaluated", 0), ("evaluated", 1)]
    assert again.results[0] == undisturbed.results[1]


def test_the_second_interrupts_at_once(job):
    books = Books([job()])
    with pytest.raises(KeyboardInterrupt):
        run(Executor(Script([step(0), press, press, *whole(0.1)])), books)
    assert books.of(0) == [("start", 0), ("step", 0)]


def test_one_that_ends_while_it_is_to_pause_is_finished(job):
    books = Books([job()])
    with pytest.raises(KeyboardInterrupt):
        run(Executor(Script([step(0), press, result(0.5)])), books)
    assert books.results[0] == result(0.5)
    assert ("paused", 0, None) not in books.told


def test_nothing_starts_after_the_wish(job):
    """Not when a slot is free, and not again when a trial has just failed."""
    script = Script(of={0: [[step(0), press, Failed("crash", "why")]]})
    books = Books([job(0), job(1)])
    with pytest.raises(KeyboardInterrupt):
        run(Executor(script), books)
    assert len(script.specs) == 1
    assert books.of(1) == []
    assert [a.message for a in books.attempts[0]] == ["why"]
    assert books.of(0)[-1] == ("paused", None)


def test_a_wish_while_the_books_look_for_a_trial_keeps_it_for_later(job):
    books = Books([job(number) for number in range(3)])
    original = books.next_job
    books.next_job = lambda slot: press() or original(slot)
    script = Script()
    with pytest.raises(KeyboardInterrupt):
        run(Executor(script), books, jobs=3)
    assert script.specs == []
    assert books.told == [("start", 0, 0), ("paused", 0, None)]


def test_an_evaluation_read_after_the_wish_gets_the_pause_and_nothing_else(job):
    books, executor = Books([job()]), Executor(Script([step(0), press, scored(0), step(1)]))
    with pytest.raises(KeyboardInterrupt):
        run(executor, books)
    assert executor.verdicts == [(0, "pause")]
    assert books.of(0)[-2:] == [("evaluated", 0), ("paused", None)]


@pytest.mark.parametrize(
    ("failed", "ends"),
    [
        (Failed("diverged", "loss is nan"), "finished"),
        (Failed("crash", "why"), "paused"),
        (Failed("interrupted", "the trial host ended unexpectedly"), "paused"),
        (Failed("oom", "MemoryError: "), "paused"),
        (Failed("crash", "OSError: [Errno 28] No space left on device"), "paused"),
    ],
)
def test_one_that_fails_while_it_is_to_pause_is_kept_where_another_try_is_worth_it(job, failed, ends):
    books = Books([job()])
    with pytest.raises(KeyboardInterrupt):
        run(Executor(Script([step(0), press, failed])), books)
    assert books.of(0)[-1][0] == ends


def test_one_that_does_not_pause_in_time_is_killed_and_that_costs_no_retry(job, clock):
    executor = Executor(Script([step(0), press, step(1), step(2)]))

    class Slow(Silent):
        def tick(self):
            clock.move(50)

    def goes_silent(told, event):
        if event.step == 1:
            executor.silent.add(0)

    books = Books([job()])
    books.stepped = goes_silent
    # It hears of the pause only when it is too late.
    executor.reply = lambda request_id, trial, verdict: executor.verdicts.append((trial, verdict))
    with pytest.raises(KeyboardInterrupt):
        run(executor, books, patience=RetryPolicy(0, stall_minutes=1), view=Slow())
    assert executor.verdicts == [(0, "pause")]
    assert executor.kills == [0]
    assert books.of(0)[-1] == ("paused", None)
    again = Books([job(attempts=books.attempts[0])])
    script = Script([Failed("crash", "why")], whole(0.1))
    run(Executor(script), again, patience=RetryPolicy(1, 30))
    assert again.results[0].state == "complete"


def test_it_is_killed_once_however_long_that_takes(job, clock):
    executor = Late(Script([step(0), press, step(1)]))
    executor.reply = lambda request_id, trial, verdict: executor.silent.add(0)

    class Slow(Silent):
        ticks = 0

        def tick(self):
            clock.move(50)
            self.ticks += 1
            if self.ticks == 8:
                InlineExecutor.kill(executor, 1)

    books = Books([job()])
    with pytest.raises(KeyboardInterrupt):
        run(executor, books, view=Slow())
    assert executor.kills == [0]
    assert books.of(0)[-1] == ("paused", None)


@pytest.mark.parametrize("pauses", [1, 5])
def test_pauses_cost_no_retry(job, pauses):
    attempts = []
    for _ in range(pauses):
        books = Books([job(attempts=attempts)])
        with pytest.raises(KeyboardInterrupt):
            run(Executor(Script([step(0), press, step(1), step(2)])), books, patience=RetryPolicy(0, 30))
        attempts = books.attempts[0]
    assert len(attempts) == pauses
    books = Books([job(attempts=attempts)])
    run(Executor(Script(whole(0.1))), books, patience=RetryPolicy(0, 30))
    assert books.results[0].state == "complete"


def test_a_wish_after_the_last_trial_still_interrupts(job):
    books = Books([job()])
    original = books.finished
    books.finished = lambda told, ended: (original(told, ended), press())
    with pytest.raises(KeyboardInterrupt):
        run(Executor(Script(whole(0.1))), books)
    assert books.results[0].state == "complete"


def test_handlers_are_as_before_afterwards(job):
    before = signal.getsignal(signal.SIGINT)
    run(Executor(Script(whole(0.1))), Books([job()]))
    assert signal.getsignal(signal.SIGINT) == before
