"""A head start: equal trials of earlier sweeps are taken over, their best points tried first, nothing twice."""

from __future__ import annotations

import pytest

from hpo.search.warm_start import missing_sources, take_over, warm_points
from hpo.tracking.base import Untracked
from tests.hpo.builders import RATE, Killed, Sweep, kept_home, trial_result

RATES = [{"learning_rate": rate} for rate in (1e-3, 1e-4, 1.5e-3, 1e-2)]


OLD = {
    "name": "old", "pruner": {"type": "none"},
    "search_strategy": {"type": "random", "num_trials": 5, "enqueue": RATES},
}  # fmt: skip


@pytest.fixture(scope="module")
def _searched(tmp_path_factory, _empty_studies):
    return kept_home(tmp_path_factory.mktemp("old"), _empty_studies, lambda *where: Sweep(*where, **OLD).search())


@pytest.fixture
def old(_searched):
    """A sweep of five trials: the baseline at 5e-4, and `RATES`."""
    database = _searched()
    return Sweep(database.parents[1], database, **OLD)


def after(old, name="new", trials=2, warm_start="old", **changes):
    """Another sweep in the same home."""
    strategy = {"type": "random", "num_trials": trials, "warm_start": warm_start}
    return Sweep(
        old.folder, old.home.studies_db, name=name, search_strategy=strategy, pruner={"type": "none"}, **changes
    )


class Told(Untracked):
    def __init__(self, kill_at=None):
        self.told = []
        self.kill_at = kill_at

    def start_trial(self, spec, record, *, is_baseline):
        if len(self.told) == self.kill_at:
            raise Killed
        self.told.append((spec.number, record.reused_from, is_baseline))
        return f"run{spec.number}"


def taken(given, tracker=None):
    sweep = given.running(tracker=tracker or Told())
    before = len(sweep.study.records())
    assert take_over(sweep) == len(sweep.study.records()) - before
    return sweep.study


def search(given):
    def warm(study):
        take_over(given.running(tracker=Told(), study=study))
        return warm_points(given.config, given.home)

    given.search(warm=warm)


# --- trials that are taken over ------------------------------------------------------------------------


def test_equal_trials_are_taken_over_with_their_results(old):
    new = after(old)
    tracker = Told()
    study = taken(new, tracker)
    records = study.records()
    assert [r.reused_from for r in records] == [f"old/{n}" for n in range(5)]
    assert [r.result for r in records] == [r.result for r in old.records]
    assert [r.params for r in records] == old.points
    assert [(r.run_id, r.revision, r.attempts) for r in records] == [(f"run{n}", 1, []) for n in range(5)]
    assert tracker.told == [(n, f"old/{n}", n == 0) for n in range(5)]
    assert new.records == records
    assert study.state.baseline == 0


def test_nothing_is_taken_over_twice(old):
    new = after(old)
    taken(new)
    assert len(taken(new).records()) == 5


def test_a_kill_in_between_is_done_again_under_the_same_number(old):
    new = after(old)
    with pytest.raises(Killed):
        taken(new, Told(kill_at=2))
    assert [r.number for r in new.records] == [0, 1]
    tracker = Told()
    assert [r.reused_from for r in taken(new, tracker).records()] == [f"old/{n}" for n in range(5)]
    assert tracker.told[0] == (2, "old/2", False)


def test_what_the_earlier_sweep_trained_since_is_taken_over_too(old):
    new = after(old)
    taken(new)
    old.edit(search_strategy={"type": "random", "num_trials": 6}).search()
    assert [r.reused_from for r in taken(new).records()][5:] == ["old/5"]


def test_trials_that_would_be_trained_otherwise_are_not(old):
    assert taken(after(old, name="seed", seed=4)).records() == []
    assert taken(after(old, name="decay", training={"max_examples": 100, "weight_decay": 0.5})).records() == []
    narrow = {"learning_rate": {**RATE["learning_rate"], "low": 8e-4}}
    assert [r.reused_from for r in taken(after(old, name="narrow", search_space=narrow)).records()] == [
        "old/1", "old/3", "old/4",
    ]  # fmt: skip


def test_only_trials_that_have_a_value_are_taken_over(old):
    old.edit(search_space={"learning_rate": {**RATE["learning_rate"], "high": 0.9}},
             search_strategy={"type": "random", "num_trials": 7, "enqueue": [{"learning_rate": 0.8}]})  # fmt: skip
    old.search()
    assert old.records[5].state == "failed"
    new = after(old, search_space={"learning_rate": {**RATE["learning_rate"], "high": 0.9}})
    assert "old/5" not in [r.reused_from for r in taken(new).records()]


def test_what_another_sweep_s_budget_stopped_and_a_pruned_baseline_are_trained_here(tmp_path, database):
    strategy = {"type": "random", "num_trials": 5}
    first = Sweep(tmp_path, database, name="old", pruner={"type": "none"}, search_strategy=strategy)
    study = first.open()
    results = [
        trial_result(), trial_result("pruned"), trial_result("pruned"),
        trial_result("pruned", stopped_by="sweep_budget"),
    ]  # fmt: skip
    for rate, result in zip((5e-4, 1e-2, 2e-3, 3e-3), results, strict=True):
        number, _ = study.begin({"learning_rate": rate})
        study.finish(number, result)
        first.paths(number).dir.mkdir(parents=True)
    study.close()
    new = after(first, training={"max_examples": 100, "learning_rate": 1e-2})
    study = taken(new)
    assert [record.reused_from for record in study.records()] == ["old/0", "old/2"]
    assert study.state.baseline is None


