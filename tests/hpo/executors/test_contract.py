"""The rules of `hpo/executors/base.py`, held for every executor."""

import os
import time
from pathlib import Path

import pytest

from hpo.executors.inline import InlineExecutor
from tests.hpo.executors import misbehaving
from tests.hpo.executors.driving import (
    INSPECTION,
    QUIET_S,
    ends_of,
    last_of,
    next_event,
    pack,
    packed,
    reports_of,
    run_to_end,
    score,
    trial,
    until,
    workload,
)
from tests.processes import children_of
from trainers.host import fake
from trainers.protocol.events import (
    PAUSED,
    TERMINAL,
    Evaluation,
    Failed,
    Loaded,
    PreparedData,
    Resumed,
    Scored,
    Step,
    Trained,
    TrialEvent,
    TrialResult,
)
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Export, Import, Inspect, Load


def test_submit_returns_at_once(start, tmp_path):
    executor = start(misbehaving)
    began = time.monotonic()
    ids = {executor.submit(trial(tmp_path / str(n), n, "sleeps")) for n in range(3)}
    assert time.monotonic() - began < 5
    assert len(ids) == 3
    executor.close()


def test_each_request_has_its_own_stream(start, tmp_path):
    requests = [trial(tmp_path / str(n), n, learning_rate=rate) for n, rate in enumerate([1e-3, 1e-2])]
    first, second = (reports_of(events, n) for n, events in enumerate(run_to_end(start(), *requests)))
    assert first[-1].evaluations == [event for event in first if isinstance(event, Evaluation)]
    assert second[-1].evaluations == [event for event in second if isinstance(event, Evaluation)]
    assert first[-1].value > second[-1].value  # the fake's peak is at 1e-3


def test_all_executors_give_the_same_events(start, tmp_path):
    here, there = trial(tmp_path / "0"), trial(tmp_path / "1")
    assert run_to_end(start(), here) == run_to_end(InlineExecutor(fake.work), there)


# --- rule 2: order, and one terminal event -------------------------------------------------------------


def test_events_of_a_request_come_in_order_and_end_with_the_terminal_one(start, tmp_path):
    executor = start()
    [events] = run_to_end(executor, trial(tmp_path / "0", 7))
    assert events[-1] == Trained()
    assert {event.trial for event in events[:-1]} == {7}
    reports = reports_of(events, 7)
    assert [type(report) for report in reports] == [Step, Evaluation] * 5 + [TrialResult]
    assert [report.index for report in reports if isinstance(report, Evaluation)] == list(range(5))
    assert executor.wait(timeout_s=QUIET_S) is None


@pytest.mark.parametrize("kind", ["is_well", "goes_on_after_its_end"])
def test_nothing_follows_the_terminal_event(start, kind):
    executor = start(misbehaving)
    assert last_of(executor, score(kind)) == Scored({}, 0.0)
    assert executor.wait(timeout_s=QUIET_S) is None


def test_waiting_without_a_request_gives_nothing(start):
    assert start().wait(timeout_s=0.01) is None


@pytest.mark.parametrize(
    ("request_of", "answer"),
    [
        (lambda folder: Inspect(workload(train=str(folder))), PreparedData),
        (lambda folder: Import(), Loaded),
        (lambda folder: Load(workload(), INSPECTION), Loaded),
        (lambda folder: trial(folder / "0", learning_rate=0.9), Failed),
        (lambda folder: Export(trial(folder / "0").spec, INSPECTION, ["fp32"], str(folder)), Failed),
    ],
)
def test_every_kind_of_request_has_an_answer(start, tmp_path, request_of, answer):
    assert isinstance(last_of(start(), request_of(tmp_path)), answer)


def test_findings_arrive_whole(start, tmp_path):
    failed = last_of(start(), Inspect(workload(train=str(tmp_path / "gone"))))
    assert failed.cause == "data"
    assert [(finding.where, finding.found) for finding in failed.findings] == [(str(tmp_path / "gone"), "is not there")]


# --- rule 3: an evaluation waits for its verdict -------------------------------------------------------


def test_a_request_stands_still_at_an_evaluation_until_the_reply(start, tmp_path):
    executor = start()
    request_id = executor.submit(trial(tmp_path / "0"))
    until(executor, Evaluation)
    assert executor.wait(timeout_s=QUIET_S) is None
    executor.reply(request_id, 0, "go")
    assert next_event(executor)[0] == request_id


