"""The rules of `hpo/executors/base.py`, held for every executor."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hpo.errors import SweepError
from hpo.executors.inline import InlineExecutor
from hpo.executors.local import LocalExecutor
from hpo.lock import is_locked, sweep_lock
from tests.executors import misbehaving
from trainers import fake
from trainers.catalog import default_settings
from trainers.spec import (
    TERMINAL,
    DataRef,
    Evaluation,
    Export,
    Failed,
    Inspect,
    Inspection,
    Load,
    Loaded,
    ModelRef,
    Score,
    Scored,
    Step,
    TrainRequest,
    TrialResult,
    TrialSpec,
    Workload,
    encode,
)

HERE = Path(__file__).parent
INSPECTION = Inspection({"train": 1000}, [], "", "", "1" * 64, "0" * 64, 0, 0, 10000, 0, [])
QUIET_S = 0.15
"""Long enough to see that nothing comes."""


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Starts trial hosts, and ends them with the test."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1])]))
    started = []

    def start(worker, **kwargs):
        started.append(LocalExecutor(tmp_path / "host.log", worker, **kwargs))
        return started[-1]

    yield start
    for executor in started:
        executor.close()


@pytest.fixture(params=["inline", "local"])
def start(request, local):
    """Starts an executor with the fake trainer, or with the worker that misbehaves."""
    if request.param == "local":
        return lambda worker=fake: local("misbehaving" if worker is misbehaving else worker.__name__)
    return lambda worker=fake: InlineExecutor(worker.work)


def workload(source="model", train="train.jsonl"):
    data = DataRef(train, None, None, {}, validation_size=0.1, test_size=0.1, seed=0)
    return Workload("text-classification", ModelRef(source), data, 64, "fp32", "cache")


def trial(folder, number=0, source="model", **settings):
    folder.mkdir(parents=True, exist_ok=True)
    spec = TrialSpec(
        number, workload(source), "lora", {**default_settings("text-classification", "lora"), **settings}, "f1_macro",
        "maximize", max_examples=100, seed=0, inputs="i", threads=1, device="cpu", dir=str(folder),
    )  # fmt: skip
    return TrainRequest(spec, INSPECTION)


def score(source):
    return Score(workload(source), INSPECTION, threads=1, device="cpu")


def next_event(executor, timeout_s=20.0):
    """Waits as the search does: None only means that nothing has come yet."""
    deadline = time.monotonic() + timeout_s
    while (message := executor.wait(timeout_s=0.5)) is None:
        assert time.monotonic() < deadline, "no event came"
    return message


def run_to_end(executor, *requests, verdict="go"):
    """Events of each request, by its id, every evaluation answered with `verdict`."""
    events = {executor.submit(request): [] for request in requests}
    ended = set()
    while len(ended) < len(events):
        request_id, event = next_event(executor)
        assert request_id not in ended, "an event after the terminal one"
        events[request_id].append(event)
        if isinstance(event, Evaluation):
            executor.reply(request_id, verdict)
        if isinstance(event, TERMINAL):
            ended.add(request_id)
    return list(events.values())


def last_of(executor, request):
    return run_to_end(executor, request)[0][-1]


def wait_for(condition, within_s=20.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def state_of(pid):
    """As the kernel names it: R, S, T (stopped), Z (ended, not yet collected by its parent); empty when gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_running(pid):
    return state_of(pid) not in ("", "Z", "X")


def assert_ends(pid):
    wait_for(lambda: not is_running(pid), within_s=5)


def pids_of(folder):
    """(child, host) of a trial, once it has written them down."""
    wait_for((folder / "pid").exists)
    return tuple(map(int, (folder / "pid").read_text().split()))


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


def test_both_executors_give_the_same_events(local, tmp_path):
    request = trial(tmp_path / "0")
    assert run_to_end(InlineExecutor(fake.work), request) == run_to_end(local("trainers.fake"), request)


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
        (lambda folder: Inspect(workload(train=str(folder))), Inspection),
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
    while not isinstance(next_event(executor)[1], Evaluation):
        pass
    assert executor.wait(timeout_s=QUIET_S) is None
    executor.reply(request_id, "go")
    assert next_event(executor)[0] == request_id


