"""The rules of `hpo/executors/base.py`, held for every executor."""

import time

import pytest

from hpo.executors.inline import InlineExecutor
from tests.hpo.executors import misbehaving
from tests.hpo.executors.driving import (
    INSPECTION,
    QUIET_S,
    ends_of,
    last_of,
    next_event,
    run_to_end,
    score,
    trial,
    until,
    workload,
)
from trainers.host import fake
from trainers.protocol.messages import (
    PAUSED,
    TERMINAL,
    Evaluation,
    Export,
    Failed,
    Inspect,
    Load,
    Loaded,
    PreparedData,
    Resumed,
    Scored,
    Step,
    TrialResult,
)

# --- rule 1: several requests at once ------------------------------------------------------------------


def test_submit_returns_at_once(start, tmp_path):
    executor = start(misbehaving)
    began = time.monotonic()
    ids = {executor.submit(trial(tmp_path / str(n), n, "sleeps")) for n in range(3)}
    assert time.monotonic() - began < 5
    assert len(ids) == 3
    executor.close()


def test_each_request_has_its_own_stream(start, tmp_path):
    requests = [trial(tmp_path / str(n), n, learning_rate=rate) for n, rate in enumerate([1e-3, 1e-2])]
    first, second = run_to_end(start(), *requests)
    assert first[-1].evaluations == [event for event in first if isinstance(event, Evaluation)]
    assert second[-1].evaluations == [event for event in second if isinstance(event, Evaluation)]
    assert first[-1].value > second[-1].value  # the fake's peak is at 1e-3


def test_all_executors_give_the_same_events(start, tmp_path):
    here, there = trial(tmp_path / "0"), trial(tmp_path / "1")
    assert run_to_end(start(), here) == run_to_end(InlineExecutor(fake.work), there)


# --- rule 2: order, and one terminal event -------------------------------------------------------------


def test_events_of_a_request_come_in_order_and_end_with_the_terminal_one(start, tmp_path):
    executor = start()
    [events] = run_to_end(executor, trial(tmp_path / "0"))
    assert [type(event) for event in events] == [Step, Evaluation] * 5 + [TrialResult]
    assert [event.index for event in events if isinstance(event, Evaluation)] == list(range(5))
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
    executor.reply(request_id, "go")
    assert next_event(executor)[0] == request_id


def test_one_that_stands_still_holds_nobody_up(start, tmp_path):
    executor = start()
    standing = executor.submit(trial(tmp_path / "0"))
    until(executor, Evaluation)
    [events] = run_to_end(executor, trial(tmp_path / "1", 1))
    assert isinstance(events[-1], TrialResult)
    executor.reply(standing, "stop")
    assert next_event(executor)[0] == standing


def test_the_verdict_reaches_the_trainer(start, tmp_path):
    executor = start()
    [stopped] = run_to_end(executor, trial(tmp_path / "0"), verdict="stop")
    assert stopped[-1].state == "pruned"
    assert len(stopped[-1].evaluations) == 1
    [finished] = run_to_end(executor, trial(tmp_path / "1"))
    assert finished[-1].state == "complete"


# --- rule 4: verdicts that nobody waits for ------------------------------------------------------------

UNASKED = [("stop", Scored), ("pause", Failed)]


@pytest.mark.parametrize(("verdict", "ends_with"), UNASKED)
def test_an_unasked_verdict_is_taken_at_the_next_step(start, tmp_path, verdict, ends_with):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="steps"))
    for _ in range(3):
        until(executor, Step)
    executor.reply(request_id, verdict)
    [events] = ends_of(executor, request_id)
    assert isinstance(events[-1], ends_with)
    assert {type(event) for event in events[:-1]} <= {Step}
    assert events[-1] == PAUSED or list(events[-1].metrics) == ["stop"]


@pytest.mark.parametrize(("verdict", "end"), [("stop", Scored({"stop": 0.0}, 0.0)), ("pause", PAUSED)])
def test_an_unasked_verdict_is_taken_at_the_next_evaluation_and_no_reply_is_needed(start, tmp_path, verdict, end):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="evaluates"))
    executor.reply(request_id, verdict)
    (tmp_path / "0" / "begin").touch()
    assert ends_of(executor, request_id, verdict=None) == [[misbehaving.evaluation(0), end]]


