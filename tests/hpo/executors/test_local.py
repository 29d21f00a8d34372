"""The trial host: a process that forks a child for every request."""

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from functools import partial
from pathlib import Path

import pytest

import hpo.executors.piped
from hpo.errors import HostGone, SweepError
from hpo.lock import is_locked, sweep_lock
from tests.hpo.executors import misbehaving
from tests.hpo.executors.driving import (
    INSPECTION,
    assert_ends,
    ends_of,
    ends_within,
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
    wait_for,
    workload,
)
from trainers.host import host
from trainers.host.child import how_it_ended
from trainers.protocol.events import Failed, Loaded, Scored, TrialResult
from trainers.protocol.messages import encode
from trainers.protocol.requests import Load


def test_two_trials_run_at_the_same_time_in_processes_of_their_own(local, tmp_path):
    requests = [trial(tmp_path / "shared", number, "meets_another") for number in range(2)]
    assert [events[-1] for events in run_to_end(local("misbehaving"), *requests)] == [Scored({}, 0.0)] * 2


def test_a_trial_s_traceback_is_in_its_log(local, tmp_path):
    last_of(local("misbehaving"), trial(tmp_path / "0", source="raises_at_once"))
    assert "ValueError: no such thing" in (tmp_path / "0" / "trial.log").read_text()


def test_the_current_folder_takes_no_library_s_place_but_has_what_your_code_imports(local, tmp_path, monkeypatch):
    """A project may have `datasets`, `trainers` or a `json.py` of its own."""
    for name in ("json.py", "trainers.py"):
        (tmp_path / name).write_text("raise ImportError('of somebody else')")
    (tmp_path / "of_the_folder.py").write_text("from trainers.host.fake import work as work")
    monkeypatch.chdir(tmp_path)
    assert isinstance(last_of(local("of_the_folder"), trial(tmp_path / "0")), TrialResult)


# --- messages ------------------------------------------------------------------------------------------


def test_many_events_arrive_whole(local, tmp_path):
    [events] = run_to_end(local("misbehaving"), trial(tmp_path / "0", source="floods"))
    assert [report.step for report in reports_of(events)] == list(range(3000))


def test_a_long_request_arrives_whole(local, tmp_path):
    request = trial(tmp_path / "0", note="ä" * 300_000)
    assert isinstance(last_of(local("trainers.host.fake"), request), TrialResult)


def test_a_long_event_arrives_whole(local):
    assert last_of(local("misbehaving"), score("says_much")) == Failed("crash", "ä" * 300_000)


def test_thousands_of_labels_in_both_directions_at_once_stop_nobody(local, tmp_path):
    """The host stands in a write of more than a pipe holds while the sweep writes more than a pipe holds."""
    executor = local("misbehaving")
    many = executor.submit(trial(tmp_path / "0", source="has_many_labels"))
    _, its_host = pids_of(tmp_path / "0")
    wait_for(lambda: pipe_is_full(executor))
    ids = []
    big = [trial(tmp_path / str(n), n, "is_well", note="label " * 50_000) for n in (1, 2, 3)]
    assert ends_within(20, lambda: ids.extend(map(executor.submit, big)), partial(os.kill, its_host, signal.SIGKILL))
    first, *others = ends_of(executor, many, *ids)
    assert [len(report.metrics) for report in reports_of(first)] == [5000] * 8
    assert others == [[Scored({}, 0.0)]] * 3