def test_one_that_stands_still_holds_nobody_up(start, tmp_path):
    executor = start()
    standing = executor.submit(trial(tmp_path / "0"))
    while not isinstance(next_event(executor)[1], Evaluation):
        pass
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


# --- rule 4: no request takes the executor with it -----------------------------------------------------

ENDS = [
    ("raises", "crash", "ValueError: no such thing"),
    ("raises_at_once", "crash", "ValueError: no such thing"),
    ("ends_without_result", "crash", "the trainer ended without a result"),
    ("exits", "crash", "SystemExit: 3"),
    ("exits_with_success", "crash", "SystemExit: 0"),
    ("fails", "oom", "too big"),
    ("no_such_behaviour", "crash", "KeyError: 'no_such_behaviour'"),
]
DEATHS = [
    ("ends_its_process", "the trial's process ended with exit code 7"),
    ("kills_itself", "the trial's process was killed by SIGKILL"),
    ("kills_itself_after_an_evaluation", "the trial's process was killed by SIGKILL"),
]


@pytest.mark.parametrize(("kind", "cause", "message"), ENDS)
def test_whatever_happens_to_a_trial_is_its_result(start, tmp_path, kind, cause, message):
    executor = start(misbehaving)
    failed = last_of(executor, trial(tmp_path / "0", source=kind))
    assert (type(failed), failed.cause, failed.message) == (Failed, cause, message)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


@pytest.mark.parametrize(("kind", "cause", "message"), ENDS[1:4])  # loading is done in the host itself
def test_whatever_happens_while_the_model_loads_is_its_result(start, kind, cause, message):
    executor = start(misbehaving)
    failed = last_of(executor, Load(workload(kind), INSPECTION))
    assert (type(failed), failed.cause, failed.message) == (Failed, cause, message)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


@pytest.mark.parametrize(
    "start",
    ["inline", "local"],
    indirect=True,
)
def test_memory_that_runs_out_has_a_cause_of_its_own(start, tmp_path):
    for request in (
        trial(tmp_path / "0", source="runs_out_of_memory"),
        Load(workload("runs_out_of_memory"), INSPECTION),
    ):
        assert last_of(start(misbehaving), request) == Failed("oom", "out of memory")


def test_others_go_on_when_one_fails(start, tmp_path):
    failed, well = run_to_end(
        start(misbehaving),
        trial(tmp_path / "0", source="raises"),
        trial(tmp_path / "1", source="stands_at_an_evaluation"),
    )
    assert isinstance(failed[-1], Failed)
    assert isinstance(well[-1], Scored)


@pytest.mark.parametrize(("kind", "message"), DEATHS)
def test_the_death_of_a_child_is_its_trial_s_result(local, tmp_path, kind, message):
    executor = local("misbehaving")
    failed = last_of(executor, trial(tmp_path / "0", source=kind))
    assert failed == Failed("crash", message)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_a_reply_to_one_that_has_just_died_does_no_harm(local, tmp_path):
    executor = local("misbehaving")
    request_id = executor.submit(trial(tmp_path / "0", source="stands_at_an_evaluation"))
    assert isinstance(next_event(executor)[1], Evaluation)
    child, host = pids_of(tmp_path / "0")
    os.kill(host, signal.SIGSTOP)  # so that it reads the reply before it sees the death
    wait_for(lambda: state_of(host) == "T")
    executor.reply(request_id, "go")
    os.kill(child, signal.SIGKILL)
    assert_ends(child)
    os.kill(host, signal.SIGCONT)
    assert next_event(executor) == (request_id, Failed("crash", "the trial's process was killed by SIGKILL"))
    executor.reply(request_id, "go")
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_a_child_that_leaves_a_process_behind_is_still_seen_to_end(local, tmp_path):
    executor = local("misbehaving")
    executor.submit(trial(tmp_path / "0", source="leaves_a_process"))
    assert isinstance(next_event(executor, timeout_s=2)[1], Failed)


