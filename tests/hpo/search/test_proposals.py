"""Which point comes next: lined-up ones in their order, then the strategy's, none twice, and a total of trials."""

from __future__ import annotations

import pytest

import hpo.search.proposals
from hpo.search.proposals import Proposals
from hpo.study.store import open_study
from tests.hpo.builders import RATE, Sweep, trial_record, trial_result
from trainers.protocol.codec import fingerprint

RANKS = {"lora_r": {"type": "choice", "values": [4, 8, 16, 32]}}


@pytest.fixture
def sweep(tmp_path):
    def sweep(**changes):
        return Sweep(tmp_path, **changes)

    return sweep


def proposals(sweep, study=None, warm=()):
    return Proposals(sweep.config, study or sweep.open(), warm)


def begun(given, count=99):
    """Points as they are begun, each trial complete before the next."""
    points = []
    while len(points) < count and (begun := given.begin()):
        number, point = begun
        points.append(point)
        given._study.finish(number, trial_result("complete", 0.5))
    return points


def test_the_baseline_the_file_s_own_an_earlier_sweep_s_best_then_the_strategy_s(sweep):
    space = {**RATE, **RANKS}
    given = sweep(
        search_space=space,
        search_strategy={
            "type": "random", "num_trials": 6, "enqueue": [{"lora_r": 32}, {"learning_rate": 1e-4, "lora_r": 16}],
        },
    )  # fmt: skip
    warm = [{"learning_rate": 1e-2, "lora_r": 4}]
    points = begun(proposals(given, warm=warm))
    default = given.config.baseline()
    assert points[:4] == [
        default, {**default, "lora_r": 32}, {"learning_rate": 1e-4, "lora_r": 16}, {"learning_rate": 1e-2, "lora_r": 4}
    ]  # fmt: skip
    assert len(points) == 6
    assert len({fingerprint(point) for point in points}) == 6


def test_a_point_is_lined_up_once_however_often_it_is_named(sweep):
    default = {"lora_r": 8}
    given = sweep(search_space=RANKS, search_strategy={"type": "grid", "enqueue": [default, {"lora_r": 16}]})
    points = begun(proposals(given, warm=[default, {"lora_r": 16}]))
    assert [point["lora_r"] for point in points] == [8, 16, 4, 32]


def test_lined_up_points_go_on_where_an_earlier_session_ended(sweep):
    given = sweep(search_strategy={"type": "random", "num_trials": 4, "enqueue": [
        {"learning_rate": 1e-2}, {"learning_rate": 1e-4}]})  # fmt: skip
    assert begun(proposals(given), 2)[1] == {"learning_rate": 1e-2}
    assert begun(proposals(given), 1) == [{"learning_rate": 1e-4}]


def test_the_number_of_trials_is_a_total(sweep):
    given = sweep(search_strategy={"type": "random", "num_trials": 3})
    assert len(begun(proposals(given))) == 3
    assert begun(proposals(given)) == []
    given.edit(search_strategy={"type": "random", "num_trials": 5})
    assert len(begun(proposals(given))) == 2
    given.edit(search_strategy={"type": "random", "num_trials": 2})
    assert begun(proposals(given)) == []


def test_the_budget_s_trials_bound_the_total(sweep):
    given = sweep(search_strategy={"type": "random", "num_trials": 5}, budget={"trials": 2})
    assert len(begun(proposals(given))) == 2


def test_trials_that_reuse_a_result_are_not_counted(sweep):
    """Here None is two times the rank, and so is 16.0."""
    given = sweep(
        search_space={"lora_alpha": {"type": "choice", "values": [None, 16, 32]}},
        search_strategy={"type": "random", "num_trials": 9},
    )
    study = given.open()
    points = begun(proposals(given, study))
    trained = [r for r in study.records() if not r.reused_from]
    assert len(points) > 2
    assert len(trained) == 2
    assert {r.reused_from for r in study.records()} <= {None, "0", "1", "2", "3"}


def test_a_trial_taken_over_from_another_sweep_is_not_counted(sweep):
    given = sweep(search_strategy={"type": "random", "num_trials": 2})
    study = given.open()
    study.copy(trial_record(0, params={"learning_rate": 0.01}, reused_from="other/4"))
    assert len(begun(proposals(given, study))) == 2
    assert len(study.records()) == 3


def test_a_point_taken_over_from_another_sweep_is_not_trained_again(sweep):
    given = sweep(search_space=RANKS, search_strategy={"type": "random", "num_trials": 20})
    study = given.open()
    for number, rank in enumerate((4, 32)):
        point = {"lora_r": rank}
        study.copy(
            trial_record(number, params=point, fingerprint=given.fingerprint_of(point), reused_from=f"other/{rank}")
        )
    begun(proposals(given, study))
    trained = [r.params["lora_r"] for r in study.records() if not r.reused_from]
    assert sorted(trained) == [8, 16]
    assert {r.reused_from for r in study.records() if r.params["lora_r"] == 4} <= {"other/4", "0"}


def test_a_crashed_point_is_not_lined_up_again(sweep):
    given = sweep(search_space=RANKS, search_strategy={"type": "grid"})
    study = given.open()
    first = proposals(given, study)
    assert begun(first, 1) == [{"lora_r": 8}]
    number, _ = first.begin()
    study.finish(number, trial_result("failed", None, cause="crash"))
    assert [point["lora_r"] for point in begun(first)] == [16, 32]
    assert first.begin() is None