def pipe_is_full(executor):
    """Whether the host has written as much as it can without being read."""
    waiting = fcntl.ioctl(executor._host.stdout, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(waiting, sys.byteorder) > 60_000


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


# --- children that die ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("ends_its_process", "the trial's process ended with exit code 7"),
        ("kills_itself", "the trial's process was killed by SIGKILL"),
        ("kills_itself_after_an_evaluation", "the trial's process was killed by SIGKILL"),
    ],
)
def test_the_death_of_a_child_is_its_trial_s_result(local, tmp_path, kind, message):
    executor = local("misbehaving")
    failed = last_of(executor, trial(tmp_path / "0", source=kind))
    assert failed == Failed("crash", message)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_a_child_that_is_killed_through_the_executor_is_gone_when_its_end_is_told(local, tmp_path):
    executor = local("misbehaving")
    request_id = executor.submit(trial(tmp_path / "0", source="sleeps"))
    child, _ = pids_of(tmp_path / "0")
    executor.kill(request_id)
    assert next_event(executor) == (request_id, Failed("crash", "the trial's process was killed by SIGKILL"))
    assert state_of(child) == ""


def test_a_reply_to_one_that_has_just_died_does_no_harm(local, tmp_path):
    executor = local("misbehaving")
    request_id = executor.submit(trial(tmp_path / "0", source="stands_at_an_evaluation"))
    assert next_event(executor)[1] == misbehaving.evaluation(0)
    child, its_host = pids_of(tmp_path / "0")
    os.kill(its_host, signal.SIGSTOP)  # so that it reads the reply before it sees the death
    wait_for(lambda: state_of(its_host) == "T")
    executor.reply(request_id, 0, "go")
    executor.kill(request_id)
    os.kill(child, signal.SIGKILL)
    assert_ends(child)
    os.kill(its_host, signal.SIGCONT)
    assert next_event(executor) == (request_id, Failed("crash", "the trial's process was killed by SIGKILL"))
    executor.reply(request_id, 0, "go")
    executor.kill(request_id)
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_a_child_that_leaves_a_process_behind_is_still_seen_to_end(local, tmp_path):
    executor = local("misbehaving")
    executor.submit(trial(tmp_path / "0", source="leaves_a_process"))
    assert isinstance(next_event(executor)[1], Failed)


def test_a_host_ends_without_taking_down_what_trials_had_imported(local):
    executor = local("misbehaving")
    assert last_of(executor, Load(workload("takes_long_to_take_down"), INSPECTION)) == Loaded(1, 0.0)
    executor.close()
    assert executor._host.returncode == 0  # by itself: one that takes longer is killed


def test_a_host_with_threads_refuses_to_fork_and_says_why(local):
    executor = local("misbehaving")
    assert last_of(executor, Load(workload("starts_a_thread"), INSPECTION)) == Loaded(1, 0.0)
    failed = last_of(executor, score("is_well"))
    assert failed == Failed("crash", "the trial host has threads and cannot fork safely (2 threads)")


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_unless_the_environment_says_how(local, monkeypatch, given, policy):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    host = local("misbehaving")
    last_of(host, score("is_well"))  # until it has been started, its process shows our own environment
    environment = Path(f"/proc/{host._host.pid}/environ").read_bytes().split(b"\0")
    assert f"OMP_WAIT_POLICY={policy}".encode() in environment


def test_what_a_host_loads_is_left_out_of_garbage_collections(local, tmp_path):
    """Its own, which go on afterwards, and those of its children, which would copy the pages that they share."""
    executor = local("misbehaving")
    last_of(executor, Load(workload("loads", cache=tmp_path), INSPECTION))
    metrics = last_of(executor, score("looks_at_its_garbage")).metrics
    assert metrics["enabled"] == 1.0
    assert metrics["frozen"] > 1000


def test_a_fork_that_fails_is_that_request_s_failure(local):
    executor = local("misbehaving")
    assert last_of(executor, Load(workload("makes_forks_fail"), INSPECTION)) == Loaded(1, 0.0)
    assert last_of(executor, score("is_well")) == Failed("oom", "OSError: [Errno 12] Cannot allocate memory")
    assert last_of(executor, score("is_well")) == Scored({}, 0.0)


def test_a_child_on_a_full_disk_still_says_so(local, tmp_path):
    failed = last_of(local("misbehaving"), trial(tmp_path / "0", source="finds_the_disk_full"))
    assert failed == Failed("crash", f"OSError: [Errno 28] No space left on device: '{tmp_path / '0'}'")


