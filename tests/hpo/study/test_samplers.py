"""Every strategy over the fake trainer: the same points however often the sweep is stopped, and none trained twice."""

from __future__ import annotations

import json
import warnings

import optuna
import pytest

import hpo.study.gp
import hpo.study.samplers
import hpo.study.study
from hpo.config.dimensions import Choice, Float, Int
from hpo.config.space import SearchSpace
from hpo.errors import SweepError
from hpo.study.gp import GaussianProcess
from hpo.study.samplers import distributions, suggest
from tests.hpo.builders import Killed, Sweep, stopping_after

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "lora_r": {"type": "int", "low": 4, "high": 64, "log": True},
    "batch_size": {"type": "choice", "values": [8, 16, 32]},
}
CONDITIONAL = {
    "learning_rate": SPACE["learning_rate"],
    "method": {"type": "choice", "values": ["lora", "dora"]},
    "lora_dropout": {"type": "float", "low": 0.0, "high": 0.5, "when": {"method": "dora"}},
}
FINITE = {
    "batch_size": {"type": "choice", "values": [8, 16]},
    "lora_r": {"type": "int", "low": 4, "high": 12, "step": 4},
}
CONDITIONAL_FINITE = {
    "method": {"type": "choice", "values": ["lora", "dora"]},
    "lora_dropout": {"type": "choice", "values": [0.0, 0.25, 0.5], "when": {"method": "dora"}},
}
STRATEGIES = ["random", "grid", "informed", "tpe", "gp", "qmc", "nsga2", "auto"]
SAMPLED = [name for name in STRATEGIES if name not in ("grid", "auto")]
TRIALS = {"tpe": 9, "gp": 7, "nsga2": 14}
"""Enough to get past the points that each begins with at random."""


@pytest.fixture(autouse=True)
def _gp_in_this_process(monkeypatch, request):
    """Answers are those of the real process; starting it takes seconds."""
    if "process" in request.fixturenames:
        return

    def ask(self, tried, seed):
        question = {"seed": seed, "directions": self._directions, "space": self._space.resolved(), "tried": tried}
        return json.loads(json.dumps(hpo.study.gp.answer(json.loads(json.dumps(question)))))

    monkeypatch.setattr(GaussianProcess, "ask", ask)


@pytest.fixture
def sweep(tmp_path):
    def sweep(strategy, trials=None, **changes):
        trials = trials or TRIALS.get(strategy, 7)
        given = {"search_space": SPACE, "search_strategy": {"type": strategy, "num_trials": trials}}
        if strategy == "grid" and "search_space" not in changes:
            given["search_space"] = FINITE
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return Sweep(folder, **{**given, **changes})

    return sweep


def stopped_after_each(given):
    """Every trial in a process of its own, the next one killed as it begins."""
    while True:
        try:
            given.search(stopping_after(1))
        except Killed:
            continue
        return


# --- the same points -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_sweep_that_is_stopped_at_every_trial_tries_the_points_of_one_that_is_not(sweep, strategy):
    kept, stopped = sweep(strategy), sweep(strategy)
    kept.search()
    stopped_after_each(stopped)
    assert stopped.points == kept.points
    assert [r.result.value for r in stopped.records] == [r.result.value for r in kept.records]
    assert [r.state for r in stopped.records] == [r.state for r in kept.records]
    assert len(kept.records) == kept.config.planned_trials()


@pytest.mark.parametrize("strategy", SAMPLED)
def test_duplicates_in_a_row_are_counted_across_sessions(sweep, strategy):
    kept, stopped = (sweep(strategy, search_space=FINITE, trials=99) for _ in range(2))
    kept.search()
    stopped_after_each(stopped)
    assert stopped.points == kept.points
    assert [r.reused_from for r in stopped.records] == [r.reused_from for r in kept.records]


@pytest.mark.parametrize("strategy", SAMPLED)
def test_other_seeds_try_other_points(sweep, strategy):
    one, other = sweep(strategy, trials=3), sweep(strategy, trials=3, seed=1)
    one.search()
    other.search()
    assert one.points[0] == other.points[0] == one.config.baseline()
    assert not [p for p in one.points[1:] if p in other.points[1:]]


def test_auto_is_the_strategy_that_it_chooses(sweep):
    auto, informed = (sweep(strategy, 6, search_space=CONDITIONAL) for strategy in ("auto", "informed"))
    auto.search()
    informed.search()
    assert auto.open().strategy.type == "informed"
    assert auto.points == informed.points


# --- any space -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "grid"])
def test_a_conditional_dimension_is_there_just_where_its_condition_holds(sweep, strategy):
    given = sweep(strategy, 14 if strategy == "nsga2" else 10 if strategy == "auto" else 8, search_space=CONDITIONAL)
    given.search()
    assert all(given.config.space.contains(point) for point in given.points)
    assert {("lora_dropout" in point, point["method"]) for point in given.points} == {(False, "lora"), (True, "dora")}


def test_a_grid_of_a_conditional_space_has_every_point_once(sweep):
    given = sweep("grid", search_space=CONDITIONAL_FINITE)
    given.search()
    assert len(given.points) == 4
    assert sorted(map(str, given.points)) == sorted(map(str, given.config.space.grid()))