def test_one_that_stands_still_holds_nobody_up(start, tmp_path):
    executor = start()
    standing = executor.submit(trial(tmp_path / "0"))
    until(executor, Evaluation)
    assert isinstance(last_of(executor, trial(tmp_path / "1", 1)), TrialResult)
    executor.reply(standing, 0, "stop")
    assert next_event(executor)[0] == standing


def test_the_verdict_reaches_the_trainer(start, tmp_path):
    executor = start()
    [stopped] = run_to_end(executor, trial(tmp_path / "0"), verdict="stop")
    assert reports_of(stopped)[-1].state == "pruned"
    assert len(reports_of(stopped)[-1].evaluations) == 1
    assert last_of(executor, trial(tmp_path / "1")).state == "complete"


# --- rule 4: verdicts that nobody waits for ------------------------------------------------------------

UNASKED = [("stop", Scored), ("pause", Failed)]


@pytest.mark.parametrize(("verdict", "ends_with"), UNASKED)
def test_an_unasked_verdict_is_taken_at_the_next_step(start, tmp_path, verdict, ends_with):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="steps"))
    for _ in range(3):
        until(executor, Step)
    executor.reply(request_id, 0, verdict)
    [events] = ends_of(executor, request_id)
    assert isinstance(events[-1], ends_with)
    assert {type(event.report) for event in events[:-1]} <= {Step}
    assert events[-1] == PAUSED or list(events[-1].metrics) == ["stop"]


@pytest.mark.parametrize(("verdict", "end"), [("stop", Scored({"stop": 0.0}, 0.0)), ("pause", PAUSED)])
def test_an_unasked_verdict_is_taken_at_the_next_evaluation_and_no_reply_is_needed(start, tmp_path, verdict, end):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="evaluates"))
    executor.reply(request_id, 0, verdict)
    (tmp_path / "0" / "begin").touch()
    assert ends_of(executor, request_id, verdict=None) == [[misbehaving.evaluation(0), end]]


@pytest.mark.parametrize(("verdict", "end"), [("stop", Scored({"stop": 0.0}, 0.0)), ("pause", PAUSED)])
def test_it_is_the_verdict_of_a_request_that_stands_at_an_evaluation(start, tmp_path, verdict, end):
    executor = start(misbehaving)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "begin").touch()
    request_id = executor.submit(trial(tmp_path / "0", source="evaluates"))
    until(executor, Evaluation)
    executor.reply(request_id, 0, verdict)
    assert ends_of(executor, request_id, verdict=None) == [[end]]


@pytest.mark.parametrize(("verdict", "end"), [("stop", Scored({"stop": 1.0}, 0.0)), ("pause", PAUSED)])
def test_after_a_reply_it_is_for_the_next_evaluation(start, tmp_path, verdict, end):
    executor = start(misbehaving)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "begin").touch()
    request_id = executor.submit(trial(tmp_path / "0", source="evaluates"))
    until(executor, Evaluation)
    executor.reply(request_id, 0, "go")
    executor.reply(request_id, 0, verdict)
    assert ends_of(executor, request_id, verdict=None) == [[misbehaving.evaluation(1), end]]


def test_of_two_unasked_verdicts_the_first_is_taken_first(start, tmp_path):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="evaluates"))
    for verdict in ("go", "go", "stop", "pause"):
        executor.reply(request_id, 0, verdict)
    (tmp_path / "0" / "begin").touch()
    [events] = ends_of(executor, request_id, verdict=None)
    assert events == [*map(misbehaving.evaluation, range(3)), Scored({"stop": 2.0}, 0.0)]


@pytest.mark.parametrize("verdict", ["stop", "pause"])
def test_a_verdict_after_the_end_is_for_nobody(start, tmp_path, verdict):
    executor = start(misbehaving)
    request_id = executor.submit(score("is_well"))
    assert next_event(executor) == (request_id, Scored({}, 0.0))
    executor.reply(request_id, 0, verdict)
    assert executor.wait(timeout_s=QUIET_S) is None
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "begin").touch()
    assert last_of(executor, trial(tmp_path / "1", source="evaluates")) == Scored({"go": 5.0}, 0.0)


