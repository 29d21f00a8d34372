"""One process runs the nights of a name; who it is, other machines, and whoever waits."""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import sys
import threading
from zoneinfo import ZoneInfo

import pytest

from hpo.lock import lock_owner
from hpo.nights import lock as module
from hpo.nights.lock import LEASE, Held, Holder, boot_id, holder_of, night_lock

NOW = datetime.datetime(2026, 11, 29, 1, tzinfo=datetime.UTC)
HOLD = """
import datetime, sys
from pathlib import Path
from hpo.nights.lock import night_lock
with night_lock(Path(sys.argv[1]), lambda: datetime.datetime.now(datetime.UTC), waits=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def now():
    return NOW


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "movies" / "lock"


def write(lock, host, until, boot="another"):
    lock.parent.mkdir(parents=True)
    holder = {"pid": 7, "host": host, "boot": boot, "since": "s", "until": until.isoformat()}
    lock.write_text(f"7\n{json.dumps(holder)}\n")


def test_a_second_process_learns_who_holds_it_and_a_dead_one_holds_nothing(lock):
    held = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        who = rf"process {process.pid} on {socket.gethostname()}, since 2"
        with pytest.raises(Held, match=who), night_lock(lock, now, waits=False):
            pass
        process.kill()
    with night_lock(lock, now, waits=False):
        holder = holder_of(lock)
        assert (holder.pid, lock_owner(lock)) == (os.getpid(), os.getpid())
        assert holder.boot
        assert datetime.datetime.fromisoformat(holder.until) == NOW + LEASE
    assert datetime.datetime.fromisoformat(holder_of(lock).until) == NOW  # nobody elsewhere has to wait for it


def test_a_lease_of_another_machine_counts_until_it_ends(lock):
    write(lock, "elsewhere", NOW + datetime.timedelta(minutes=1))
    with pytest.raises(Held, match="process 7 on elsewhere, since s"), night_lock(lock, now, waits=False):
        pass
    with night_lock(lock, lambda: NOW + datetime.timedelta(minutes=2), waits=False):
        assert holder_of(lock).host == socket.gethostname()


@pytest.mark.parametrize(("host", "boot"), [(socket.gethostname(), "another"), ("a-container", boot_id())])
def test_a_lease_of_this_machine_ended_with_its_process(lock, host, boot):
    write(lock, host, NOW + datetime.timedelta(minutes=1), boot)
    with night_lock(lock, now, waits=False):
        assert holder_of(lock).pid == os.getpid()


def test_a_file_that_names_nobody_stops_nobody(lock):
    lock.parent.mkdir()
    lock.write_text("7\nno JSON\n")
    with night_lock(lock, now, waits=False):
        assert isinstance(holder_of(lock), Holder)


def test_whoever_queues_comes_next_and_a_held_lease_is_renewed(lock, monkeypatch):
    monkeypatch.setattr(module, "RENEWED_EVERY_S", 0.001)
    later, came = NOW + datetime.timedelta(hours=1), threading.Event()
    moments = iter([NOW, NOW])

    def queue():
        with night_lock(lock, now, waits=True):
            came.set()

    with night_lock(lock, lambda: next(moments, later), waits=False):
        while datetime.datetime.fromisoformat(holder_of(lock).until) != later + LEASE:
            pass
        waiting = threading.Thread(target=queue)
        waiting.start()
        assert not came.wait(0.05)
    waiting.join(10)
    assert came.is_set()


@pytest.mark.parametrize(("minute", "fold"), [(10, 1), (58, 0)])
def test_a_lease_is_as_long_as_ever_where_clocks_go_back(lock, minute, fold):
    moment = datetime.datetime(2026, 10, 25, 2, minute, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    with night_lock(lock, lambda: moment, waits=False):
        until = datetime.datetime.fromisoformat(holder_of(lock).until)
        assert until - moment.astimezone(datetime.UTC) == LEASE


def test_a_disk_that_is_full_keeps_no_lock(lock, monkeypatch):
    def full(fd, holder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"), night_lock(lock, now, waits=False):
        disk.setattr(module, "_write", full)
    with night_lock(lock, now, waits=False):
        assert holder_of(lock).pid == os.getpid()
