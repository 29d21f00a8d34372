"""An executor that outlives its trial host. The rules that every executor keeps: `test_contract.py`."""

import dataclasses
import os
import signal
from collections import deque
from pathlib import Path

import pytest

from hpo.config.sweep_config import RetryPolicy
from hpo.errors import HostGone, RequestFailed, SweepError
from hpo.executors.inline import InlineExecutor
from hpo.executors.restarting import MOST_IN_A_ROW, RestartingExecutor
from hpo.progress_view import Silent
from hpo.trials.calls import run_alone
from hpo.trials.job import Job
from hpo.trials.slots import Slots
from tests.hpo.books import Books
from tests.hpo.builders import scheduler
from tests.hpo.executors import misbehaving
from tests.hpo.executors.driving import (
    INSPECTION,
    QUIET_S,
    ends_of,
    is_running,
    last_of,
    next_event,
    pids_of,
    reports_of,
    run_to_end,
    score,
    state_of,
    trial,
    until,
    workload,
)
from trainers.host import fake
from trainers.protocol.events import Evaluation, Failed, Loaded, Resumed, Scored, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Load, Train

GONE = Failed("interrupted", "the trial host ended unexpectedly")


def load(kind, folder="cache"):
    return Load(workload(kind, cache=folder), INSPECTION)


def hosts_that_loaded(folder):
    return [int(line) for line in (folder / "loads").read_text().split()]


# --- real hosts ----------------------------------------------------------------------------------------


def test_a_host_that_is_killed_is_replaced_by_a_warm_one_and_all_it_had_is_interrupted(restarting, tmp_path):
    executor = restarting("misbehaving")
    assert last_of(executor, load("loads", tmp_path)) == Loaded(1, 0.0)
    kinds = ["sleeps", "stands_at_an_evaluation", "steps"]
    ids = [executor.submit(trial(tmp_path / str(n), n, kind)) for n, kind in enumerate(kinds)]
    until(executor, Evaluation)
    children, hosts = zip(*(pids_of(tmp_path / str(n)) for n in range(3)), strict=True)
    os.kill(hosts[0], signal.SIGKILL)
    assert [events[-1] for events in ends_of(executor, *ids)] == [GONE] * 3
    assert not any(state_of(child) == "S" for child in children)
    first, second = hosts_that_loaded(tmp_path)
    assert first == hosts[0] != second
    assert is_running(second)
    assert last_of(executor, trial(tmp_path / "0", source="is_alone_and_warm")) == Scored(
        {"warm": 1.0, "alone": 1.0}, 0.0
    )
    assert executor.wait(timeout_s=QUIET_S) is None


def test_without_a_model_to_load_a_new_host_is_ready_at_once(restarting, tmp_path):
    executor = restarting("misbehaving")
    request_id = executor.submit(trial(tmp_path / "0", source="sleeps"))
    os.kill(pids_of(tmp_path / "0")[1], signal.SIGKILL)
    assert next_event(executor) == (request_id, GONE)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_trials_go_on_from_their_checkpoints_in_the_next_host(restarting, tmp_path):
    executor = restarting("trainers.host.fake")
    assert isinstance(last_of(executor, Load(workload(), INSPECTION)), Loaded)
    undisturbed = last_of(executor, trial(tmp_path / "1"))
    request_id = executor.submit(trial(tmp_path / "0"))
    for _ in range(3):
        until(executor, Evaluation)
        executor.reply(request_id, 0, "go")
    os.kill(executor._inner._host.pid, signal.SIGKILL)
    [lost] = ends_of(executor, request_id, verdict=None)
    assert lost[-1] == GONE
    [events] = run_to_end(executor, trial(tmp_path / "0"))
    resumed, *_, result = reports_of(events)
    assert isinstance(resumed, Resumed)
    assert len(resumed.evaluations) >= 2
    assert result == undisturbed
    assert isinstance(undisturbed, TrialResult)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_sweep_outlives_its_host(restarting, tmp_path, retries):
    """Killed at the third evaluation of the second trial, while two trials are under way."""
    executor = restarting("trainers.host.fake")
    assert isinstance(run_alone(executor, Load(workload(), INSPECTION)), Loaded)
    requests = [trial(tmp_path / str(n), n, learning_rate=rate) for n, rate in enumerate([1e-3, 2e-3, 3e-3])]
    books = Books(Job(request.spec, TrialPaths(Path(request.spec.dir)), 0) for request in requests)
    judge, killed = books.verdict, []

    def verdict(job):
        if (job.number, len(job.evaluations)) == (1, 3) and not killed:
            killed.append(executor._inner._host.pid)
            os.kill(killed[0], signal.SIGKILL)
        return judge(job)

    books.verdict = verdict
    scheduler(executor, Slots(2, 1), RetryPolicy(retries, 30), None, Silent()).run(books)
    assert killed
    assert len(books.results) == 3
    if retries == 0:
        assert "interrupted" in {result.cause for result in books.results.values()}
        return
    assert [(a.cause, a.message) for a in books.attempts[1]] == [("interrupted", GONE.message)]
    assert all(len(attempts) <= 1 for attempts in books.attempts.values())
    for number, request in enumerate(requests):
        elsewhere = dataclasses.replace(request.spec, dir=str(tmp_path / "undisturbed" / str(number)))
        assert books.results[number] == last_of(InlineExecutor(fake.work), Train((elsewhere,), INSPECTION))


