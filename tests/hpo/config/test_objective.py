"""Which of two values is better, what a trial may cost, and how both are read."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.config.objective import Objective, excess, pareto_front, parse_constraints, parse_objectives, value_of
from hpo.config.yaml_source import load
from tests.hpo.builders import trial_result
from trainers.protocol.catalog import METRICS, RESOURCES, TASKS

BUSY = settings(deadline=None)  # no test of ours promises to be quick on a machine that has other work

UP, DOWN = Objective("accuracy", "maximize"), Objective("loss", "minimize")
OBJECTIVES = st.sampled_from([UP, DOWN])
VALUES = st.floats(allow_nan=False, allow_infinity=False)


def test_better_follows_the_direction():
    assert UP.better(2, 1)
    assert not UP.better(1, 2)
    assert DOWN.better(1, 2)
    assert not DOWN.better(2, 1)


@pytest.mark.parametrize("objective", [UP, DOWN])
def test_equal_values_are_not_better(objective):
    assert not objective.better(1, 1)


@pytest.mark.parametrize("objective", [UP, DOWN])
@pytest.mark.parametrize("number", [0.0, math.inf, -math.inf])
def test_nan_is_worse_than_anything(objective, number):
    assert objective.better(number, math.nan)
    assert not objective.better(math.nan, number)
    assert not objective.better(math.nan, math.nan)


@BUSY
@given(OBJECTIVES, VALUES, VALUES)
def test_the_sort_key_agrees_with_better(objective, a, b):
    assert objective.better(a, b) == (objective.sort_key(a) < objective.sort_key(b))


@BUSY
@given(OBJECTIVES, st.lists(VALUES, min_size=1))
def test_nan_sorts_last(objective, values):
    assert math.isnan(sorted([math.nan, *values], key=objective.sort_key)[-1])


@pytest.mark.parametrize(
    ("objective", "value", "reference", "drop"),
    [
        (UP, 0.9, 1.0, 0.1),
        (UP, 1.1, 1.0, -0.1),
        (DOWN, 1.1, 1.0, 0.1),
        (DOWN, 0.9, 1.0, -0.1),
        (DOWN, 3.0, 2.0, 0.5),
        (UP, -3.0, -2.0, 0.5),
        (DOWN, -3.0, -2.0, -0.5),
    ],
)
def test_the_relative_drop_is_a_share_of_the_reference(objective, value, reference, drop):
    assert objective.relative_drop(value, reference) == pytest.approx(drop)


def test_against_a_reference_of_zero_any_worsening_is_infinite():
    assert UP.relative_drop(0.0, 0.0) == 0
    assert UP.relative_drop(0.1, 0.0) == 0
    assert UP.relative_drop(-0.1, 0.0) == math.inf
    assert DOWN.relative_drop(0.1, 0.0) == math.inf


@BUSY
@given(OBJECTIVES, VALUES, VALUES)
def test_a_drop_is_positive_only_when_worse(objective, value, reference):
    drop = objective.relative_drop(value, reference)
    assert (drop > 0) <= objective.better(reference, value)


# --- what a trial costs --------------------------------------------------------------------------------


def test_a_value_is_a_metric_of_the_best_evaluation_or_what_the_whole_trial_cost():
    result = trial_result(value=0.5, seconds=12.0, trainable_parameters=1000, adapter_mb=0.25)
    assert value_of(result, "f1_macro") == 0.5
    assert [value_of(result, name) for name in RESOURCES] == [12.0, 1000.0, 0.25]
    assert isinstance(value_of(result, "trainable_parameters"), float)


@pytest.mark.parametrize("name", RESOURCES)
def test_every_resource_can_be_had_of_a_result_and_less_of_it_is_better(name):
    assert value_of(trial_result(), name) >= 0
    assert RESOURCES[name].direction == "minimize"


def test_excess_is_a_share_of_the_constraint():
    result = trial_result(seconds=90.0, adapter_mb=2.0, trainable_parameters=500)
    constraints = {"seconds": 60.0, "adapter_mb": 2.0, "trainable_parameters": 1000.0}
    assert excess(result, constraints) == {"seconds": 0.5, "adapter_mb": 0.0, "trainable_parameters": -0.5}
    assert excess(result, {}) == {}


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ({}, []),
        ({3: (1, 1)}, [3]),
        ({0: (1, 2), 1: (2, 1), 2: (2, 2)}, [0, 1]),
        ({0: (1, 1), 1: (1, 1)}, [0, 1]),  # equal ones beat none
        ({0: (1, 1), 1: (1, 2)}, [0]),
        ({9: (0,), 2: (1,), 5: (0,)}, [5, 9]),
        ({0: (0.5, math.inf), 1: (0.4, 9.0)}, [1]),  # inf: the sort key of NaN
        ({0: (1, 2, 3), 1: (3, 2, 1), 2: (2, 2, 2), 3: (3, 3, 3)}, [0, 1, 2]),
    ],
)
def test_the_front_is_what_no_other_beats(points, front):
    assert pareto_front(points) == front


@BUSY
@given(
    st.integers(1, 3).flatmap(
        lambda n: st.dictionaries(st.integers(0, 99), st.tuples(*[st.integers(0, 4)] * n), max_size=12)
    )
)
def test_whoever_is_not_on_the_front_is_beaten_by_one_who_is(points):
    front = pareto_front(points)

    def beats(a, b):
        return points[a] != points[b] and all(x <= y for x, y in zip(points[a], points[b], strict=True))

    assert front == sorted(front)
    assert bool(front) == bool(points)
    assert not [n for n in front if any(beats(other, n) for other in points)]
    assert all(any(beats(n, other) for n in front) for other in set(points) - set(front))


# --- reading -------------------------------------------------------------------------------------------


@pytest.fixture
def parse(tmp_path):
    """(objectives and constraints, problems as text) of a YAML text for a task."""

    def parse(text, task="text-classification"):
        path = tmp_path / "a.yaml"
        path.write_text(f"{text}\n")
        root = load(path)
        read = parse_objectives(root, task), parse_constraints(root)
        return *read, [str(p).replace(f"{tmp_path}/", "") for p in root.problems]

    return parse


F1, LOSS = Objective("f1_macro", "maximize"), Objective("loss", "minimize")
SECONDS, SIZE = Objective("seconds", "minimize"), Objective("adapter_mb", "minimize")


@pytest.mark.parametrize(
    ("text", "objectives"),
    [
        ("name: x", (F1,)),
        ("objective:", (F1,)),
        ("objective: {}", (F1,)),
        ("objective: {metric: loss}", (LOSS,)),
        ("objective: [{metric: loss}]", (LOSS,)),
        ("objective: [{}]", (F1,)),
        ("objective: [{metric: loss}, {metric: f1_macro}]", (LOSS, F1)),
        ("objective: [{metric: f1_macro}, {metric: seconds}]", (F1, SECONDS)),
        ("objective: [{metric: f1_macro}, {metric: adapter_mb}, {metric: seconds}]", (F1, SIZE, SECONDS)),
        ("objective:\n- metric: loss\n- metric: trainable_parameters",
         (LOSS, Objective("trainable_parameters", "minimize"))),
    ],
)  # fmt: skip
def test_objectives_are_read(parse, text, objectives):
    assert parse(text) == (objectives, {}, [])


@pytest.mark.parametrize("task", TASKS)
def test_the_default_is_the_first_metric_of_the_task(parse, task):
    first = TASKS[task].metrics[0]
    assert parse("name: x", task)[0] == (Objective(first, METRICS[first].direction),)


CLASSIFICATION = ", ".join(TASKS["text-classification"].metrics)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("objective: loss", "objective: got 'loss'; expected a mapping"),
        ("objective: []", "objective: got []; expected a mapping, or a list of them"),
        ("objective: [loss]", "objective: got ['loss']; expected a mapping, or a list of them"),
        ("objective: {metric: f1macro}", "objective.metric: got 'f1macro'; did you mean 'f1_macro'?"),
        ("objective: {metric: 1}", f"objective.metric: got 1; known: {CLASSIFICATION}"),
        (
            "objective: {metric: loss, direction: minimize}",
            "objective.direction: got 'minimize', but loss is minimized; leave it out: "
            "only a metric of your own needs it",
        ),
        (
            "objective: {metric: perplexity}",
            f"objective.metric: text-classification has no metric 'perplexity'; expected one of {CLASSIFICATION}",
        ),
        (
            "objective: {metric: seconds}",
            f"objective.metric: got 'seconds'; what a trial costs comes second; first one of {CLASSIFICATION}",
        ),
        (
            "objective: [{metric: adapter_mb}, {metric: loss}]",
            f"objective[0].metric: got 'adapter_mb'; what a trial costs comes second; first one of {CLASSIFICATION}",
        ),
        (
            "objective: [{metric: loss}, {metric: perplexity}]",
            "objective[1].metric: text-classification has no metric 'perplexity'; expected one of "
            f"{CLASSIFICATION}, seconds, trainable_parameters, adapter_mb",
        ),
        ("objective: [{metric: loss}, {metric: second}]", "objective[1].metric: got 'second'; did you mean 'seconds'?"),
        ("objective: [{metric: loss}, {metric: loss}]", "objective: names a metric twice; expected each once"),
        ("objective: [{}, {metric: f1_macro}]", "objective: names a metric twice; expected each once"),
    ],
)
def test_each_mistake_is_one_problem(parse, text, problem):
    objectives, _, problems = parse(f"name: x\n{text}")
    assert problems == [f"a.yaml:2: {problem}"]
    assert objectives


def test_without_a_task_no_metric_is_wrong(parse):
    """The missing task is a problem of its own."""
    for text in ("objective: {metric: perplexity}", "objective: [{metric: seconds}]"):
        assert parse(text, task="")[2] == []


@pytest.mark.parametrize(
    ("text", "constraints"),
    [
        ("name: x", {}),
        ("constraints:", {}),
        ("constraints: {}", {}),
        ("constraints: {max_seconds: null}", {}),
        ("constraints: {max_seconds: 60}", {"seconds": 60}),
        ("constraints: {max_adapter_mb: 0.5, max_trainable_parameters: 2e5, max_seconds: 9}",
         {"seconds": 9, "trainable_parameters": 200000.0, "adapter_mb": 0.5}),
    ],
)  # fmt: skip
def test_constraints_are_read(parse, text, constraints):
    assert parse(text) == ((F1,), constraints, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("60", ": got 60; expected a mapping"),
        ("{max_seconds: 0}", ".max_seconds: got 0; expected a number above 0"),
        ("{max_adapter_mb: -1}", ".max_adapter_mb: got -1; expected a number above 0"),
        ("{max_trainable_parameters: 1M}", ".max_trainable_parameters: got '1M'; expected a number above 0"),
        ("{max_seconds: .inf}", ".max_seconds: got inf; expected a number above 0"),
        ("{max_second: 5}", ".max_second: unknown key; did you mean 'max_seconds'?"),
        ("{seconds: 5}", ".seconds: unknown key; did you mean 'max_seconds'?"),
        ("{memory: 5}", ".memory: unknown key; known: max_seconds, max_trainable_parameters, max_adapter_mb"),
    ],
)
def test_each_mistake_in_a_constraint_is_one_problem(parse, text, problem):
    assert parse(f"name: x\nconstraints: {text}")[2] == [f"a.yaml:2: constraints{problem}"]