def test_only_the_request_it_names_takes_a_verdict(start, tmp_path):
    executor = start(misbehaving)
    first, second = (executor.submit(trial(tmp_path / str(n), n, "evaluates")) for n in range(2))
    executor.reply(first, 0, "pause")
    for n in range(2):
        (tmp_path / str(n) / "begin").touch()
    told = {first: [], second: []}
    while not all(events and isinstance(events[-1], TERMINAL) for events in told.values()):
        request_id, event = next_event(executor)
        told[request_id].append(event)
        if request_id == second and isinstance(event, TrialEvent):
            executor.reply(second, 1, "go")
    assert told[first] == [misbehaving.evaluation(0), PAUSED]
    assert told[second][-1] == Scored({"go": 5.0}, 0.0)


@pytest.mark.parametrize("at", [Step, Evaluation])
def test_a_paused_trial_goes_on_where_it_was(start, tmp_path, at):
    undisturbed = last_of(InlineExecutor(fake.work), trial(tmp_path / "1"))
    executor = start()
    request_id = executor.submit(trial(tmp_path / "0"))
    until(executor, Evaluation)
    executor.reply(request_id, 0, "go")
    until(executor, at)
    executor.reply(request_id, 0, "pause")
    [events] = ends_of(executor, request_id, verdict=None)
    assert events[-2:] == [TrialEvent(0, PAUSED), Trained()]
    [events] = run_to_end(executor, trial(tmp_path / "0"))
    assert isinstance(reports_of(events)[0], Resumed)
    assert reports_of(events)[-1] == undisturbed


# --- several trials in one request ---------------------------------------------------------------------


def test_trials_of_one_request_end_as_they_do_alone(start, tmp_path):
    rates = [1e-3, 0.9, 1e-2]  # the second diverges
    alone = [last_of(InlineExecutor(fake.work), request) for request in apart(tmp_path / "alone", *rates)]
    [events] = run_to_end(start(), pack(tmp_path, *rates))
    assert [reports_of(events, n)[-1] for n in range(3)] == alone
    assert events[-1] == Trained()
    assert [type(end) for end in alone] == [TrialResult, Failed, TrialResult]


def apart(folder, *rates):
    return [trial(folder / str(n), n, learning_rate=rate) for n, rate in enumerate(rates)]


def test_they_advance_in_turn(start, tmp_path):
    [events] = run_to_end(start(), pack(tmp_path, 1e-3, 1e-2))
    assert [event.trial for event in events[:-1]] == [0, 1] * 11


def test_the_request_waits_for_the_verdict_on_the_trial_that_was_evaluated(start, tmp_path):
    executor = start()
    request_id = executor.submit(pack(tmp_path, 1e-3, 1e-2))
    until(executor, Evaluation)
    executor.reply(request_id, 1, "go")  # of a trial that does not wait yet
    executor.reply(request_id, 0, "go")
    assert next_event(executor)[1].trial == 1  # its own evaluation, which its verdict awaits
    assert next_event(executor)[1].trial == 0
    assert next_event(executor)[1].trial == 1
    executor.close()


@pytest.mark.parametrize(("verdict", "end"), [("stop", TrialResult), ("pause", Failed)])
def test_a_verdict_ends_the_trial_it_is_addressed_to_and_no_other(start, tmp_path, verdict, end):
    [undisturbed] = run_to_end(InlineExecutor(fake.work), trial(tmp_path / "alone", learning_rate=1e-3))
    executor = start()
    request_id = executor.submit(pack(tmp_path, 1e-3, 1e-3, 1e-3))
    events = []
    while not (events and isinstance(events[-1], TERMINAL)):
        events.append(next_event(executor)[1])
        if isinstance(events[-1], TrialEvent) and isinstance(events[-1].report, Evaluation):
            executor.reply(request_id, events[-1].trial, verdict if events[-1].trial == 1 else "go")
    ended = reports_of(events, 1)
    assert isinstance(ended[-1], end)
    assert ended[-1] == PAUSED or ended[-1].state == "pruned"
    assert [type(report) for report in ended[:-1]] == [Step, Evaluation]
    assert [reports_of(events, n)[-1].evaluations for n in (0, 2)] == [reports_of(undisturbed)[-1].evaluations] * 2
    assert events[-1] == Trained()