@pytest.mark.parametrize("call", ["submit", "reply", "kill"])
def test_a_death_is_noticed_by_whatever_is_done_next(restarting, tmp_path, call):
    executor = restarting("misbehaving")
    first, second = (executor.submit(trial(tmp_path / str(n), n, "stands_at_an_evaluation")) for n in range(2))
    for _ in range(2):
        until(executor, Evaluation)
    os.kill(pids_of(tmp_path / "0")[1], signal.SIGKILL)
    executor._inner._host.wait()
    others = []
    if call == "submit":
        others = [executor.submit(score("is_well"))]
    elif call == "reply":
        executor.reply(first, 0, "go")
    else:
        executor.kill(first)
    told = ends_of(executor, first, second, *others)
    assert told == [[GONE], [GONE], *[[Scored({}, 0.0)] for _ in others]]
    executor.reply(first, 0, "go")  # for nobody
    executor.kill(second)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_a_request_that_kills_one_host_after_the_other_ends_the_sweep(restarting, tmp_path):
    executor = restarting("misbehaving")
    for number in range(MOST_IN_A_ROW):
        assert last_of(executor, trial(tmp_path / str(number), source="kills_its_host")) == GONE
    executor.submit(trial(tmp_path / "9", source="kills_its_host"))
    with pytest.raises(SweepError, match=r"the trial host ended 4 times in a row: .*exit code -9\); see .*host.log"):
        next_event(executor)


def test_an_event_in_between_shows_that_hosts_can_live(restarting, tmp_path):
    executor = restarting("misbehaving")
    for number in range(MOST_IN_A_ROW + 2):
        assert last_of(executor, trial(tmp_path / str(number), source="kills_its_host")) == GONE
        assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_a_host_that_dies_while_it_loads_is_replaced_and_the_model_is_loaded_all_the_same(restarting, tmp_path):
    executor = restarting("misbehaving")
    assert run_to_end(executor, load("loads_the_second_time", tmp_path)) == [[Loaded(1, 0.0)]]
    assert hosts_that_loaded(tmp_path) == [executor._inner._host.pid]
    assert executor.wait(timeout_s=QUIET_S) is None


def test_hosts_that_all_die_while_they_load_end_the_sweep(restarting, tmp_path):
    executor = restarting("misbehaving")
    with pytest.raises(SweepError, match="the trial host ended 4 times in a row"):
        run_alone(executor, load("never_loads", tmp_path))
    pids = [int(line) for line in (tmp_path / "tried").read_text().split()]
    assert len(set(pids)) == MOST_IN_A_ROW + 1
    assert not any(map(is_running, pids))


def test_new_hosts_that_cannot_load_what_the_first_one_could_end_the_sweep(restarting, tmp_path):
    executor = restarting("misbehaving")
    assert last_of(executor, load("loads_once", tmp_path)) == Loaded(1, 0.0)
    executor.submit(trial(tmp_path / "0", source="sleeps"))
    os.kill(pids_of(tmp_path / "0")[1], signal.SIGKILL)
    with pytest.raises(SweepError, match="the trial host ended 4 times in a row"):
        next_event(executor)


def test_closing_leaves_no_process_of_any_host(restarting, tmp_path):
    executor = restarting("misbehaving")
    pids = []
    for number in range(2):
        executor.submit(trial(tmp_path / str(number), number, "sleeps"))
        pids += pids_of(tmp_path / str(number))
        if number == 0:
            os.kill(pids[1], signal.SIGKILL)
            next_event(executor)
    executor.close()
    assert len(set(pids)) == 4
    assert not any(map(is_running, pids))


# --- scripted ones -------------------------------------------------------------------------------------