def test_a_log_that_cannot_be_written_is_the_trial_s_failure(local, tmp_path):
    request = trial(tmp_path / "0", source="is_well")
    (tmp_path / "0" / "trial.log").mkdir()
    executor = local("misbehaving")
    failed = last_of(executor, request)
    assert failed == Failed("crash", f"IsADirectoryError: [Errno 21] Is a directory: '{tmp_path / '0' / 'trial.log'}'")
    assert "IsADirectoryError" in (tmp_path / "host.log").read_text()


# --- memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("runs_out_of_memory", "MemoryError: "),
        (
            "cannot_allocate",
            "RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. "
            "DefaultCPUAllocator: can't allocate memory: ...",
        ),
    ],
)
def test_memory_that_runs_out_has_a_cause_of_its_own(local, tmp_path, kind, message):
    executor = local("misbehaving")
    for request in (trial(tmp_path / "0", source=kind), Load(workload(kind), INSPECTION)):
        assert last_of(executor, request) == Failed("oom", message)


def test_the_kernel_takes_a_trial_before_the_host(local):
    scores = last_of(local("misbehaving"), score("tells_its_oom_score")).metrics
    assert scores == {"child": 800.0, "host": float(Path("/proc/self/oom_score_adj").read_text())}


@pytest.fixture
def counted(local, tmp_path):
    """A host for which a file stands for the kernel's counter of out-of-memory kills."""
    executor = local("misbehaving")
    load = Load(workload("counts_oom_kills_in_a_file", cache=tmp_path), INSPECTION)
    assert last_of(executor, load) == Loaded(1, 0.0)
    return executor


OOM = Failed("oom", "the kernel killed the trial's process: the machine ran out of memory")


@pytest.mark.parametrize("kind", ["is_killed_for_memory", "is_killed_for_memory_after_an_evaluation"])
def test_a_kill_while_the_kernel_s_counter_rises_is_out_of_memory(counted, tmp_path, kind):
    assert last_of(counted, trial(tmp_path / "0", source=kind)) == OOM
    assert last_of(counted, trial(tmp_path / "1", source=kind)) == OOM


def test_also_when_its_last_words_are_read_after_its_death(counted, tmp_path):
    request_id = counted.submit(trial(tmp_path / "0", source="is_killed_for_memory_before_it_is_heard"))
    child, its_host = pids_of(tmp_path / "0")
    assert_ends(child)
    os.kill(its_host, signal.SIGCONT)
    assert ends_of(counted, request_id) == [[misbehaving.step(0), OOM]]


@pytest.mark.parametrize("kind", ["kills_itself", "is_killed_by_a_person_after_others_were_for_memory"])
def test_a_kill_while_it_stands_is_not(counted, tmp_path, kind):
    failed = last_of(counted, trial(tmp_path / "0", source=kind))
    assert failed == Failed("crash", "the trial's process was killed by SIGKILL")


@pytest.mark.parametrize(
    ("code", "before", "failed"),
    [
        (-9, 6, OOM),
        (-9, 7, Failed("crash", "the trial's process was killed by SIGKILL")),
        (-11, 6, Failed("crash", "the trial's process was killed by SIGSEGV")),
        (-15, 6, Failed("crash", "the trial's process was killed by SIGTERM")),
        (-40, 6, Failed("crash", "the trial's process was killed by signal 40")),
        (1, 6, Failed("crash", "the trial's process ended with exit code 1")),
        (0, 6, Failed("crash", "the trial's process ended with exit code 0")),
    ],
)
def test_how_a_silent_end_is_told(code, before, failed):
    assert how_it_ended(code, kernel_killed=before < 7) == failed


