"""How a sweep chooses its points: what is read, what `auto` makes of it, and the points that no sampler gives."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.config.dimensions import Choice, Float, Int
from hpo.config.space import SearchSpace
from hpo.config.space_section import parse_space
from hpo.config.strategy import (
    STRATEGIES,
    ResolvedStrategy,
    SearchStrategy,
    choose_strategy,
    complete_point,
    is_countable,
    parse_strategy,
    spread_point,
    untried,
)
from hpo.config.yaml_source import load
from tests.hpo.config.test_space import ANY_SPACE, spaces
from trainers.protocol.catalog import METHOD
from trainers.protocol.settings import FIELDS

BUSY = settings(deadline=None)  # no test of ours promises to be quick on a machine that has other work

RATE = Float(1e-5, 1e-2, log=True)
SPACE = """
search_space:
  method: {type: choice, values: [lora, dora]}
  learning_rate: {type: float, low: 1e-5, high: 1e-2, log: true}
  lora_r: {type: int, low: 4, high: 64, when: {method: lora}}
  weight_decay: {type: float, low: 0.1, high: 0.5, step: 0.1}
  max_grad_norm: 1
"""


@pytest.fixture
def parse(tmp_path):
    """(strategy, problems as text) of what stands below `search_strategy:`, in one line; the space has 7 lines."""

    def parse(keys, space=SPACE):
        path = tmp_path / "a.yaml"
        path.write_text(f"{space.strip()}\nsearch_strategy: {keys}\n")
        root = load(path)
        strategy = parse_strategy(root, parse_space(root.section("search_space"), {**FIELDS, METHOD.name: METHOD}))
        return strategy, [str(p).replace(f"{tmp_path}/", "") for p in root.problems]

    return parse


# --- reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "strategy"),
    [
        ("", SearchStrategy("auto", 20, (), ())),
        ("{}", SearchStrategy()),
        ("{enqueue: , warm_start: }", SearchStrategy()),
        ("{num_trials: 7}", SearchStrategy(num_trials=7)),
        ("{num_trials: 7.0}", SearchStrategy(num_trials=7)),
        ("{enqueue: []}", SearchStrategy()),
        ("{enqueue: [{}]}", SearchStrategy(enqueue=({},))),
        ("{warm_start: [a, b-1]}", SearchStrategy(warm_start=("a", "b-1"))),
        ("{warm_start: a}", SearchStrategy(warm_start=("a",))),
        ("{warm_start: []}", SearchStrategy()),
        *((f"{{type: {name}}}", SearchStrategy(name)) for name in STRATEGIES),
    ],
)
def test_a_strategy_is_read(parse, keys, strategy):
    assert parse(keys) == (strategy, [])


def test_points_are_read_as_their_dimensions_spell_the_values(parse):
    """Else 1 and 1.0, or 0.3 and 0.1 + 2 * 0.1, would be trained as two trials."""
    strategy, problems = parse(
        "{enqueue: [{learning_rate: 1e-3, lora_r: 8}, {weight_decay: 0.3, max_grad_norm: 1, method: dora}]}"
    )
    assert problems == []
    assert repr(strategy.enqueue) == repr(
        ({"learning_rate": 0.001, "lora_r": 8}, {"weight_decay": 0.1 + 2 * 0.1, "max_grad_norm": 1.0, "method": "dora"})
    )


def test_a_point_may_name_layers_as_the_space_does(parse):
    space = "search_space: {target_modules: {type: choice, values: [all-linear, [q_proj, v_proj]]}}"
    assert parse("{enqueue: [{target_modules: [q_proj, v_proj]}]}", space) == (
        SearchStrategy(enqueue=({"target_modules": "q_proj,v_proj"},)), []
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("tpe", ": got 'tpe'; expected a mapping"),
        ("{type: tp}", ".type: got 'tp'; did you mean 'tpe'?"),
        ("{type: bayes}", ".type: got 'bayes'; known: auto, random, grid, informed, tpe, gp, qmc, nsga2"),
        ("{type: [tpe]}", ".type: got ['tpe']; did you mean 'tpe'?"),
        ("{num_trials: 0}", ".num_trials: got 0; expected a whole number from 1"),
        ("{num_trials: 2.5}", ".num_trials: got 2.5; expected a whole number from 1"),
        ("{num_trials: true}", ".num_trials: got True; expected a whole number from 1"),
        ("{num_trial: 9}", ".num_trial: unknown key; did you mean 'num_trials'?"),
        ("{warm_start: [../x]}", ".warm_start: got ['../x']; expected names of earlier sweeps"),
        ("{warm_start: 3}", ".warm_start: got 3; expected names of earlier sweeps"),
        ("{warm_start: 0}", ".warm_start: got 0; expected names of earlier sweeps"),
        ('{warm_start: ""}', ".warm_start: got ['']; expected names of earlier sweeps"),
        ("{warm_start: {a: b}}", ".warm_start: got {'a': 'b'}; expected names of earlier sweeps"),
        (
            "{enqueue: {learning_rate: 1e-3}}",
            ".enqueue: got {'learning_rate': 0.001}; expected a list of points, e.g. [{learning_rate: 1e-3}]",
        ),
        ("{enqueue: [8]}", ".enqueue: got [8]; expected a list of points, e.g. [{learning_rate: 1e-3}]"),
        ("{enqueue: [{}, {lora: 8}]}", ".enqueue: point 2: 'lora' is not a dimension; did you mean 'lora_r'?"),
        (
            "{enqueue: [{batch_size: 8}]}",
            ".enqueue: point 1: 'batch_size' is not a dimension; "
            "known: method, learning_rate, lora_r, weight_decay, max_grad_norm",
        ),
        (
            "{enqueue: [{lora_r: 128}]}",
            ".enqueue: point 1: lora_r 128 lies outside the search space; lora_r is a whole number from 4 to 64",
        ),
        (
            "{enqueue: [{lora_r: true}]}",
            ".enqueue: point 1: lora_r True lies outside the search space; lora_r is a whole number from 4 to 64",
        ),
        (
            "{enqueue: [{method: rslora}]}",
            ".enqueue: point 1: method 'rslora' lies outside the search space; method is one of lora, dora",
        ),
        (
            "{enqueue: [{method: [lora]}]}",
            ".enqueue: point 1: method ['lora'] lies outside the search space; method is one of lora, dora",
        ),
        (
            "{enqueue: [{weight_decay: 0.25}]}",
            ".enqueue: point 1: weight_decay 0.25 lies outside the search space; "
            "weight_decay is a number from 0.1 to 0.5 in steps of 0.1",
        ),
        (
            "{enqueue: [{learning_rate: }]}",
            ".enqueue: point 1: learning_rate None lies outside the search space; "
            "learning_rate is a number from 1e-05 to 0.01",
        ),
    ],
)
def test_each_mistake_is_one_problem(parse, keys, problem):
    assert parse(keys)[1] == [f"a.yaml:7: search_strategy{problem}"]


def test_a_point_where_there_is_no_space(parse):
    assert parse("{enqueue: [{lora_r: 8}]}", "search_space: {}")[1] == [
        "a.yaml:2: search_strategy.enqueue: point 1: 'lora_r' is not a dimension; search_space has none"
    ]


def test_a_point_on_a_broken_dimension_is_no_second_problem(parse):
    _, problems = parse("{enqueue: [{lora_r: 8}]}", "search_space: {lora_r: {type: int, low: 8, high: 4}}")
    assert [problem.split(";")[0] for problem in problems] == [
        "a.yaml:1: search_space.lora_r.low: low 8 is above high 4"
    ]


def test_a_strategy_as_plain_values():
    strategy = SearchStrategy("gp", 7, ({"lora_r": 8},), ("a",))
    plain = {"type": "gp", "num_trials": 7, "enqueue": [{"lora_r": 8}], "warm_start": ["a"]}
    assert strategy.resolved() == plain
    assert json.loads(json.dumps(strategy.resolved())) == plain


# --- what auto chooses ---------------------------------------------------------------------------------


def space_of(count, **more):
    return SearchSpace({**{f"d{i}": Float(0, 1) for i in range(count)}, **more})


CONDITIONAL = SearchSpace({"a": Int(1, 99), "b": RATE}, {"b": {"a": (1, 2)}})


@pytest.mark.parametrize(
    ("space", "trials", "objectives", "chosen"),
    [
        # nothing to search
        (SearchSpace({}), 20, 1, "random"),
        (SearchSpace({"lora_r": Choice((8,)), "method": Choice(("dora",))}), 20, 2, "random"),
        # all points fit
        (SearchSpace({"a": Int(1, 20)}), 20, 1, "grid"),
        (SearchSpace({"a": Int(1, 21)}), 20, 1, "informed"),
        (SearchSpace({"a": Int(1, 4), "b": Choice(("x", "y")), "c": Float(0, 1, step=1)}), 16, 1, "grid"),
        (SearchSpace({"a": Int(1, 4), "b": Choice(("x", "y")), "c": Float(0, 1, step=1)}), 15, 1, "informed"),
        (SearchSpace({"a": Int(1, 3)}), 3, 2, "grid"),
        (SearchSpace({"a": Int(1, 3)}), 2, 1, "informed"),
        # several objectives
        (space_of(2), 199, 2, "tpe"),
        (space_of(2), 200, 2, "nsga2"),
        (space_of(2), 5, 2, "tpe"),
        (space_of(2), 5000, 3, "nsga2"),
        # a Gaussian process, or what is too large for it
        (space_of(2), 2, 1, "informed"),
        (space_of(8), 20, 1, "informed"),
        (space_of(9), 20, 1, "tpe"),
        (space_of(8), 200, 1, "informed"),
        (space_of(8), 201, 1, "tpe"),
        (space_of(2, optim=Choice(("adamw_torch", "adafactor"))), 20, 1, "informed"),
        (CONDITIONAL, 20, 1, "informed"),
        # what is fixed is no dimension
        (space_of(8, optim=Choice(("adafactor",)), r=Int(8, 8)), 20, 1, "informed"),
    ],
)
def test_auto(space, trials, objectives, chosen):
    assert choose_strategy(SearchStrategy("auto", trials), space, objectives).type == chosen


@pytest.mark.parametrize(("most", "chosen"), [(None, "tpe"), (300, "tpe"), (201, "tpe"), (200, "informed")])
def test_auto_knows_of_the_budget_s_trials(most, chosen):
    assert choose_strategy(SearchStrategy("auto", 250), space_of(2), 1, most).type == chosen


@pytest.mark.parametrize("began", ["gp", "qmc", "tpe"])
@pytest.mark.parametrize(
    ("space", "trials", "chosen"),
    [
        (space_of(2), 9, "qmc"),
        (space_of(2), 10, "gp"),
        (space_of(2, batch=Choice((8, 16))), 20, "gp"),
        (space_of(2, optim=Choice(("adamw_torch", "adafactor"))), 20, "tpe"),
        (space_of(2, alpha=Choice((None, 8.0))), 20, "tpe"),
        (CONDITIONAL, 20, "tpe"),
        (CONDITIONAL, 9, "qmc"),
        (space_of(9), 20, "tpe"),
        (space_of(8), 201, "tpe"),
        (SearchSpace({"a": Int(1, 20)}), 20, "grid"),
    ],
)
def test_a_sweep_that_began_before_there_was_informed_goes_on_as_then(began, space, trials, chosen):
    assert choose_strategy(SearchStrategy("auto", trials), space, 1, None, ResolvedStrategy(began, "")).type == chosen


@pytest.mark.parametrize("began", ["informed", "grid", "random"])
def test_any_other_sweep_goes_by_the_rules_of_today(began):
    began = ResolvedStrategy(began, "")
    assert choose_strategy(SearchStrategy("auto", 9), space_of(2), 1, None, began).type == "informed"
    assert choose_strategy(SearchStrategy("qmc", 9), space_of(2), 1, None, began).type == "qmc"


def test_a_grid_that_the_budget_would_cut_short_is_not_chosen():
    """Its first points are all in one corner."""
    space = SearchSpace({"a": Int(1, 15)})
    assert choose_strategy(SearchStrategy("auto", 20), space, 1).type == "grid"
    assert choose_strategy(SearchStrategy("auto", 20), space, 1, 5).type == "informed"


@pytest.mark.parametrize("kind", [name for name in STRATEGIES if name != "auto"])
@pytest.mark.parametrize("space", [SearchSpace({}), space_of(20), CONDITIONAL])
def test_anything_else_is_as_asked_for(kind, space):
    chosen = choose_strategy(SearchStrategy(kind, 5), space, 2)
    assert (chosen.type, chosen.why) == (kind, "as the file says")


@BUSY
@given(ANY_SPACE, st.integers(1, 300), st.integers(1, 3))
def test_auto_always_chooses_one_that_runs_and_says_why(space, trials, objectives):
    chosen = choose_strategy(SearchStrategy("auto", trials), space, objectives)
    assert chosen.type in set(STRATEGIES) - {"auto"}
    assert chosen.why
    assert chosen.type != "grid" or len(space.grid()) <= trials


def test_the_reason_has_the_numbers():
    assert choose_strategy(SearchStrategy(), SearchSpace({"a": Int(1, 6)}), 1).why == "all 6 points fit into 20 trials"
    assert choose_strategy(SearchStrategy(), space_of(3), 1).why == "3 dimensions, 20 trials"
    assert choose_strategy(SearchStrategy(), space_of(1), 1).why == "1 dimension, 20 trials"


# --- evenly spread points ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)  # the first one imports scipy
@given(ANY_SPACE.filter(lambda space: space.dimensions), st.integers(0, 500), st.integers(0, 2**32 - 1))
def test_a_spread_point_lies_inside_and_is_the_same_each_time(space, index, seed):
    point = spread_point(space, index, seed)
    assert space.contains(point)
    assert spread_point(space, index, seed) == point


def test_another_seed_spreads_otherwise():
    space = space_of(3)
    assert spread_point(space, 0, 0) != spread_point(space, 0, 1)
    assert spread_point(space, 0, 0) != spread_point(space, 1, 0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 8, 32])
def test_spread_points_share_out_every_dimension(count, seed):
    """A Sobol sequence: of the first 2^k points just one lies in each of 2^k equal parts of each dimension."""
    space = SearchSpace({"a": Float(0, 1), "b": RATE, "c": Int(1, count), "d": Choice(tuple(range(count)))})
    points = [spread_point(space, index, seed) for index in range(count)]
    logs = [np.log10(point["b"] / 1e-5) / 3 for point in points]
    assert sorted(int(point["a"] * count) for point in points) == list(range(count))
    assert sorted(int(share * count) for share in logs) == list(range(count))
    assert sorted(point["c"] for point in points) == list(range(1, count + 1))
    assert sorted(point["d"] for point in points) == list(range(count))


@pytest.mark.parametrize("seed", range(3))
def test_spread_points_are_far_more_even_than_random_ones(seed):
    from scipy.stats import qmc

    space = space_of(3)
    spread = [list(spread_point(space, index, seed).values()) for index in range(32)]
    rng = random.Random(seed)
    independent = [[rng.random() for _ in range(3)] for _ in range(32)]
    assert qmc.discrepancy(spread) < qmc.discrepancy(independent) / 2


# --- points from elsewhere -----------------------------------------------------------------------------


def test_a_point_is_completed_with_the_nearest_defaults():
    space = SearchSpace(
        {"method": Choice(("lora", "dora")), "lora_r": Int(16, 64), "alpha_ratio": Choice((1.0, 4.0))},
        {"alpha_ratio": {"method": ("dora",)}},
    )
    defaults = {"method": "lora", "lora_r": 8, "alpha_ratio": 3.0}
    assert complete_point({}, space, defaults) == {"method": "lora", "lora_r": 16} == space.baseline(defaults)
    assert complete_point({"method": "dora"}, space, defaults) == {"method": "dora", "lora_r": 16, "alpha_ratio": 4.0}
    assert complete_point({"lora_r": 32, "alpha_ratio": 1.0}, space, defaults) == {"method": "lora", "lora_r": 32}


@BUSY
@given(ANY_SPACE, st.randoms(use_true_random=False))
def test_a_completed_point_lies_inside_and_has_what_was_given(space, rng):
    whole = space.point(lambda name, dimension: dimension.at(rng.random()))
    given_ = {name: value for name, value in whole.items() if rng.random() < 0.5}
    defaults = dict.fromkeys(space.dimensions, 1)
    point = complete_point(given_, space, defaults)
    assert space.contains(point)
    assert all(point[name] == value for name, value in given_.items() if name in point)
    assert complete_point(whole, space, {}) == whole


@BUSY
@given(spaces(is_finite=True), st.integers(0, 99), st.randoms(use_true_random=False))
def test_untried_points_come_each_once_until_none_is_left(space, seed, rng):
    points = space.grid()
    tried = {json.dumps(point) for point in points if rng.random() < 0.3}
    for step in range(len(points) - len(tried)):
        point = untried(points, tried, json.dumps, seed + step)
        assert point == untried(points, tried, json.dumps, seed + step)
        assert json.dumps(point) not in tried
        tried.add(json.dumps(point))
    assert untried(points, tried, json.dumps, seed) is None


def test_untried_points_are_drawn_from_the_whole_space():
    points = [{"a": i} for i in range(100)]
    drawn = {untried(points, {json.dumps({"a": 0})}, json.dumps, seed)["a"] for seed in range(50)}
    assert 0 not in drawn
    assert len(drawn) > 30


@pytest.mark.parametrize(
    ("space", "answer"),
    [
        (SearchSpace({}), True),
        (SearchSpace({"a": Int(1, 20_000)}), True),
        (SearchSpace({"a": Int(1, 20_001)}), False),
        (SearchSpace({"a": Int(1, 10**15)}), False),
        (SearchSpace({"a": Int(1, 200), "b": Int(1, 101)}), False),
        (SearchSpace({"a": Float(0, 1, step=0.1)}), True),
        (space_of(1), False),
    ],
)
def test_what_can_be_listed(space, answer):
    assert is_countable(space) is answer
