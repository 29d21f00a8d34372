"""Trials that the pruner stopped and that go on: in a search with given curves, with kills, and in MLflow."""

from __future__ import annotations

import shutil

import pytest

from hpo.progress_view import Silent
from tests.hpo.builders import Killed, Sweep
from trainers.host import fake

CURVES = {  # by number: three that shine early and stall, and one that climbs as the champion does
    0: [0.5, 0.6, 0.7, 0.8, 0.9],
    1: [0.7] * 5,
    2: [0.7] * 5,
    3: [0.7] * 5,
    4: [0.5, 0.62, 0.74, 0.85, 0.95],
    5: [0.1, 0.1, 0.1, 0.1, 0.1],
}


@pytest.fixture(autouse=True)
def curves(monkeypatch):
    monkeypatch.setattr(fake, "_values", lambda spec: list(CURVES[spec.number]))


@pytest.fixture
def given(tmp_path):
    rates = [1e-4 * (number + 1) for number in CURVES]
    return Sweep(
        tmp_path,
        search_strategy={"type": "grid"},
        search_space={"learning_rate": {"type": "choice", "values": rates}},
        training={"max_examples": 100, "learning_rate": rates[0]},
        pruner={"type": "percentile", "standard_errors": 1},
    )


class WentOn(Silent):
    """Notes which trials go on: (number, champion, trials finished)."""

    def __init__(self):
        self.trials = []

    def trial_goes_on(self, number, champion, finished):
        self.trials.append((number, champion, finished))


def kept(given):
    return [number for number in CURVES if given.paths(number).checkpoints.exists()]


def test_a_stopped_trial_goes_on_from_its_checkpoint_and_may_win(given):
    view = WentOn()
    controller = given.search(view=view)
    states = [record.state for record in given.records]
    assert states == ["complete", "complete", "complete", "pruned", "complete", "pruned"]
    assert [value for _, value in given.records[4].curve] == CURVES[4]
    assert given.records[4].resumed_from is not None
    assert given.result_on_disk(4) == given.records[4].result
    assert (controller.best, controller.finished_count) == (0.95, 6)
    assert view.trials == [(4, 0, 5)]


def test_the_rule_stopped_it_before_and_only_the_champion_judges_it_afterwards(given):
    given.search()
    assert [spec.number for spec in given.executor.specs] == [0, 1, 2, 3, 4, 5, 4]
    assert given.executor.verdicts[4, "stop"] == 1


def test_a_trial_that_falls_behind_the_champion_stops_again_for_good(given, monkeypatch):
    monkeypatch.setitem(CURVES, 4, [0.5, 0.5, 0.5, 0.5, 0.5])
    given.search()
    assert [value for _, value in given.records[4].curve] == [0.5, 0.5]
    assert given.records[4].state == "pruned"
    assert [spec.number for spec in given.executor.specs].count(4) == 2


def test_the_gpu_time_of_a_trial_that_goes_on_is_counted_once(given):
    given.search(gpus=1)
    assert given.records[4].state == "complete"
    took = sum(record.result.seconds for record in given.records)
    assert given.open().state.spent.gpu_seconds == pytest.approx(took)


def test_checkpoints_are_kept_while_the_search_lasts(given):
    controller = given.search()
    assert kept(given) == [3, 5]
    controller.end()
    assert kept(given) == []


def test_no_checkpoint_is_kept_on_a_disk_that_is_nearly_full(given, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 99, 1))
    given.search()
    assert kept(given) == []
    assert given.records[4].state == "pruned"


def test_nothing_is_kept_for_a_rule_that_compares_no_values(tmp_path):
    given = Sweep(
        tmp_path, search_strategy={"type": "random", "num_trials": 5}, pruner={"type": "threshold", "lower": 0.6}
    )
    given.search()
    assert [record.state for record in given.records] == ["complete", "complete", "complete", "complete", "pruned"]
    assert kept(given) == []


@pytest.mark.parametrize("killed_at", ["after the study", "after the result"])
def test_a_kill_while_a_trial_is_taken_up_again_loses_nothing(given, monkeypatch, killed_at):
    if killed_at == "after the study":
        monkeypatch.setattr("pathlib.Path.unlink", _raise)
    else:
        monkeypatch.setattr("hpo.study.study.Study.resume", _raise)
    with pytest.raises(Killed):
        given.search()
    monkeypatch.undo()
    monkeypatch.setattr(fake, "_values", lambda spec: list(CURVES[spec.number]))
    assert given.search().finished_count == 6
    assert given.records[4].result.value == 0.95
    assert [record.number for record in given.records] == list(CURVES)


def _raise(*_args, **_kwargs):
    raise Killed


def test_a_reopened_trial_is_read_back_once_by_whoever_opens_the_study(given):
    given.search()
    again = given.open()
    assert [record.number for record in again.records()] == list(CURVES)
    assert again.record(4).state == "complete"
    assert again.record(4).curve == given.records[4].curve
