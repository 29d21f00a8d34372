"""Studies on a PostgreSQL server: one that vanishes, and one writer of each sweep on whichever machine."""

from __future__ import annotations

import dataclasses
import signal
import threading
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

import hpo.databases.postgres
import hpo.study.lease
from hpo.databases.postgres import ServerGone
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError, SweepError
from hpo.signals import stop_wish
from hpo.study.lease import LeaseLost, held_lease, holders
from hpo.study.revision import open_revision
from hpo.study.store import delete_sweep, delete_unopened, open_study, study_names, view_study
from tests.hpo.builders import RATE, make_config, trial_record, trial_result
from tests.postgres import PASSWORD, as_a_process
from trainers.protocol.codec import fingerprint


@pytest.fixture
def studies(postgresql, request, monkeypatch):
    monkeypatch.setattr(hpo.databases.postgres, "_STEP_S", 0.01)
    with as_a_process():
        yield StudiesDatabase.on_server(postgresql.create(request.node.name[-60:]))


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path, name="s", search_space=RATE, search_strategy={"type": "random"})


# --- a server that vanishes ----------------------------------------------------------------------------


def steps(study, config):
    """Every way in which a sweep writes, one after another."""
    yield lambda: study.update_state(config=config.resolved())
    yield lambda: study.begin(config.baseline())
    yield lambda: study.begin(None)
    yield lambda: study.set_run_id(0, "run0")
    yield lambda: study.report(0, 0, 0.5, 0.1)
    yield lambda: study.finish(0, trial_result("complete", 0.4))
    yield lambda: study.finish(1, trial_result("pruned", 0.1))
    yield lambda: study.copy(trial_record(2, "complete", 0.3, config.baseline(), run_id="run2"))
    yield lambda: study.begin(None)


def expected(config):
    study = open_study(config, fingerprint, None)
    for step in steps(study, config):
        step()
    return study.records()


@pytest.fixture
def held(studies, tmp_path):
    """The lease, as a sweep has it."""
    with held_lease(studies, "s", tmp_path):
        yield


@pytest.mark.usefixtures("held")
def test_a_server_that_vanishes_before_any_write_is_waited_for(postgresql, studies, config, capsys):
    study = open_study(config, fingerprint, studies)
    for number, step in enumerate(steps(study, config)):
        postgresql.stop()
        back = threading.Timer(0.2 if number == 0 else 0.0, postgresql.start)
        back.start()
        step()
        back.join()
    assert study.records() == view_study(studies, "s").records == expected(config)
    study.close()
    said = capsys.readouterr().err
    assert (
        f"{studies} does not answer: waiting, at most 10 minutes; Ctrl-C ends the wait\n{studies} answers again\n"
        in said
    )
    assert "s3cret" not in said


@pytest.mark.usefixtures("held")
def test_a_write_whose_answer_was_lost_is_not_done_twice(postgresql, studies, config, monkeypatch):
    """The server commits, and the answer to every second commit does not arrive: the first one of each call."""
    study = open_study(config, fingerprint, studies)
    dialect = study._storage.engine.dialect
    commit, commits = dialect.do_commit, []

    def losing(connection):
        commit(connection)
        commits.append(connection)
        if len(commits) % 2:
            connection.dbapi_connection.close()
            connection.dbapi_connection.commit()  # says what it says of a broken one

    monkeypatch.setattr(dialect, "do_commit", losing)
    for step in steps(study, config):
        step()
    assert len(commits) > 40
    assert study.records() == view_study(studies, "s").records == expected(config)
    assert len(study._study.get_trials(deepcopy=False)) == 4
    study.close()


@pytest.mark.usefixtures("held")
def test_a_server_that_does_not_come_back_is_given_up(postgresql, studies, config, monkeypatch):
    monkeypatch.setattr(hpo.databases.postgres, "WAITS_S", 0.2)
    study = open_study(config, fingerprint, studies)
    postgresql.stop()
    try:
        with pytest.raises(ServerGone, match=r"does not answer.*start the server.*; then the same command continues"):
            study.begin(config.baseline())
    finally:
        postgresql.start()
    assert study.begin(config.baseline())[0] == 0
    study.close()