LOST = [
    trial_result("failed", None, cause="crash"), trial_result("failed", None, cause="timeout"),
    trial_result("pruned", 0.4, stopped_by="sweep_budget"),
]  # fmt: skip


@pytest.mark.parametrize("result", LOST)
def test_a_baseline_that_was_lost_is_lined_up_once_more_after_all_others(sweep, result):
    given = sweep(search_space=RANKS, search_strategy={"type": "grid"})
    study = given.open()
    first = proposals(given, study)
    study.finish(first.begin()[0], result)
    assert [point["lora_r"] for point in begun(first, 3)] == [4, 16, 32]
    number, point = first.begin()
    assert (point, study.record(number).reused_from) == ({"lora_r": 8}, None)
    study.finish(number, result)
    assert first.begin() is None
    assert begun(proposals(given, study)) == [{"lora_r": 8}]
    assert begun(proposals(given, study)) == []


@pytest.mark.parametrize("cause", ["oom", "diverged"])
def test_a_baseline_that_cannot_be_trained_is_not_tried_again(sweep, cause):
    given = sweep(search_space=RANKS, search_strategy={"type": "grid"})
    study = given.open()
    first = proposals(given, study)
    study.finish(first.begin()[0], trial_result("failed", None, cause=cause))
    assert [point["lora_r"] for point in begun(first)] == [4, 16, 32]
    assert begun(proposals(given, study)) == []


def test_a_grid_that_is_smaller_than_the_budget_is_exhausted_by_it(sweep):
    given = sweep(search_space=RANKS)
    study = given.open()
    assert study.strategy.type == "grid"
    whole = proposals(given, study)
    assert len(begun(whole)) == 4
    assert whole.exhausted


def test_a_space_without_dimensions_is_one_trial(sweep):
    given = sweep(search_space={})
    only = proposals(given)
    assert begun(only) == [{}]
    assert proposals(given).begin() is None


@pytest.mark.parametrize("strategy", ["random", "qmc", "tpe"])
def test_a_finite_space_ends_although_more_trials_are_asked_for(sweep, strategy):
    given = sweep(search_space=RANKS, search_strategy={"type": strategy, "num_trials": 50})
    study = given.open()
    whole = proposals(given, study)
    begun(whole)
    assert whole.exhausted
    assert sorted(r.params["lora_r"] for r in study.records() if not r.reused_from) == [4, 8, 16, 32]
    assert proposals(given, study).begin() is None


def test_points_still_under_way_are_not_proposed_again(sweep):
    given = sweep(search_space=RANKS, search_strategy={"type": "random", "num_trials": 50})
    study = given.open()
    under_way = proposals(given, study)
    while under_way.begin():
        pass
    assert under_way.exhausted
    assert sorted(r.params["lora_r"] for r in study.records() if not r.reused_from) == [4, 8, 16, 32]


def test_a_continuum_whose_points_are_all_equal_comes_to_an_end(sweep, monkeypatch):
    """Of a thousand rows a ten-thousandth is none, so all these budgets are one."""
    monkeypatch.setattr(hpo.search.proposals, "MOST_DUPLICATES", 8)
    epochs = {"max_epochs": {"type": "float", "low": 1.0, "high": 1.0001}}
    given = sweep(search_space=epochs, training={"max_epochs": 1.0}, search_strategy={"type": "random"})
    study = given.open()
    one = proposals(given, study)
    assert len(begun(one)) == 9
    assert one.exhausted
    assert sum(not r.reused_from for r in study.records()) == 1


def test_a_spread_goes_on_by_the_trial_s_number(sweep):
    given = sweep(search_strategy={"type": "qmc", "num_trials": 6})
    points = begun(proposals(given))
    again = open_study(given.config, given.fingerprint_of, None)
    for number, point in enumerate(points[:3]):
        again.copy(trial_record(number, params=point, fingerprint=given.fingerprint_of(point)))
    assert begun(proposals(given, again)) == points[3:]


# --- points that are left out ----------------------------------------------------------------------------


def small(point):
    return point["lora_r"] <= 12


@pytest.mark.parametrize("strategy", ["random", "qmc", "tpe", "informed", "nsga2"])
def test_no_strategy_begins_a_point_that_is_not_allowed_and_none_counts_as_a_trial(sweep, strategy):
    ranks = {"lora_r": {"type": "int", "low": 4, "high": 64}}
    kind = {"type": strategy, "num_trials": 9, "enqueue": [{"lora_r": 64}]}
    given = sweep(search_space={**RATE, **ranks}, search_strategy=kind)
    study = given.open()
    points = begun(Proposals(given.config, study, [], small))
    assert len(points) == 9
    assert all(small(point) for point in points)
    assert [record.number for record in study.records()] == list(range(9))
    stored = given.open().records()  # what another process reads back
    assert [record.params for record in stored] == points


def test_a_grid_without_what_is_not_allowed_is_exhausted(sweep):
    given = sweep(search_space=RANKS, search_strategy={"type": "grid"})
    some = Proposals(given.config, given.open(), [], small)
    assert [point["lora_r"] for point in begun(some)] == [8, 4]
    assert some.exhausted


def test_the_baseline_is_tried_in_any_case_and_where_nothing_else_may_the_search_ends(sweep):
    for changes in ({}, {"search_space": RANKS}):
        given = sweep(search_strategy={"type": "random", "num_trials": 9}, **changes)
        only = Proposals(given.config, open_study(given.config, given.fingerprint_of, None), [], lambda _: False)
        assert begun(only) == [given.config.baseline()]
        assert only.exhausted