@pytest.mark.parametrize(("verdict", "end"), [("stop", Scored({"stop": 0.0}, 0.0)), ("pause", PAUSED)])
def test_it_is_the_verdict_of_a_request_that_stands_at_an_evaluation(start, tmp_path, verdict, end):
    executor = start(misbehaving)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "begin").touch()
    request_id = executor.submit(trial(tmp_path / "0", source="evaluates"))
    until(executor, Evaluation)
    executor.reply(request_id, verdict)
    assert ends_of(executor, request_id, verdict=None) == [[end]]


@pytest.mark.parametrize(("verdict", "end"), [("stop", Scored({"stop": 1.0}, 0.0)), ("pause", PAUSED)])
def test_after_a_reply_it_is_for_the_next_evaluation(start, tmp_path, verdict, end):
    executor = start(misbehaving)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "begin").touch()
    request_id = executor.submit(trial(tmp_path / "0", source="evaluates"))
    until(executor, Evaluation)
    executor.reply(request_id, "go")
    executor.reply(request_id, verdict)
    assert ends_of(executor, request_id, verdict=None) == [[misbehaving.evaluation(1), end]]


def test_of_two_unasked_verdicts_the_first_is_taken_first(start, tmp_path):
    executor = start(misbehaving)
    request_id = executor.submit(trial(tmp_path / "0", source="evaluates"))
    for verdict in ("go", "go", "stop", "pause"):
        executor.reply(request_id, verdict)
    (tmp_path / "0" / "begin").touch()
    [events] = ends_of(executor, request_id, verdict=None)
    assert events == [*map(misbehaving.evaluation, range(3)), Scored({"stop": 2.0}, 0.0)]


@pytest.mark.parametrize("verdict", ["stop", "pause"])
def test_a_verdict_after_the_end_is_for_nobody(start, tmp_path, verdict):
    executor = start(misbehaving)
    request_id = executor.submit(score("is_well"))
    assert next_event(executor) == (request_id, Scored({}, 0.0))
    executor.reply(request_id, verdict)
    assert executor.wait(timeout_s=QUIET_S) is None
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "begin").touch()
    assert last_of(executor, trial(tmp_path / "1", source="evaluates")) == Scored({"go": 5.0}, 0.0)


def test_only_the_request_it_names_takes_a_verdict(start, tmp_path):
    executor = start(misbehaving)
    first, second = (executor.submit(trial(tmp_path / str(n), n, "evaluates")) for n in range(2))
    executor.reply(first, "pause")
    for n in range(2):
        (tmp_path / str(n) / "begin").touch()
    told = {first: [], second: []}
    while not all(events and isinstance(events[-1], TERMINAL) for events in told.values()):
        request_id, event = next_event(executor)
        told[request_id].append(event)
        if request_id == second and isinstance(event, Evaluation):
            executor.reply(second, "go")
    assert told[first] == [misbehaving.evaluation(0), PAUSED]
    assert told[second][-1] == Scored({"go": 5.0}, 0.0)


@pytest.mark.parametrize("at", [Step, Evaluation])
def test_a_paused_trial_goes_on_where_it_was(start, tmp_path, at):
    undisturbed = last_of(InlineExecutor(fake.work), trial(tmp_path / "1"))
    executor = start()
    request_id = executor.submit(trial(tmp_path / "0"))
    until(executor, Evaluation)
    executor.reply(request_id, "go")
    until(executor, at)
    executor.reply(request_id, "pause")
    [events] = ends_of(executor, request_id, verdict=None)
    assert events[-1] == PAUSED
    [events] = run_to_end(executor, trial(tmp_path / "0"))
    assert isinstance(events[0], Resumed)
    assert events[-1] == undisturbed


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
    executor.reply(request_id, "go")
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
    for request_id in (ids[0], ids[2]):
        executor.reply(request_id, "go")
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


# --- rule 7: closing leaves nothing (see test_local.py for processes) -----------------------------------


def test_closing_ends_what_is_under_way(start, tmp_path):
    executor = start()
    executor.submit(trial(tmp_path / "0"))
    next_event(executor)
    executor.close()
    executor.close()  # twice does no harm


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