@pytest.mark.parametrize("verdict", ["stop", "pause"])
def test_an_unasked_verdict_waits_for_its_own_trial_s_next_event(start, tmp_path, verdict):
    executor = start(misbehaving)
    request_id = executor.submit(packed(*(trial(tmp_path / str(n), n, "step_in_turn") for n in range(2))))
    for _ in range(3):
        until(executor, Step)
    executor.reply(request_id, 1, verdict)
    [events] = ends_of(executor, request_id)
    assert events[-1] == Scored({f"{verdict} 1": 1.0}, 0.0)


def test_a_verdict_for_a_trial_that_has_ended_is_for_nobody(start, tmp_path):
    executor = start()
    request_id = executor.submit(pack(tmp_path, 0.9, 1e-3))
    until(executor, Failed)
    executor.reply(request_id, 0, "stop")
    [events] = ends_of(executor, request_id)
    assert reports_of(events, 1)[-1].state == "complete"
    assert reports_of(events, 0) == []


def test_paused_together_they_go_on_each_alone(start, tmp_path):
    undisturbed = [last_of(InlineExecutor(fake.work), request) for request in apart(tmp_path / "alone", 1e-3, 1e-2)]
    executor = start()
    request_id = executor.submit(pack(tmp_path, 1e-3, 1e-2))
    until(executor, Evaluation)
    for n in range(2):
        executor.reply(request_id, n, "pause")
    [events] = ends_of(executor, request_id, verdict=None)
    assert [reports_of(events, n)[-1] for n in range(2)] == [PAUSED] * 2
    resumed = run_to_end(executor, *apart(tmp_path, 1e-3, 1e-2))
    assert [reports_of(events, n)[-1] for n, events in enumerate(resumed)] == undisturbed


def test_a_kill_ends_the_request_with_all_its_trials(start, tmp_path):
    executor = start()
    request_id = executor.submit(pack(tmp_path, 1e-3, 1e-2))
    until(executor, Evaluation)
    executor.kill(request_id)
    [events] = ends_of(executor, request_id, verdict=None)
    assert [type(event) for event in events] == [Failed]
    assert last_of(executor, trial(tmp_path / "2")).state == "complete"


# --- rule 5: killing -----------------------------------------------------------------------------------


def test_a_killed_request_ends_in_failed(start, tmp_path):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="steps"))
    until(executor, Step)
    executor.kill(request_id)
    [events] = ends_of(executor, request_id)
    assert isinstance(events[-1], Failed)
    assert events[-1].cause == "crash"
    assert executor.wait(timeout_s=QUIET_S) is None


def test_one_that_stands_at_an_evaluation_can_be_killed(start, tmp_path):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="stands_at_an_evaluation"))
    until(executor, Evaluation)
    executor.kill(request_id)
    [events] = ends_of(executor, request_id)
    assert [type(event) for event in events] == [Failed]
    executor.reply(request_id, 0, "go")
    assert executor.wait(timeout_s=QUIET_S) is None


def test_one_that_has_told_nothing_can_be_killed(start, tmp_path):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="sleeps"))
    executor.kill(request_id)
    assert [type(event) for event in ends_of(executor, request_id)[0]] == [Failed]


def test_killing_twice_ends_it_once(start, tmp_path):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="stands_at_an_evaluation"))
    until(executor, Evaluation)
    executor.kill(request_id)
    executor.kill(request_id)
    assert [type(event) for event in ends_of(executor, request_id)[0]] == [Failed]
    executor.kill(request_id)
    assert executor.wait(timeout_s=QUIET_S) is None


def test_killing_after_the_end_does_nothing(start):
    executor = start(misbehaving)
    request_id = executor.submit(score("is_well"))
    assert next_event(executor) == (request_id, Scored({}, 0.0))
    executor.kill(request_id)
    assert executor.wait(timeout_s=QUIET_S) is None
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_others_do_not_notice_a_kill(start, tmp_path):
    executor = start(misbehaving)
    ids = [executor.submit(trial(tmp_path / str(n), n, "evaluates")) for n in range(3)]
    for n in range(3):
        (tmp_path / str(n) / "begin").touch()
    standing = {next_event(executor)[0] for _ in ids}
    assert standing == set(ids)
    executor.kill(ids[1])
    [killed] = ends_of(executor, ids[1])
    assert [type(event) for event in killed] == [Failed]
    for n in (0, 2):
        executor.reply(ids[n], n, "go")
    others = ends_of(executor, ids[0], ids[2])
    assert [events[-1] for events in others] == [Scored({"go": 5.0}, 0.0)] * 2