@pytest.mark.parametrize("is_interrupt", [False, True])
def test_nobody_has_to_wait_for_a_server(postgresql, studies, monkeypatch, is_interrupt):
    """Ctrl-C ends the wait, and what is written because of it does not wait again."""
    waits = []

    def wait(_):
        waits.append(1)
        if is_interrupt:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    study_names(studies)
    postgresql.stop()
    try:
        with stop_wish(), monkeypatch.context() as patch:
            patch.setattr(hpo.databases.postgres.time, "sleep", wait)
            with pytest.raises(KeyboardInterrupt if is_interrupt else ServerGone):
                study_names(studies)
            with pytest.raises(ServerGone):
                study_names(studies)
    finally:
        postgresql.start()
    assert len(waits) == 1


# --- one writer ----------------------------------------------------------------------------------------


class Clock:
    """Of the server, in seconds."""

    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def elsewhere(monkeypatch):
    """Takes leases as a process of another machine."""

    def take(studies, clock, sweep="s"):
        with monkeypatch.context() as patch:
            patch.setattr(hpo.study.lease, "this_machine", lambda: "another boot")
            patch.setattr("socket.gethostname", lambda: "gpu7")
            lease = hpo.study.lease.Lease(studies, sweep, hpo.databases.postgres.engine_of(studies), clock)
            hpo.study.lease._make_table(studies, lease._engine)
            try:
                lease.take(Path("/data/other"))
            except BaseException:
                lease._engine.dispose()
                raise
        return lease

    return take


def test_a_second_process_leaves_and_says_who_runs_the_sweep(studies, clock, elsewhere, tmp_path):
    lease = elsewhere(studies, clock)
    clock.now += 50
    expected = r"sweep 's' is already running: process \d+ on gpu7, since 1970.*, home /data/other; .*in 10 seconds"
    with pytest.raises(SweepError, match=expected), held_lease(studies, "s", tmp_path, clock):
        pass
    with held_lease(studies, "another", tmp_path, clock):
        found = holders(studies, clock)
        assert {name: holder.left_s for name, holder in found.items()} == {"s": 10, "another": 60}
    assert holders(studies, clock)["another"].left_s < 0
    lease.renew()
    assert holders(studies, clock)["s"].left_s == 60
    lease._engine.dispose()


def test_a_lease_that_is_not_renewed_ends_and_fences_its_holder(studies, clock, elsewhere, config, tmp_path):
    with held_lease(studies, "s", tmp_path, clock):
        study = open_study(config, fingerprint, studies)
        study.update_state(config=config.resolved())
        study.begin(config.baseline())
        clock.now += 1000  # paused, but nobody wanted the sweep
        study.report(0, 0, 0.5, 0.1)
        clock.now += 60
        other = elsewhere(studies, clock)
        before = view_study(studies, "s").records
        writes = [
            lambda: study.report(0, 1, 1.0, 0.9), lambda: study.begin(None), lambda: study.update_state(state="x"),
            lambda: study.finish(0, trial_result("complete", 0.9)),
        ]  # fmt: skip
        for write in writes:
            with pytest.raises(LeaseLost, match=r"no longer this process's: process \d+ on gpu7"):
                write()
        assert view_study(studies, "s").records == before
        study.close()
    assert holders(studies, clock)["s"].left_s == 60  # of the other one, which the end here did not free
    other._engine.dispose()


def test_without_the_lease_nothing_is_written_and_everything_read(studies, config, tmp_path):
    writes = [
        lambda: open_study(config, fingerprint, studies), lambda: open_study(config, fingerprint, studies, "s@2"),
        lambda: open_revision(config, fingerprint, studies), lambda: delete_sweep(studies, "s"),
        lambda: delete_unopened(studies, "s@2"),
    ]  # fmt: skip

    def all_are_refused():
        for write in writes:
            with pytest.raises(LeaseLost, match="'s': this process does not hold its lease, and writes nothing in"):
                write()

    all_are_refused()
    with held_lease(studies, "another", tmp_path):
        all_are_refused()
    assert study_names(studies) == []
    with held_lease(studies, "s", tmp_path):
        study, *_ = open_revision(config, fingerprint, studies)
    for write in (lambda: study.begin(config.baseline()), lambda: study.update_state(state="x")):
        with pytest.raises(LeaseLost, match="no longer this process's: it has given up its lease"):
            write()
    study.close()
    all_are_refused()
    assert holders(studies)["s"].left_s < 0
    assert view_study(studies, "s").records == []