@pytest.mark.parametrize(("space", "size"), [(FINITE, 6), (CONDITIONAL_FINITE, 4)], ids=["plain", "conditional"])
@pytest.mark.parametrize("strategy", SAMPLED)
def test_a_finite_space_is_tried_whole_and_no_point_trained_twice(sweep, strategy, space, size):
    given = sweep(strategy, 99, search_space=space, pruner={"type": "none"})  # one that goes on is there twice
    given.search()
    trained = [spec.fingerprint() for spec in given.executor.specs]
    assert len(set(trained)) == len(trained)
    # The default dropout of LoRA is none of the choices, but the default point is the nearest one of the space.
    assert len(trained) == size
    assert given.proposals.exhausted


def test_a_grid_says_that_it_has_no_more(sweep):
    given = sweep("grid")
    given.search()
    assert len(given.points) == 6
    assert given.proposals.begin() is None
    given.search()
    assert given.executor.specs == []


@pytest.mark.parametrize(("strategy", "trials"), [("informed", 7), ("tpe", 14), ("nsga2", 14), ("gp", 7)])
def test_pruned_trials_and_constraints_are_no_obstacle(sweep, strategy, trials):
    objectives = [{"metric": "f1_macro"}, {"metric": "seconds"}] if strategy == "nsga2" else {"metric": "f1_macro"}
    given = sweep(strategy, trials, constraints={"max_seconds": 0.04}, objective=objectives)
    given.search()
    assert {r.state for r in given.records} == {"complete", "pruned"}
    assert len(given.records) == trials


@pytest.mark.parametrize(("strategy", "trials"), [("gp", 14), ("informed", 9)])
def test_the_best_point_is_found_by_a_gaussian_process(sweep, strategy, trials):
    space = {"learning_rate": {"type": "float", "low": 1e-6, "high": 0.4, "log": True}}
    training = {"max_examples": 100, "learning_rate": 1e-5, "lora_r": 16}
    given = sweep(strategy, trials, search_space=space, training=training)
    given.search()
    assert max(r.result.value for r in given.records if r.state == "complete") > 0.8


# --- the process of the Gaussian process ---------------------------------------------------------------


@pytest.fixture(scope="module")
def process():
    """Started once: it imports torch."""
    asked = GaussianProcess(SPACE_OF_TWO, ["maximize"])
    yield asked
    asked.close()


RANKS = SearchSpace({"learning_rate": Choice((1e-3,)), "lora_r": Int(4, 80)})
SPACE_OF_TWO = SearchSpace({"learning_rate": Float(1e-5, 1e-1, log=True), "lora_r": Int(4, 64)})
TRIED = [
    ({"learning_rate": 10.0**-power, "lora_r": rank}, [value], {})
    for power, rank, value in [(5, 4, 0.1), (4, 8, 0.4), (3, 16, 0.8), (2, 32, 0.5), (1, 64, 0.2)]
]


def test_a_process_of_its_own_gives_a_point_for_tried_points_and_a_seed(process, capfd):
    first = process.ask(TRIED, 1)
    assert SPACE_OF_TWO.contains(first)
    assert process.ask([*TRIED, (first, [0.3], {})], 1) != first
    assert capfd.readouterr() == ("", "")
    question = {"seed": 1, "directions": ["maximize"], "space": SPACE_OF_TWO.resolved(), "tried": TRIED}
    assert hpo.study.gp.answer(json.loads(json.dumps(question))) == first


def test_a_gaussian_process_keeps_away_from_what_breaks_a_constraint():
    """The objective rises with the rank, and so does what it costs: beyond 32 it is too much."""
    ranks = (4, 16, 24, 40, 64)
    tried = [({"learning_rate": 1e-3, "lora_r": r}, [r / 64], {"seconds": r / 32 - 1}) for r in ranks]

    def asked(with_constraints):
        given = [(point, values, excess if with_constraints else {}) for point, values, excess in tried]
        return hpo.study.gp.answer({"seed": 0, "directions": ["maximize"], "space": RANKS.resolved(), "tried": given})

    assert asked(with_constraints=False)["lora_r"] > 40
    assert 24 < asked(with_constraints=True)["lora_r"] < 40


def test_a_process_that_died_is_an_error_that_says_what_to_do(process):
    process.ask(TRIED, 1)
    process._process.kill()
    process._process.wait()
    with pytest.raises(SweepError, match="the same command continues"):
        process.ask(TRIED, 1)
    process.close()


def test_nothing_is_started_before_a_question(process):
    unasked = GaussianProcess(SPACE_OF_TWO, ["maximize"])
    assert unasked._process is None
    unasked.close()


# --- spaces in Optuna's words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dimension",
    [
        Float(1e-5, 1e-1, log=True), Float(0.0, 1.0), Float(0.0, 0.5, step=0.1), Float(0.1, 0.9, step=0.2), Int(1, 9),
        Float(0.1, 0.35, step=0.1), Float(0.3, 0.9, step=0.3), Int(1, 64, log=True), Int(1, 10, step=4), Int(3, 3),
        Choice((8, 16)), Choice(("linear", None)),
    ],
)  # fmt: skip
def test_a_dimension_is_the_same_where_it_is_suggested_and_where_a_trial_is_copied(dimension):
    space = SearchSpace({"x": dimension})
    study = optuna.create_study(sampler=hpo.study.samplers.sampler("random", 0, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            trial = study.ask()
            point = suggest(trial, space)
            assert space.contains(point)
            assert trial.distributions == distributions(space, point)
            study.tell(trial, 0.0)
        for value in dimension.grid() or []:
            study.enqueue_trial({"x": value})
            assert suggest(study.ask(), space) == {"x": value}


def test_population_follows_the_budget():
    assert hpo.study.samplers.sampler("nsga2", 0, 20)._population_size == 4
    assert hpo.study.samplers.sampler("nsga2", 0, 400)._population_size == 40