def test_a_host_with_threads_refuses_to_fork_and_says_why(local):
    executor = local("misbehaving")
    assert last_of(executor, Load(workload("starts_a_thread"), INSPECTION)) == Loaded(1, 0.0)
    failed = last_of(executor, score("is_well"))
    assert failed == Failed("crash", "the trial host has threads and cannot fork safely (2 threads)")


# --- rule 5: closing leaves nothing --------------------------------------------------------------------


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


def test_closing_leaves_no_process(local, tmp_path):
    executor = local("misbehaving")
    for number, kind in enumerate(["sleeps", "stands_at_an_evaluation"]):
        executor.submit(trial(tmp_path / str(number), number, kind))
    (first, host), (second, _) = pids_of(tmp_path / "0"), pids_of(tmp_path / "1")
    assert all(map(is_running, (first, second, host)))
    executor.close()
    assert not any(map(is_running, (first, second, host)))


def test_closing_does_not_wait_for_events_that_nobody_read(local, tmp_path):
    executor = local("misbehaving")
    executor.submit(trial(tmp_path / "0", source="floods"))
    child, host = pids_of(tmp_path / "0")
    time.sleep(0.3)  # the pipe is full now
    closing = threading.Thread(target=executor.close)
    closing.start()
    closing.join(timeout=2)
    in_time = not closing.is_alive()
    if not in_time:
        os.kill(host, signal.SIGKILL)  # so that the test ends
    closing.join()
    assert in_time
    assert_ends(child)
    assert_ends(host)


# --- the trial host ------------------------------------------------------------------------------------


def test_two_trials_run_at_the_same_time_in_processes_of_their_own(local, tmp_path):
    requests = [trial(tmp_path / "shared", number, "meets_another") for number in range(2)]
    assert [events[-1] for events in run_to_end(local("misbehaving"), *requests)] == [Scored({}, 0.0)] * 2


def test_many_events_arrive_whole(local, tmp_path):
    [events] = run_to_end(local("misbehaving"), trial(tmp_path / "0", source="floods"))
    assert [event.step for event in events[:-1]] == list(range(3000))


def test_a_long_request_arrives_whole(local, tmp_path):
    request = trial(tmp_path / "0", note="ä" * 300_000)
    assert isinstance(last_of(local("trainers.fake"), request), TrialResult)


def test_a_long_event_arrives_whole(local):
    assert last_of(local("misbehaving"), score("says_much")) == Failed("crash", "ä" * 300_000)


@pytest.mark.parametrize("kind", ["trial", "score", "load"])
def test_what_a_library_prints_is_no_part_of_the_protocol(local, tmp_path, capfd, kind):
    request = {
        "trial": trial(tmp_path / "0", source="prints"),
        "score": score("prints"),
        "load": Load(workload("prints"), INSPECTION),
    }[kind]
    executor = local("misbehaving")
    assert run_to_end(executor, request) == [[Scored({}, 0.0)]]
    executor.close()
    assert capfd.readouterr() == ("", "")
    log = tmp_path / "0" / "trial.log" if kind == "trial" else tmp_path / "host.log"
    text = log.read_text()
    for noise in ("noise on stdout", "noise on stderr", "forged", "noise on 2", "noise of a child"):
        assert noise in text


@pytest.mark.parametrize("kind", ["score", "load"])
def test_nobody_reads_the_host_s_messages_but_the_host(local, kind):
    request = score("reads_input") if kind == "score" else Load(workload("reads_input"), INSPECTION)
    executor = local("misbehaving")
    assert last_of(executor, request) == Scored({"characters": 0.0}, 0.0)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_a_trial_s_traceback_is_in_its_log(local, tmp_path):
    last_of(local("misbehaving"), trial(tmp_path / "0", source="raises_at_once"))
    assert "ValueError: no such thing" in (tmp_path / "0" / "trial.log").read_text()


def test_ctrl_c_is_for_the_sweep_alone(local, tmp_path):
    executor = local("misbehaving")
    request_id = executor.submit(trial(tmp_path / "0", source="stands_at_an_evaluation"))
    assert isinstance(next_event(executor)[1], Evaluation)
    child, host = pids_of(tmp_path / "0")
    assert os.getpgid(host) != os.getpgid(0)
    for pid in (child, host):
        os.kill(pid, signal.SIGINT)
    executor.reply(request_id, "go")
    assert next_event(executor) == (request_id, Scored({}, 0.0))