def test_a_dead_process_of_this_machine_is_not_waited_for(studies, clock, elsewhere, monkeypatch, tmp_path):
    lease = elsewhere(studies, clock)
    monkeypatch.setattr(hpo.study.lease, "this_machine", lambda: "another boot")  # now it is this one
    with held_lease(studies, "s", tmp_path, clock), pytest.raises(LeaseLost):
        lease.renew()
    lease._engine.dispose()


def test_only_a_process_that_has_ended_is_dead(studies, tmp_path):
    with held_lease(studies, "s", tmp_path):
        holder = holders(studies)["s"]
    assert not dataclasses.replace(holder, pid=1).is_dead
    assert dataclasses.replace(holder, pid=2**30).is_dead  # larger than any process's
    assert not dataclasses.replace(holder, pid=2**30, machine="another boot").is_dead


def test_a_lease_is_renewed_again_after_any_error_of_the_database(studies, elsewhere, clock, monkeypatch):
    lease = elsewhere(studies, clock)
    calls = []

    def renew():
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError("UPDATE", {}, Exception("canceling statement due to lock timeout"))
        lease._ended.set()

    monkeypatch.setattr(hpo.study.lease, "RENEWED_EVERY_S", 0.0)
    monkeypatch.setattr(lease, "renew", renew)
    lease.keep()
    assert len(calls) == 2
    lease._engine.dispose()


def test_who_may_not_read_leases_learns_which_right_is_missing(postgresql, studies, tmp_path):
    name = studies.place.rpartition("/")[2]
    with held_lease(studies, "s", tmp_path):
        pass
    postgresql.ask(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'", name)
    reader = StudiesDatabase.on_server(postgresql.url(name).replace("hpo:", "reader:"))
    for use in (holders, lambda studies: held_lease(studies, "s", tmp_path).__enter__()):
        with pytest.raises(HpoError, match=r"cannot be used: permission denied for .*; grant that right to the role"):
            use(reader)
    postgresql.ask("GRANT SELECT ON hpo_leases TO reader", name)
    assert list(holders(reader)) == ["s"]


def test_a_lease_outlives_a_server_that_restarts(postgresql, studies, config, tmp_path):
    with held_lease(studies, "s", tmp_path):
        study = open_study(config, fingerprint, studies)
        study.begin(config.baseline())
        postgresql.stop()
        postgresql.start()
        assert study.begin(None)[0] == 1
        study.close()
        assert holders(studies)["s"].left_s > 50
    with held_lease(studies, "s", tmp_path):
        delete_sweep(studies, "s")
    assert study_names(studies) == []


# --- a server that cannot be used ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "found"),
    [("you:secret@127.0.0.1:PORT/studies", "correct user and password"),
     ("hpo:secret@127.0.0.1:PORT/studies", "correct user and password"),
     ("RIGHT@127.0.0.1:PORT/none", "create the database"), ("hpo:secret@127.0.0.1:1/studies", "start the server"),
     ("hpo:secret@no.invalid/studies", "start the server")],
)  # fmt: skip
def test_a_wrong_address_is_one_plain_error_at_once(postgresql, address, found, monkeypatch):
    monkeypatch.setattr(hpo.databases.postgres, "_answered", set())  # nor does this process know it from other tests
    login = postgresql.url().partition("//")[2].partition("@")[0]
    address = address.replace("RIGHT", login).replace("PORT", str(postgresql.port))
    for use in (study_names, holders, lambda studies: held_lease(studies, "s", Path()).__enter__()):
        with pytest.raises(HpoError, match=f"(does not answer|cannot be used): .*{found}") as refused:
            use(StudiesDatabase.on_server(f"postgresql://{address}"))
        assert "secret" not in str(refused.value)
        assert PASSWORD not in str(refused.value)