class Scripted:
    """Tells what it is given to tell; raises `HostGone` once that is told and `is_gone`."""

    def __init__(self, *events):
        self.events = deque(events)
        self.is_gone = False
        self.is_closed = False
        self.requests = []
        self.told = []

    def submit(self, request):
        self._check()
        self.requests.append(request)
        return 10 + len(self.requests)

    def wait(self, timeout_s=None):
        if self.events:
            return self.events.popleft()
        self._check()
        return None

    def reply(self, request_id, trial, verdict):
        self._check()
        self.told.append((request_id, trial, verdict))

    def kill(self, request_id):
        self._check()
        self.told.append((request_id, "kill"))

    def close(self):
        self.is_closed = True

    def _check(self):
        if self.is_gone:
            raise HostGone("gone")


def chain(*inners):
    """An executor over scripted ones, each started after the one before was closed."""
    started = []

    def start():
        assert all(inner.is_closed for inner in started), "two hosts at a time"
        started.append(inners[len(started)])
        return started[-1]

    return RestartingExecutor(start)


def test_a_result_that_had_arrived_counts_although_the_host_has_gone():
    first, second = Scripted(), Scripted()
    executor = chain(first, second)
    done, lost = executor.submit("a"), executor.submit("b")
    first.events.extend([(12, misbehaving.step(1)), (11, Scored({}, 1.0)), (12, misbehaving.step(2))])
    first.is_gone = True
    executor.reply(lost, 0, "stop")
    told = [executor.wait() for _ in range(4)]
    assert told == [(lost, misbehaving.step(1)), (done, Scored({}, 1.0)), (lost, misbehaving.step(2)), (lost, GONE)]
    assert executor.wait(0.0) is None
    assert second.requests == []


def test_what_was_lost_is_told_once_however_many_hosts_end_after_it():
    first, second, third = Scripted(), Scripted(), Scripted()
    executor = chain(first, second, third)
    ids = [executor.submit("a"), executor.submit("b")]
    first.is_gone = True
    assert [executor.wait(), executor.wait()] == [(request_id, GONE) for request_id in ids]
    second.is_gone = True
    assert executor.wait(0.0) is None
    assert not third.is_gone


def test_ids_stay_apart_over_hosts():
    first, second = Scripted(), Scripted()
    executor = chain(first, second)
    before = executor.submit("a")
    first.is_gone = True
    after = executor.submit("b")
    assert before != after
    second.events.append((11, misbehaving.evaluation(0)))
    assert executor.wait() == (before, GONE)
    assert executor.wait() == (after, misbehaving.evaluation(0))
    executor.reply(before, 0, "stop")
    executor.reply(after, 0, "go")
    executor.kill(before)
    executor.kill(after)
    assert second.told == [(11, 0, "go"), (11, "kill")]


def test_only_the_last_model_is_loaded_into_a_new_host():
    first, second = Scripted(), Scripted((11, Loaded(2, 0.0)))
    executor = chain(first, second)
    old, new = load("old"), load("new")
    for request in (old, new):
        executor.submit(request)
    first.events.extend([(11, Loaded(1, 0.0)), (12, Loaded(2, 0.0))])
    assert [executor.wait()[1] for _ in range(2)] == [Loaded(1, 0.0), Loaded(2, 0.0)]
    first.is_gone = True
    assert executor.wait(0.0) is None
    assert second.requests == [new]


def test_a_host_that_dies_before_it_is_told_to_load_loads_in_its_successor():
    first, second = Scripted(), Scripted((11, Loaded(1, 0.5)))
    first.is_gone = True
    executor = chain(first, second)
    request_id = executor.submit(load("model"))
    assert executor.wait() == (request_id, Loaded(1, 0.5))
    assert len(second.requests) == 1


def test_a_model_that_no_longer_loads_is_told_with_its_cause():
    first, second = Scripted((11, Loaded(1, 0.0))), Scripted((11, Failed("oom", "MemoryError: ")))
    executor = chain(first, second)
    executor.submit(load("model"))
    executor.wait()
    first.is_gone = True
    with pytest.raises(SweepError, match="could not load the base model: oom: MemoryError"):
        executor.wait()


def test_a_failure_of_the_first_load_is_its_request_s_answer():
    first, second = Scripted(), Scripted((11, Failed("oom", "MemoryError: ")))
    first.is_gone = True
    with pytest.raises(RequestFailed, match="oom: MemoryError"):
        run_alone(chain(first, second), load("model"))


def test_a_submit_that_finds_no_living_host_gives_up_after_some():
    inners = [Scripted() for _ in range(9)]
    for inner in inners:
        inner.is_gone = True
    with pytest.raises(SweepError, match="the trial host ended 4 times in a row: gone"):
        chain(*inners).submit("a")
    assert [inner.is_closed for inner in inners] == [True] * 3 + [False] * 6
