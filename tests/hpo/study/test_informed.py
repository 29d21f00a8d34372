"""Points from the Gaussian process that knows the field: inside the space, new, soon good, and robust."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.config.dimensions import Choice, Float, Int
from hpo.config.space import SearchSpace
from hpo.study.informed import Model, places, propose
from tests.hpo.builders import Sweep
from tests.hpo.config.test_space import ANY_SPACE

SPACE = SearchSpace(
    {"learning_rate": Float(1e-5, 1e-2, log=True), "lora_r": Int(4, 64, log=True), "batch_size": Choice((8, 16, 32))}
)
BASELINE = {"learning_rate": 5e-4, "lora_r": 8, "batch_size": 16}
METHODS = SearchSpace(
    {"method": Choice(("lora", "full")), "learning_rate": Float(1e-5, 1e-2, log=True), "lora_r": Int(4, 64)},
    {"lora_r": {"method": ("lora",)}},
)


def searched(value, trials, space=SPACE, seed=0, first=BASELINE):
    """Values of a search's points, trial 0 the baseline."""
    tried = [(first, [value(first)], {})]
    while len(tried) < trials:
        point = propose(space, ["maximize"], tried, seed * 1000 + len(tried))
        tried.append((point, [value(point)], {}))
    return [values[0] for _, values, _ in tried]


def hill(best, floor=-math.inf):
    return lambda point: max(floor, 1 - math.log10(point["learning_rate"] / best) ** 2)


@settings(max_examples=25, deadline=None)
@given(ANY_SPACE.filter(lambda space: space.dimensions), st.integers(0, 2**32 - 1))
def test_a_point_lies_inside_and_is_the_same_each_time(space, seed):
    first = space.point(lambda _, dimension: dimension.at(0.3))
    tried = [(first, [0.5], {})]
    point = propose(space, ["maximize"], tried, seed)
    assert space.contains(point)
    assert propose(space, ["maximize"], tried, seed) == point


@pytest.mark.parametrize("best", [2e-5, 1e-4, 5e-4, 2e-3, 8e-3])
@pytest.mark.parametrize("seed", range(2))
def test_eight_trials_find_the_learning_rate_wherever_it_lies(best, seed):
    assert max(searched(hill(best), 8, seed=seed)) > 0.98


def test_a_smaller_loss_is_better_where_it_is_minimized():
    tried = [({**BASELINE, "learning_rate": rate}, [-hill(3e-4)({"learning_rate": rate})], {}) for rate in
             (1e-5, 5e-5, 2e-4, 1e-3, 5e-3)]  # fmt: skip
    asked = {name: propose(SPACE, [name], tried, 0)["learning_rate"] for name in ("minimize", "maximize")}
    assert 1e-4 < asked["minimize"] < 1e-3
    assert not 5e-5 < asked["maximize"] < 1e-3


def test_a_collapse_hides_no_difference_between_good_points():
    def steep(point):
        return hill(3e-4)(point) if point["learning_rate"] < 2e-3 else -1e6

    assert max(searched(steep, 10)) > 0.98


def test_methods_with_settings_of_their_own():
    def of_method(point):
        return hill(5e-4)(point) if point["method"] == "lora" else hill(5e-5)(point) + 0.5

    first = {"method": "lora", "learning_rate": 5e-4, "lora_r": 8}
    assert max(searched(of_method, 14, METHODS, first=first)) > 1.4


def test_no_point_is_proposed_twice_while_others_are_left():
    space = SearchSpace({"lora_r": Int(4, 9), "batch_size": Choice((8, 16))})
    tried = [({"lora_r": 4, "batch_size": 8}, [0.5], {})]
    for number in range(11):
        tried.append((propose(space, ["maximize"], tried, number), [0.5], {}))
    assert len({tuple(point.items()) for point, _, _ in tried}) == 12
    assert space.contains(propose(space, ["maximize"], tried, 12))


def test_it_keeps_away_from_what_breaks_a_constraint():
    """The value rises with the rank, and so does what it costs: beyond 32 it is too much."""
    space = SearchSpace({"lora_r": Int(4, 80)})
    ranks = (4, 16, 24, 40, 64)

    def asked(with_constraint):
        tried = [({"lora_r": r}, [r / 64], {"seconds": r / 32 - 1} if with_constraint else {}) for r in ranks]
        return propose(space, ["maximize"], tried, 0)["lora_r"]

    assert asked(with_constraint=False) > 64
    assert 24 < asked(with_constraint=True) < 40


def test_several_objectives_are_weighed_anew_at_each_question():
    """One wants a high learning rate, the other a low one: questions go to both ends and between."""
    space = SearchSpace({"learning_rate": Float(1e-4, 1e-2, log=True)})
    tried = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        rate = 1e-4 * 100**share
        tried.append(({"learning_rate": rate}, [1 - (share - 0.2) ** 2, (share - 0.8) ** 2], {}))
    asked = [propose(space, ["maximize", "minimize"], tried, seed)["learning_rate"] for seed in range(12)]
    assert min(asked) < 5e-4 < 2e-3 < max(asked)


def test_the_rank_is_thought_to_matter_less_than_the_learning_rate():
    """A tenfold learning rate is further away than a tenfold batch, and that further than a tenfold rank."""
    tenfold = [{**BASELINE, "learning_rate": 5e-3}, {**BASELINE, "batch_size": 160}, {**BASELINE, "lora_r": 80}]
    wide = SearchSpace({**SPACE.dimensions, "batch_size": Int(8, 512), "lora_r": Int(4, 512)})
    at, *others = places(wide, [BASELINE, *tenfold])
    rate, batch, rank = (float(np.abs(other - at).sum()) for other in others)
    assert rate > batch > rank > 0


def test_a_model_of_exact_results_goes_through_them_and_knows_nothing_far_away():
    seen, values = np.array([[0.0], [1.0], [2.0]]), np.array([-1.0, 1.0, 0.0])
    model = Model.of(seen, np.array([[0.0], [1.0], [2.0], [50.0]]), values, 1e-6)
    assert model.mean[:3] == pytest.approx(values, abs=1e-3)
    assert model.deviation[:3].max() < 0.01 < 0.5 < model.deviation[3]
    assert model.at_seen == pytest.approx(values, abs=1e-3)
    assert int(np.argmax(model.improvement(1.0))) == 3
    assert model.chance_above_zero()[:2] == pytest.approx([0, 1], abs=1e-3)


def test_trials_that_begin_before_any_result_are_spread_evenly(tmp_path):
    sweep = Sweep(tmp_path, search_strategy={"type": "informed", "num_trials": 6})
    study = sweep.open()
    points = [study.begin(point)[1] for point in (sweep.config.baseline(), None, None, None)]
    assert len({tuple(point.items()) for point in points}) == 4