# --- ends of host and sweep ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_the_end_of_a_service_are_for_the_sweep_alone(local, tmp_path, number):
    executor = local("misbehaving")
    request_id = executor.submit(trial(tmp_path / "0", source="stands_at_an_evaluation"))
    assert next_event(executor) == (request_id, misbehaving.evaluation(0))
    child, its_host = pids_of(tmp_path / "0")
    assert os.getpgid(its_host) != os.getpgid(0)
    for pid in (child, its_host):
        os.kill(pid, number)
    executor.reply(request_id, 0, "go")
    assert next_event(executor) == (request_id, Scored({}, 0.0))


@pytest.mark.parametrize("call", ["wait", "submit", "reply", "kill"])
def test_the_death_of_the_host_is_an_error_that_names_the_log(local, tmp_path, call):
    executor = local("misbehaving")
    request_id = executor.submit(trial(tmp_path / "0", source="sleeps"))
    os.kill(pids_of(tmp_path / "0")[1], signal.SIGKILL)
    wait_for(lambda: executor._host.poll() is not None)
    calls = {
        "wait": executor.wait,
        "submit": lambda: executor.submit(score("is_well")),
        "reply": lambda: executor.reply(request_id, 0, "go"),
        "kill": lambda: executor.kill(request_id),
    }
    for _ in range(2):
        with pytest.raises(HostGone, match=r"trial host (ended unexpectedly \(exit code -9\)|is gone); see .*host.log"):
            calls[call]()


def test_a_worker_that_cannot_be_imported_is_a_sweep_error(local, tmp_path):
    executor = local("no_such_worker")
    with pytest.raises(SweepError, match="trial host ended unexpectedly"):
        executor.wait()
    assert "No module named 'no_such_worker'" in (tmp_path / "host.log").read_text()


def test_what_a_trial_has_forked_ends_by_sigterm_as_usual(local):
    scored = last_of(local("misbehaving"), score("ends_a_worker_of_its_own"))
    assert scored == Scored({"signal": float(signal.SIGTERM)}, 0.0)


def test_events_sent_before_the_host_died_still_arrive(local, tmp_path):
    executor = local("misbehaving")
    executor.submit(trial(tmp_path / "0", source="stands_at_an_evaluation"))
    _, its_host = pids_of(tmp_path / "0")
    wait_for(lambda: executor._selector.select(0))
    os.kill(its_host, signal.SIGKILL)
    assert executor.wait()[1] == misbehaving.evaluation(0)
    with pytest.raises(SweepError):
        executor.wait()


@pytest.mark.parametrize("kind", ["sleeps", "stands_at_an_evaluation"])
def test_children_die_when_the_host_is_killed(local, tmp_path, kind):
    local("misbehaving").submit(trial(tmp_path / "0", source=kind))
    child, its_host = pids_of(tmp_path / "0")
    os.kill(its_host, signal.SIGKILL)
    assert_ends(child)