def test_the_death_of_the_host_is_a_sweep_error_that_names_the_log(local, tmp_path):
    executor = local("misbehaving")
    executor.submit(trial(tmp_path / "0", source="sleeps"))
    os.kill(pids_of(tmp_path / "0")[1], signal.SIGKILL)
    with pytest.raises(SweepError, match=r"trial host ended unexpectedly \(exit code -9\); see .*host.log"):
        executor.wait()
    with pytest.raises(SweepError, match="host"):
        executor.submit(score("is_well"))


def test_a_worker_that_cannot_be_imported_is_a_sweep_error(local, tmp_path):
    executor = local("no_such_worker")
    with pytest.raises(SweepError, match="trial host ended unexpectedly"):
        executor.wait()
    assert "No module named 'no_such_worker'" in (tmp_path / "host.log").read_text()


def test_events_sent_before_the_host_died_still_arrive(local, tmp_path):
    executor = local("misbehaving")
    executor.submit(trial(tmp_path / "0", source="stands_at_an_evaluation"))
    _, host = pids_of(tmp_path / "0")
    time.sleep(QUIET_S)
    os.kill(host, signal.SIGKILL)
    assert isinstance(executor.wait()[1], Evaluation)
    with pytest.raises(SweepError):
        executor.wait()


@pytest.mark.parametrize("kind", ["sleeps", "stands_at_an_evaluation"])
def test_children_die_when_the_host_is_killed(local, tmp_path, kind):
    local("misbehaving").submit(trial(tmp_path / "0", source=kind))
    child, host = pids_of(tmp_path / "0")
    os.kill(host, signal.SIGKILL)
    assert_ends(child)


SWEEP = """
import json, os, sys, time
from pathlib import Path
from hpo.executors.local import LocalExecutor
from trainers.spec import decode
executor = LocalExecutor(Path(sys.argv[1], "host.log"), "misbehaving")
executor.submit(decode(json.loads(sys.stdin.read())))
if sys.argv[2] == "open" and (other := os.fork()):
    Path(sys.argv[1], "other").write_text(str(other))
time.sleep(60)
"""


@pytest.mark.parametrize("pipe", ["closed", "open"])  # open: a fork of the sweep still holds its end
def test_host_and_children_die_when_the_sweep_is_killed(local, tmp_path, pipe):
    request = json.dumps(encode(trial(tmp_path / "0", source="sleeps")))
    sweep = subprocess.Popen([sys.executable, "-c", SWEEP, str(tmp_path), pipe], stdin=subprocess.PIPE, text=True)
    try:
        sweep.stdin.write(request)
        sweep.stdin.close()
        child, host = pids_of(tmp_path / "0")
        wait_for(lambda: pipe == "closed" or ((tmp_path / "other").exists() and (tmp_path / "other").read_text()))
        sweep.kill()
        sweep.wait()
        assert_ends(child)
        assert_ends(host)
    finally:
        sweep.kill()
        if pipe == "open":
            os.kill(int((tmp_path / "other").read_text()), signal.SIGKILL)


def test_the_sweep_s_lock_is_held_until_the_last_child_ends(local, tmp_path):
    with sweep_lock(tmp_path / "lock") as fd:
        executor = local("misbehaving", keep_fds=[fd])
        executor.submit(trial(tmp_path / "0", source="sleeps"))
        pids_of(tmp_path / "0")
    assert is_locked(tmp_path / "lock")
    executor.close()
    assert not is_locked(tmp_path / "lock")


def test_only_the_files_that_were_asked_for_are_inherited(local, tmp_path):
    with sweep_lock(tmp_path / "lock"):
        executor = local("misbehaving")
        executor.submit(trial(tmp_path / "0", source="sleeps"))
        pids_of(tmp_path / "0")
    assert not is_locked(tmp_path / "lock")
    executor.close()