# --- rule 6: no request takes the executor with it -----------------------------------------------------

ENDS = [
    ("raises", "crash", "ValueError: no such thing"),
    ("raises_at_once", "crash", "ValueError: no such thing"),
    ("ends_without_result", "crash", "the trainer ended without a result"),
    ("exits", "crash", "SystemExit: 3"),
    ("exits_with_success", "crash", "SystemExit: 0"),
    ("fails", "oom", "too big"),
    ("no_such_behaviour", "crash", "KeyError: 'no_such_behaviour'"),
    ("runs_out_of_memory", "oom", "MemoryError: "),
]


# One that wraps another adds nothing to how a request ends: that others go on when one fails is seen with it below.
INNER = pytest.mark.parametrize("start", ["inline", "local"], indirect=True)


@INNER
@pytest.mark.parametrize(("kind", "cause", "message"), ENDS)
def test_whatever_happens_to_a_trial_is_its_result(start, tmp_path, kind, cause, message):
    executor = start(misbehaving)
    failed = last_of(executor, trial(tmp_path / "0", source=kind))
    assert (type(failed), failed.cause, failed.message) == (Failed, cause, message)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


@INNER
@pytest.mark.parametrize(("kind", "cause", "message"), [*ENDS[1:4], ENDS[-1]])  # loading is done in the host itself
def test_whatever_happens_while_the_model_loads_is_its_result(start, kind, cause, message):
    executor = start(misbehaving)
    failed = last_of(executor, Load(workload(kind), INSPECTION))
    assert (type(failed), failed.cause, failed.message) == (Failed, cause, message)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_others_go_on_when_one_fails(start, tmp_path):
    failed, well = run_to_end(
        start(misbehaving),
        trial(tmp_path / "0", source="raises"),
        trial(tmp_path / "1", source="stands_at_an_evaluation"),
    )
    assert isinstance(failed[-1], Failed)
    assert isinstance(well[-1], Scored)


# --- rule 8: what requests wrote -----------------------------------------------------------------------


def test_what_a_request_wrote_can_be_read(start, tmp_path):
    executor, paths = start(), TrialPaths(tmp_path / "0")
    result = last_of(executor, trial(tmp_path / "0"))
    rows = executor.fetch(paths.rows(result.best_index))
    assert rows.read_bytes().startswith(b"\x93NUMPY")
    assert executor.fetch(paths.adapter).is_dir()
    assert not executor.fetch(paths.rows(99)).exists()


# --- rule 7: closing leaves nothing (see test_local.py for processes) -----------------------------------


def running_below_this():
    """The processes with the fake trainer that this one has started and that have not ended."""
    pids = children_of(os.getpid())
    return {pid for pid in pids if fake.__name__ in Path(f"/proc/{pid}/cmdline").read_bytes().decode()}


def test_closing_ends_what_is_under_way(start, tmp_path, request):
    before = running_below_this()  # tests on Ray share an executor, which may be there
    executor = start()
    executor.submit(trial(tmp_path / "0"))
    next_event(executor)
    during = running_below_this()
    executor.close()
    executor.close()  # twice does no harm
    assert running_below_this() <= before
    assert running_below_this() < during or "inline" in request.node.callspec.id


def test_closing_ends_the_inline_worker_s_generator():
    ended = []

    def work(request):
        try:
            yield misbehaving.evaluation(0)
        finally:
            ended.append(request)

    executor = InlineExecutor(work)
    executor.submit("request")
    executor.wait()
    executor.close()
    assert ended == ["request"]


def test_killing_ends_the_inline_worker_s_generator():
    ended = []

    def work(request):
        try:
            yield misbehaving.evaluation(0)
        finally:
            ended.append(request)

    executor = InlineExecutor(work)
    request_id = executor.submit("request")
    executor.wait()
    executor.kill(request_id)
    assert ended == ["request"]
