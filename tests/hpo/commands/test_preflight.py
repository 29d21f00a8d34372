"""What is asked of the trial host before anything is written, and what becomes of its answers."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from hpo.commands import session
from hpo.commands.preflight import at_its_clock, inspect, nothing_left_behind, prepared_data, slots_for, warm_up
from hpo.config.budget import Meter, Spent, next_time
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ConfigError, Problem
from hpo.executors.inline import InlineExecutor
from hpo.lock import is_in_use, sweep_lock
from hpo.paths import Home, held_of_prepared
from hpo.progress_view import Silent
from hpo.tracking.base import Untracked
from hpo.trials.slots import Slots
from tests.hpo.builders import INSPECTION, RATE, Recording, Sweep, make_config, work
from trainers.protocol.events import Decision, Loaded
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Inspect


def worker(request):
    yield Loaded(1, 0.0, ["shortcut not used: layers without padding"])


def test_notes_of_the_host_come_after_those_of_the_data(tmp_path):
    specs = warm_up(InlineExecutor(worker), TrialSpecs(make_config(tmp_path), Home(tmp_path), INSPECTION))
    assert specs.prepared.notes == [*INSPECTION.notes, "shortcut not used: layers without padding"]


def test_the_host_imports_before_the_child_that_inspects_and_while_it_does(tmp_path):
    """All is sent at once: the host takes one after the other, but answers an inspection from a child."""

    class Sent(Recording):
        answered_before_the_last = 0

        def wait(self, timeout_s=None):
            self.answered_before_the_last += len(self.others) < 3
            return super().wait(timeout_s)

    executor = Sent()
    inspect(executor, make_config(tmp_path), Home(tmp_path))
    assert [type(request).__name__ for request in executor.others] == ["Import", "Inspect", "Load"]
    assert executor.answered_before_the_last == 0


def test_prepared_data_are_held_and_made_again_where_they_went_meanwhile(tmp_path):
    """`hpo gc` may take them as long as nobody has said that they are used."""
    folder, made = tmp_path / "tokens" / "a", []

    def prepares(request):
        if isinstance(request, Inspect):
            made.append(folder)
            if len(made) == 2:
                folder.mkdir(parents=True)
                held_of_prepared(folder).touch()
            yield dataclasses.replace(INSPECTION, tokens_dir=str(folder))
        else:
            yield from work(request)

    with prepared_data(InlineExecutor(prepares), make_config(tmp_path), Home(tmp_path)) as prepared:
        assert prepared.tokens_dir == str(folder)
        assert len(made) == 2
        assert is_in_use(held_of_prepared(folder))
    assert not is_in_use(held_of_prepared(folder))


def test_a_time_of_day_is_the_first_one_after_the_command_however_long_data_is_read(tmp_path):
    home, began = Home(tmp_path), time.time()
    config = at_its_clock(make_config(tmp_path, budget={"until": "06:00"}), home)
    assert config.ends_at == next_time("06:00", began)
    read = Meter(config.budget, Spent(), lambda: config.ends_at + 300, config.ends_at)
    assert read.exhausted() == "until: 06:00"
    assert at_its_clock(dataclasses.replace(config, ends_at=7.0), home).ends_at == 7.0  # of a night's window
    assert at_its_clock(make_config(tmp_path), home).ends_at is None


FP32, BF16 = Decision("fp32", "bf16 1.4x slower here"), Decision("bf16", "fp32 2.0x slower here")

# --- what `precision: auto` is -------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path, database, monkeypatch):
    """The same sweep begun or continued: its specs, and what the host was asked to decide."""
    monkeypatch.setattr(session, "tracker_of", lambda *_: Untracked())
    given = Sweep(tmp_path, database)

    def begin(answers, **edit):
        asked = []

        def decides(request):
            asked.append(request.decide_for)
            yield Loaded(1, 0.0, precision=answers)

        if edit:
            given.edit(**edit)
        executor = InlineExecutor(decides)
        specs = warm_up(executor, TrialSpecs(given.config, given.home, INSPECTION))
        with session.open_run(specs, executor, Silent(), Slots(1, 1)) as sweep:
            return specs, asked[0], sweep.study.state.precision

    begin.sweep = given
    return begin


def test_a_sweep_keeps_the_precision_that_it_began_with(begun):
    specs, asked, kept = begun(FP32)
    assert asked == TrialSpecs(begun.sweep.config, begun.sweep.home, INSPECTION).spec(
        0, specs.config.baseline(), begun.sweep.home.sweep(specs.config.name).trial(0)
    )
    assert (specs.spec(0, {}, TrialPaths(Path("t"))).workload.arithmetic, kept) == ("fp32", FP32)
    specs, asked, kept = begun(BF16)  # resumed, on a machine that would choose another
    assert asked is None
    assert (specs.spec(0, {}, TrialPaths(Path("t"))).workload.arithmetic, kept) == ("fp32", FP32)
    specs, asked, kept = begun(BF16, search_space={**RATE, "lora_r": {"type": "int", "low": 4, "high": 16}})
    assert (asked, kept, specs.config.workload(begun.sweep.home).arithmetic) == (None, FP32, "fp32")
    assert specs.prepared.notes[-1] == "precision: fp32 (bf16 1.4x slower here)"


def test_a_sweep_that_began_before_precision_was_measured_goes_on_as_it_was(begun):
    begun.sweep.open()
    specs, asked, kept = begun(FP32)
    assert (asked, kept, specs.config.workload(begun.sweep.home).arithmetic) == (None, None, "auto")


def test_a_precision_that_the_file_names_is_not_decided(begun):
    specs, asked, kept = begun(None, training={"precision": "fp32"})
    assert (asked, kept, specs.config.workload(begun.sweep.home).arithmetic) == (None, None, "fp32")


def test_a_decision_changes_no_fingerprint(begun):
    before = TrialSpecs(begun.sweep.config, begun.sweep.home, INSPECTION)
    specs, _, _ = begun(BF16)
    assert specs.fingerprint({}) == before.fingerprint({})


# --- what `hpo show` will need -------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [40, None])
def test_a_run_writes_down_how_many_rows_its_evaluations_use(tmp_path, database, monkeypatch, rows):
    monkeypatch.setattr(session, "tracker_of", lambda *_: Untracked())
    given = Sweep(tmp_path, database, training={"max_examples": 100, "evaluation_rows": rows})
    with session.open_run(given.specs, given.executor, Silent(), Slots(1, 1)):
        pass
    assert given.open().state.evaluation_rows == rows


# --- what a sweep that did not begin leaves --------------------------------------------------------------


def test_a_home_that_cannot_be_removed_hides_no_error(tmp_path, monkeypatch):
    """It may be a volume, or in a folder of somebody else."""
    home, refused = Home(tmp_path / "volume"), ConfigError([Problem("a.yaml:1", "is wrong")])
    remove = Path.rmdir

    def rmdir(folder):
        if folder == home.dir:
            raise PermissionError(13, "Permission denied", str(folder))
        remove(folder)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    with (
        pytest.raises(ConfigError, match="is wrong"),
        nothing_left_behind(home, "s"),
        sweep_lock(home.sweep("s").lock),
    ):
        raise refused
    assert list(home.dir.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(ConfigError), nothing_left_behind(home, "s"):
        raise refused
    assert not home.dir.exists()


# --- how many trials at a time ---------------------------------------------------------------------------


def test_cores_that_no_point_needs_go_to_the_trials_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr("hpo.trials.slots.cores", lambda: 8)
    monkeypatch.setattr("hpo.trials.slots.available_memory_mb", lambda: float(1 << 20))
    monkeypatch.setattr("hpo.commands.memory.cores", lambda: 8)
    monkeypatch.setattr("hpo.commands.memory.available_memory_mb", lambda: float(1 << 20))
    config = make_config(tmp_path, search_space={"lora_r": {"type": "choice", "values": [4, 8]}})
    slots, _ = slots_for(InlineExecutor(worker), TrialSpecs(config, Home(tmp_path), INSPECTION), None, None, str)
    assert (slots.jobs, slots.threads) == (2, 4)


# --- what has changed since a sweep began --------------------------------------------------------------


def test_labels_of_other_names_are_other_data(tmp_path, database, monkeypatch):
    """The hash of the data has only their numbers."""
    monkeypatch.setattr(session, "tracker_of", lambda *_: Untracked())
    given = Sweep(tmp_path, database)
    with session.open_run(given.specs, given.executor, Silent(), Slots(1, 1)):
        pass

    def with_labels(*labels):
        def answer(request):
            found = dataclasses.replace(INSPECTION, labels=list(labels))
            yield from [found] if isinstance(request, Inspect) else work(request)

        return inspect(InlineExecutor(answer), given.config, given.home)

    assert with_labels("a", "b").fingerprint == INSPECTION.fingerprint
    with pytest.raises(ConfigError, match="the data of sweep 'sweep' has changed since it began"):
        with_labels("a", "c")