SWEEP = """
import json, os, sys, time
from pathlib import Path
from hpo.executors.local import LocalExecutor
from trainers.protocol.messages import decode
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
        child, its_host = pids_of(tmp_path / "0")
        wait_for(lambda: pipe == "closed" or ((tmp_path / "other").exists() and (tmp_path / "other").read_text()))
        sweep.kill()
        sweep.wait()
        assert_ends(child)
        assert_ends(its_host)
    finally:
        sweep.kill()
        if pipe == "open":
            os.kill(int((tmp_path / "other").read_text()), signal.SIGKILL)


# --- closing -------------------------------------------------------------------------------------------


def test_closing_leaves_no_process(local, tmp_path):
    executor = local("misbehaving")
    for number, kind in enumerate(["sleeps", "stands_at_an_evaluation"]):
        executor.submit(trial(tmp_path / str(number), number, kind))
    (first, its_host), (second, _) = pids_of(tmp_path / "0"), pids_of(tmp_path / "1")
    assert all(map(is_running, (first, second, its_host)))
    executor.close()
    assert not any(map(is_running, (first, second, its_host)))


def test_closing_after_the_host_was_killed_waits_for_its_children(local, tmp_path):
    executor = local("misbehaving")
    for number in range(3):
        executor.submit(trial(tmp_path / str(number), number, "sleeps"))
    pids = [pids_of(tmp_path / str(number)) for number in range(3)]
    os.kill(pids[0][1], signal.SIGKILL)
    executor.close()
    for child, _ in pids:
        assert state_of(child) != "S"


def test_closing_ends_what_children_have_left_behind(local, tmp_path):
    executor = local("misbehaving")
    executor.submit(trial(tmp_path / "0", source="leaves_a_process"))
    until(executor, Failed)
    left = int((tmp_path / "0" / "left").read_text())
    assert is_running(left)
    assert ends_within(5, executor.close, otherwise=partial(os.kill, left, signal.SIGKILL))
    assert_ends(left)


OUTSIDER = "import os, sys, time; os.setsid(); print('there', flush=True); time.sleep(60)"


def test_a_process_that_does_not_end_is_an_error(local, monkeypatch):
    """One that has left the host's group and still holds its files."""
    monkeypatch.setattr(hpo.executors.piped, "ENDS_WITHIN_S", 0.2)
    popen = subprocess.Popen
    outsiders = []

    def both(*args, pass_fds, **kwargs):
        outsider = popen([sys.executable, "-c", OUTSIDER], pass_fds=pass_fds, stdout=subprocess.PIPE)
        assert outsider.stdout.readline() == b"there\n"
        outsiders.append(outsider)
        return popen(*args, pass_fds=pass_fds, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(hpo.executors.piped.subprocess, "Popen", both)
        executor = local("misbehaving")
    try:
        with pytest.raises(SweepError, match=r"do not end; see .*host.log"):
            executor.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(executor._alive_fd)
    finally:
        for outsider in outsiders:
            outsider.kill()
            outsider.communicate()


def test_closing_does_not_wait_for_a_model_to_be_loaded(local, tmp_path, monkeypatch):
    monkeypatch.setattr(hpo.executors.piped, "ENDS_WITHIN_S", 0.2)
    executor = local("misbehaving")
    executor.submit(Load(workload("sleeps_while_it_loads", cache=tmp_path), INSPECTION))
    its_host, _ = pids_of(tmp_path)
    began = time.monotonic()
    executor.close()
    assert time.monotonic() - began < 5
    assert not is_running(its_host)


def test_closing_does_not_wait_for_events_that_nobody_read(local, tmp_path):
    executor = local("misbehaving")
    executor.submit(trial(tmp_path / "0", source="floods"))
    child, its_host = pids_of(tmp_path / "0")
    wait_for(lambda: pipe_is_full(executor))
    assert ends_within(5, executor.close, otherwise=lambda: os.kill(its_host, signal.SIGKILL))
    assert_ends(child)
    assert_ends(its_host)


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


def test_a_verdict_is_polled_after_a_step_and_waited_for_after_an_evaluation():
    read, write = os.pipe()
    verdicts = host._Verdicts(read)
    assert verdicts.after(misbehaving.step(0)) is None
    os.write(write, b"0 go\n0 pause\n1 stop\n0 st")
    assert verdicts.after(Loaded(1, 0.0)) is None
    assert verdicts.after(misbehaving.step(1)) == "go"
    assert verdicts.after(misbehaving.evaluation(0)) == "pause"
    os.write(write, b"op\n")
    assert verdicts.after(misbehaving.step(2)) == "stop"
    assert verdicts.after(dataclasses.replace(misbehaving.step(2), trial=1)) == "stop"
    os.close(write)
    with pytest.raises(EOFError):
        verdicts.after(misbehaving.evaluation(1))
    os.close(read)


def test_nobody_sends_verdicts_to_a_model_that_is_loaded():
    assert host._Verdicts(None).after(misbehaving.evaluation(0)) is None
    assert host._Verdicts(None).after(misbehaving.step(0)) is None
