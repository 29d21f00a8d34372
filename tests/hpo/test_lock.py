"""One process per sweep. Real processes: `flock` belongs to open files, which threads and mocks share."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

import hpo.lock
from hpo.errors import SweepError
from hpo.garbage import discard
from hpo.lock import held_alone, hold_if_there, hold_shared, is_in_use, is_locked, lock_owner, remove_unheld, sweep_lock
from tests.hpo.executors.driving import is_running

HOLD = """
import sys, time
from pathlib import Path
from hpo.lock import sweep_lock
with sweep_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
# Takes the lock, leaves it to a child that outlives it, and dies without cleaning up.
ORPHAN = """
import os, signal, subprocess, sys
from pathlib import Path
from hpo.lock import sweep_lock
with sweep_lock(Path(sys.argv[1])) as fd:
    orphan = subprocess.Popen(["sleep", "60"], pass_fds=[fd], stdout=subprocess.DEVNULL)
    print(orphan.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def holder(path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def leave_orphan(path):
    """Pid of a process that holds the lock of one that was killed."""
    run = subprocess.run([sys.executable, "-c", ORPHAN, str(path)], stdout=subprocess.PIPE, text=True, check=False)
    assert run.returncode == -signal.SIGKILL
    return int(run.stdout)


def end(pid):
    """Kill a process that is no child of this one."""
    os.kill(pid, signal.SIGKILL)
    while is_running(pid):
        pass


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "sweep" / "lock"


def refuse_waits(monkeypatch):
    """Whoever waits for a lock from now on fails: how long a busy machine takes says nothing."""
    monkeypatch.setattr(hpo.lock.time, "sleep", lambda _: pytest.fail("it waits"))


def test_a_lock_is_free_held_and_free_again(lock):
    assert not is_locked(lock)
    with sweep_lock(lock):
        assert is_locked(lock)
        assert lock_owner(lock) == os.getpid()
    assert not is_locked(lock)


def test_on_nfs_a_file_is_asked_for_as_one_that_may_be_written(tmp_path, monkeypatch):
    """There a lock of its own needs a file that is open for writing."""
    flock, file = fcntl.flock, tmp_path / "release.json"
    file.touch()

    def of_nfs(fd, kind):
        if kind & fcntl.LOCK_EX and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(fd, kind)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    assert not is_in_use(file)
    with held_alone(file) as is_mine:
        assert is_mine
        assert is_in_use(file)
    held = hold_shared(file)
    assert is_in_use(file)
    os.close(held)


def test_it_is_free_after_an_error(lock):
    with pytest.raises(KeyError), sweep_lock(lock):
        raise KeyError
    assert not is_locked(lock)


def test_asking_whether_it_is_held_neither_creates_nor_takes_it(lock):
    assert not is_locked(lock)
    assert not lock.exists()
    with sweep_lock(lock):
        pass
    assert not is_locked(lock)
    with sweep_lock(lock):  # the question above has left nothing held
        pass


def test_a_second_process_is_refused_at_once_and_told_who_holds_it(lock, monkeypatch):
    with holder(lock) as process:
        refuse_waits(monkeypatch)
        expected = rf"already running \(process {process.pid}; .*lock\); wait for its end, or: hpo stop "
        with pytest.raises(SweepError, match=expected), sweep_lock(lock):
            pytest.fail("two processes hold the lock")
        assert is_locked(lock)


def test_the_refused_process_leaves_the_owner_s_name(lock):
    with holder(lock) as process:
        with pytest.raises(SweepError), sweep_lock(lock):
            pass
        assert lock_owner(lock) == process.pid


def test_two_sweeps_do_not_meet(tmp_path):
    with sweep_lock(tmp_path / "a" / "lock"), sweep_lock(tmp_path / "b" / "lock"):
        assert is_locked(tmp_path / "a" / "lock")


def test_it_is_freed_when_its_holder_is_killed(lock):
    with holder(lock) as process:
        process.kill()
        process.wait()
        assert not is_locked(lock)
        with sweep_lock(lock):
            pass


def test_a_child_that_inherits_it_keeps_it(lock):
    with sweep_lock(lock) as fd:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[fd])
    try:
        assert is_locked(lock)
    finally:
        child.kill()
        child.wait()
    assert not is_locked(lock)


def test_a_child_that_does_not_inherit_it_does_not_keep_it(lock):
    with sweep_lock(lock):
        child = subprocess.Popen(["sleep", "60"])
    try:
        assert not is_locked(lock)
    finally:
        child.kill()
        child.wait()


def test_a_restart_waits_for_the_last_orphan_to_end(lock, monkeypatch):
    orphan, waits = leave_orphan(lock), []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            end(orphan)

    monkeypatch.setattr(hpo.lock.time, "sleep", wait)
    with sweep_lock(lock):
        assert len(waits) == 3
        assert lock_owner(lock) == os.getpid()


def test_a_free_lock_is_removed_with_its_folder(lock):
    with sweep_lock(lock):
        (lock.parent / "trials").mkdir()
        (lock.parent / "host.log").touch()
    remove_unheld(lock)
    assert not lock.parent.exists()
    remove_unheld(lock)  # there is nothing to remove


def test_a_lock_that_another_process_holds_is_never_removed(lock, monkeypatch):
    with holder(lock):
        (lock.parent / "host.log").touch()
        refuse_waits(monkeypatch)
        remove_unheld(lock)
        assert {path.name for path in lock.parent.iterdir()} == {"lock", "host.log"}
        assert is_locked(lock)


def test_a_lock_is_removed_when_the_child_that_still_holds_it_has_ended(lock, monkeypatch):
    with sweep_lock(lock) as fd:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[fd])
    assert is_locked(lock)
    monkeypatch.setattr(hpo.lock.time, "sleep", lambda _: (child.kill(), child.wait()))
    remove_unheld(lock)
    assert child.poll() is not None
    assert not lock.parent.exists()


def test_a_lock_that_a_child_keeps_stays(lock, monkeypatch):
    monkeypatch.setattr(hpo.lock, "_CHILDREN_END_WITHIN_S", 0.2)
    with sweep_lock(lock) as fd:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[fd])
    try:
        remove_unheld(lock)
        assert is_locked(lock)
    finally:
        child.kill()
        child.wait()


def test_who_waited_for_a_removed_lock_takes_the_one_that_is_there_now(lock, monkeypatch):
    """Else two processes would hold one sweep: each its own file."""
    orphan = leave_orphan(lock)
    waits = 0

    def replace_it(_seconds):
        nonlocal waits
        waits += 1
        lock.unlink()  # as a person might, by hand
        end(orphan)

    monkeypatch.setattr(hpo.lock.time, "sleep", replace_it)
    with sweep_lock(lock):
        assert waits == 1
        assert is_locked(lock)
        assert lock_owner(lock) == os.getpid()


def test_an_orphan_that_does_not_end_is_waited_for_only_so_long(lock, monkeypatch):
    monkeypatch.setattr(hpo.lock, "ORPHANS_END_WITHIN_S", 0.3)
    orphan = leave_orphan(lock)
    try:
        with pytest.raises(SweepError, match="already running"), sweep_lock(lock):
            pytest.fail("the orphan still holds the lock")
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_who_waited_for_a_folder_that_goes_does_not_hold_its_successor(tmp_path, monkeypatch):
    folder, hold_shared = tmp_path / "inputs", hpo.lock.hold_shared
    folder.mkdir()

    def waited(path):
        fd = hold_shared(path)
        discard(path)  # by whoever held it alone until now
        path.mkdir()
        return fd

    monkeypatch.setattr(hpo.lock, "hold_shared", waited)
    assert hold_if_there(folder) is None
    monkeypatch.undo()
    fd = hold_if_there(folder)
    with held_alone(folder) as is_mine:
        assert not is_mine
    os.close(fd)
    with held_alone(folder) as is_mine:
        assert is_mine
    with held_alone(tmp_path / "nowhere") as is_mine:
        assert not is_mine