def test_a_dimension_that_is_searched_here_and_was_fixed_there_has_what_was_fixed(old):
    ranks = {"lora_r": {"type": "choice", "values": [8, 16]}}
    assert [r.params for r in taken(after(old, search_space={**RATE, **ranks})).records()] == [
        {**point, "lora_r": 8} for point in old.points
    ]


def test_a_trial_names_where_it_was_trained_also_through_a_sweep_between(old):
    taken(after(old, name="between"))
    last = after(old, name="last", warm_start=["between", "old"])
    records = taken(last).records()
    assert [r.reused_from for r in records] == [f"old/{n}" for n in range(5)]
    running = last.running()
    champion = running.champion()
    assert champion.number == 1
    assert running.champion_paths(champion).adapter.exists()


def test_a_duplicate_there_names_its_twin(tmp_path, database):
    equal = {"lora_alpha": {"type": "choice", "values": [None, 16]}}
    strategy = {"type": "random", "num_trials": 3}
    first = Sweep(tmp_path, database, name="old", search_space=equal, search_strategy=strategy)
    first.search()
    assert {r.reused_from for r in first.records[1:]} == {"0"}
    [record] = taken(after(first, search_space=equal)).records()
    assert record.reused_from == "old/0"


# --- points that are lined up --------------------------------------------------------------------------


def test_the_best_points_are_lined_up_best_first(old):
    points = warm_points(after(old).config, old.home)
    assert points == [{"learning_rate": 1e-3}, {"learning_rate": 1.5e-3}, {"learning_rate": 5e-4}]


def test_where_the_earlier_sweep_says_nothing_a_point_has_the_defaults(old):
    space = {
        "learning_rate": {**RATE["learning_rate"], "low": 8e-4},
        "batch_size": {"type": "choice", "values": [4, 8]},
    }
    said = []
    points = warm_points(after(old, search_space=space).config, old.home, said.append)
    assert points == [{"learning_rate": 1e-3, "batch_size": 8}, {"learning_rate": 1.5e-3, "batch_size": 8}]
    assert said == []


def test_what_a_best_point_was_searched_with_and_has_not_here_is_said(old):
    space = {"learning_rate": {**RATE["learning_rate"], "low": 2e-3}, "lora_r": {"type": "int", "low": 4, "high": 64}}
    said = []
    points = warm_points(after(old, search_space=space).config, old.home, said.append)
    assert points[0] == {"learning_rate": 2e-3, "lora_r": 8}
    assert said == [
        "warm start: the best points of old are tried without their learning_rate: this file has other values"
    ]


def test_a_sweep_with_nothing_in_common_lines_up_nothing(old):
    ranks = {"lora_r": {"type": "choice", "values": [4, 16]}}
    assert warm_points(after(old, search_space=ranks).config, old.home) == []


def test_what_the_earlier_sweep_had_fixed_is_part_of_its_best_points(old):
    """It had rank 8 and scale 16 in every trial; this file's own defaults are others."""
    space = {
        **RATE,
        "lora_r": {"type": "int", "low": 4, "high": 64},
        "lora_alpha": {"type": "float", "low": 1, "high": 99},
    }
    new = after(old, search_space=space, training={"max_examples": 100, "lora_r": 32})
    assert new.config.baseline() == {"learning_rate": 5e-4, "lora_r": 32, "lora_alpha": 64.0}
    assert warm_points(new.config, old.home)[0] == {"learning_rate": 1e-3, "lora_r": 8, "lora_alpha": 16.0}


def test_the_best_points_come_before_the_sampler_and_after_the_baseline(old):
    """Another seed: nothing is equal, so the best points are trained again."""
    new = after(old, trials=5, seed=3)
    search(new)
    assert [spec.settings["learning_rate"] for spec in new.executor.specs][:3] == [5e-4, 1e-3, 1.5e-3]
    assert len(new.executor.specs) == 5
    search(new)
    assert new.executor.specs == []


def test_what_was_taken_over_is_not_trained_and_costs_no_budget(old):
    new = after(old, trials=2)
    search(new)
    assert len(new.records) == 7
    rates = [spec.settings["learning_rate"] for spec in new.executor.specs]
    assert len(rates) == 2
    assert not set(rates) & {point["learning_rate"] for point in old.points}
    search(new)
    assert len(new.records) == 7
    assert new.executor.specs == []


# --- sweeps that are not there -------------------------------------------------------------------------


def test_a_sweep_that_does_not_exist_is_refused_with_those_that_do(old):
    new = after(old, warm_start=["nope", "old", "new"])
    new.open()
    place = f"{new.config.file}:1: search_strategy.warm_start"
    assert [str(problem) for problem in missing_sources(new.config, new.home)] == [
        f"{place}: no other sweep '{name}'; there are: old" for name in ("nope", "new")
    ]
    assert missing_sources(after(old).config, old.home) == []
