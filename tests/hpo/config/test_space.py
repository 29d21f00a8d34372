"""Search dimensions: what is read, what is refused, and what a dimension knows of its values."""

import itertools
import json
import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hpo.config.dimensions import Choice, Float, Int, edge, wider
from hpo.config.space import SearchSpace, from_resolved
from hpo.config.space_section import parse_space
from hpo.config.yaml_source import load
from trainers.protocol.catalog import METHOD, default_settings
from trainers.protocol.settings import FIELDS

DEFAULTS = {**default_settings("text-classification", "lora"), "method": "lora"}
INF = math.inf
BUSY = settings(deadline=None)  # no test of ours promises to be quick on a machine that has other work


@pytest.fixture
def parse(tmp_path):
    """(space, problems as text) of the YAML below `search_space:`, one parameter a line."""

    def parse(*lines):
        path = tmp_path / "a.yaml"
        path.write_text("\n".join(["search_space:", *(f"  {line}" for line in lines)]))
        section = load(path).section("search_space")
        space = parse_space(section, {**FIELDS, METHOD.name: METHOD})
        return space, [str(p).replace(f"{tmp_path}/", "").replace("search_space.", "") for p in section.problems]

    return parse


# --- what is read --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "dimension"),
    [
        ("learning_rate: {type: float, low: 1e-5, high: 1e-2, log: true}", Float(1e-5, 1e-2, log=True)),
        ("weight_decay: {type: float, low: 0, high: 1, step: 0.25}", Float(0.0, 1.0, step=0.25)),
        ("weight_decay: {type: float, low: 0.1, high: 0.1}", Float(0.1, 0.1)),
        ("lora_r: {type: int, low: 4, high: 64, log: true}", Int(4, 64, log=True)),
        ("lora_r: {type: int, low: 4, high: 16, step: 4}", Int(4, 16, step=4)),
        ("lora_r: {type: int, low: 4.0, high: 8}", Int(4, 8)),
        ("batch_size: {type: choice, values: [8, 16]}", Choice((8, 16))),
        ("lr_scheduler_type: {type: choice, values: [linear, cosine]}", Choice(("linear", "cosine"))),
        ("lora_alpha: {type: choice, values: [null, 16]}", Choice((None, 16.0))),
        ("alpha_ratio: {type: choice, values: [1, 2.5]}", Choice((1.0, 2.5))),
        ("method: {type: choice, values: [lora, dora]}", Choice(("lora", "dora"))),
        ("optim: {type: choice, values: [adamw_torch, adafactor]}", Choice(("adamw_torch", "adafactor"))),
        ("max_length: {type: int, low: 64, high: 256, step: 64}", Int(64, 256, step=64)),
        ("max_epochs: {type: float, low: 0.5, high: 3}", Float(0.5, 3.0)),
        ("max_examples: {type: int, low: 100, high: 1600, log: true}", Int(100, 1600, log=True)),
        ("lora_r: 8", Choice((8,))),
        ("method: dora", Choice(("dora",))),
        ("learning_rate: 1e-3", Choice((0.001,))),
        ("weight_decay: 0", Choice((0.0,))),
        ("target_modules: q_proj, v_proj", Choice(("q_proj,v_proj",))),
        ("rank_pattern: {query: 4, key: 8}", Choice(("query=4,key=8",))),
        ("max_examples: 1e5", Choice((100_000,))),
        ("lora_r: {type: choice, values: [1e1, 8]}", Choice((10, 8))),
        ("lora_alpha: null", Choice((None,))),
    ],
)
def test_each_kind_is_read(parse, line, dimension):
    space, problems = parse(line)
    assert problems == []
    assert list(space.dimensions.values()) == [dimension]
    assert repr(next(iter(space.dimensions.values()))) == repr(dimension)  # 1 is not 1.0: it would be another trial
    assert space.conditions == {}


@pytest.mark.parametrize(
    ("when", "values"),
    [
        ("{method: lora}", {"method": ("lora",)}),
        ("{method: [dora, lora]}", {"method": ("dora", "lora")}),
        ("{method: lora, lora_r: 8}", {"method": ("lora",), "lora_r": (8,)}),
        ("{weight_decay: 0.3}", {"weight_decay": (0.1 + 2 * 0.1,)}),
        ("{target_modules: 'q_proj, v_proj'}", {"target_modules": ("q_proj,v_proj",)}),
        ("{lora_r: [8.0, 4]}", {"lora_r": (8, 4)}),
        ("{alpha_ratio: [null]}", None),
    ],
)
def test_conditions_are_read_as_their_dimension_spells_the_values(parse, when, values):
    """0.1 + 2 * 0.1 is not 0.3: a condition that compared the two would never hold."""
    space, problems = parse(
        f"lora_dropout: {{type: float, low: 0, high: 0.5, when: {when}}}",
        "lora_r: {type: int, low: 4, high: 8}",
        "method: {type: choice, values: [lora, dora]}",
        "weight_decay: {type: float, low: 0.1, high: 0.5, step: 0.1}",
        "alpha_ratio: {type: choice, values: [1, 2]}",
        "target_modules: {type: choice, values: [attention, [q_proj, v_proj]]}",
    )
    if values is None:
        assert len(problems) == 1
        return
    assert problems == []
    assert space.conditions == {"lora_dropout": values}
    point = space.point(lambda name, d: values.get(name, (d.nearest(DEFAULTS[name]),))[0])
    assert "lora_dropout" in point


def test_a_dimension_comes_after_those_of_its_condition_else_in_the_order_of_the_file(parse):
    space, problems = parse(
        "alpha_ratio: {type: choice, values: [1, 2], when: {lora_r: [4, 6]}}",
        "lora_r: {type: int, low: 4, high: 8, when: {method: [lora, rslora]}}",
        "weight_decay: {type: choice, values: [0, 0.1]}",
        "method: {type: choice, values: [lora, dora, rslora]}",
    )
    assert problems == []
    assert list(space.dimensions) == ["weight_decay", "method", "lora_r", "alpha_ratio"]
    assert space.grid()[0] == {"weight_decay": 0, "method": "lora", "lora_r": 4, "alpha_ratio": 1}
    assert {"weight_decay": 0.1, "method": "dora"} in space.grid()
    assert len(space.grid()) == 2 * (2 * (2 * 2 + 3) + 1)


def test_dimensions_keep_the_order_of_the_file(parse):
    space, _ = parse("lora_r: {type: choice, values: [4]}", "batch_size: {type: choice, values: [8]}")
    assert list(space.dimensions) == ["lora_r", "batch_size"]


# --- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("lora_r: {type: int, low: 8, high: 4}", "lora_r.low: low 8 is above high 4; expected low <= high"),
        (
            "weight_decay: {type: float, low: 0, high: 1, log: true}",
            "weight_decay.low: got low 0 with log: true; expected low above 0",
        ),
        (
            "lora_r: {type: int, low: 4, high: 8, log: true, step: 2}",
            "lora_r.step: got step with log: true; expected one of the two",
        ),
        (
            "learning_rate: {type: int, low: 1, high: 1}",
            "learning_rate.type: got type int; learning_rate is a number above 0 and at most 1: expected type: float",
        ),
        (
            "lora_r: {type: float, low: 4, high: 8}",
            "lora_r.type: got type float; lora_r is a whole number at least 1 and at most 1024: expected type: int",
        ),
        (
            "target_modules: {type: int, low: 1, high: 2}",
            "target_modules.type: got type int; target_modules is text, or a list of texts: "
            "expected type: choice",
        ),
        (
            "batch_size: {type: choice, values: [8, 16, 8]}",
            "batch_size.values: got [8, 16, 8]; expected each value once",
        ),
        pytest.param(
            "alpha_ratio: {type: choice, values: [1, 1.0]}",
            "alpha_ratio.values: got [1, 1.0]; expected each value once",
        ),
        (
            "target_modules: {type: choice, values: [[q_proj, v_proj], 'q_proj, v_proj']}",
            "target_modules.values: got [['q_proj', 'v_proj'], 'q_proj, v_proj']; expected each value once",
        ),
        ("lora_r: {low: 4, high: 8}", "lora_r: has no type; expected type: float, int or choice"),
        ("lora_r: {type: itn, low: 4, high: 8}", "lora_r.type: got 'itn'; did you mean 'int'?"),
        ("learn_rate: {type: float, low: 1, high: 1}", "learn_rate: unknown parameter; did you mean 'learning_rate'?"),
        (
            "lora_r: {type: int, low: 0, high: 8}",
            "lora_r.low: got 0; expected a whole number at least 1 and at most 1024",
        ),
        (
            "lora_r: {type: int, low: 4, high: 2048}",
            "lora_r.high: got 2048; expected a whole number at least 1 and at most 1024",
        ),
        ("lora_r: {type: int, low: 4}", "lora_r.high: is missing; expected a whole number"),
        ("lora_r: {type: int, low: 4, high: 8.5}", "lora_r.high: got 8.5; expected a whole number"),
        ("weight_decay: {type: float, low: x, high: 1}", "weight_decay.low: got 'x'; expected a number"),
        ("weight_decay: {type: float, low: true, high: 1}", "weight_decay.low: got True; expected a number"),
        ("lora_r: {type: int, low: 4, high: 8, step: 0}", "lora_r.step: got 0; expected a whole number above 0"),
        ("lora_r: {type: int, low: 4, high: 8, step: x}", "lora_r.step: got 'x'; expected a whole number above 0"),
        (
            "batch_size: {type: choice, values: []}",
            "batch_size.values: got []; expected a list of values, e.g. [8, 16, 32]",
        ),
        ("batch_size: {type: choice}", "batch_size.values: is missing; expected a list of values, e.g. [8, 16, 32]"),
        (
            "batch_size: {type: choice, values: [8, big]}",
            "batch_size.values: got 'big'; expected a whole number at least 1 and at most 65536",
        ),
        (
            "batch_size: {type: choice, values: [[8]]}",
            "batch_size.values: got [8]; expected a whole number at least 1 and at most 65536",
        ),
        ("lora_r: {type: int, low: 4, high: 8, stp: 2}", "lora_r.stp: unknown key; did you mean 'step'?"),
        ("lora_r: {type: int, low: 4, high: 8, wen: {}}", "lora_r.wen: unknown key; did you mean 'when'?"),
        ("lora_r: {type: int, low: 4, high: 8, log: maybe}", "lora_r.log: got 'maybe'; expected true or false"),
        ("lora_r: {type: int, low: 4, high: 8, values: [4]}", "lora_r.values: unknown key; known: when, type, low"),
        ("lora_r: {type: choice, values: [4], low: 4}", "lora_r.low: unknown key; known: when, type, values"),
        ("lora_r: 0", "lora_r: got 0; expected a whole number at least 1 and at most 1024"),
        ("lora_r: 8.5", "lora_r: got 8.5; expected a whole number at least 1 and at most 1024"),
        ("lora_r: big", "lora_r: got 'big'; expected a whole number at least 1 and at most 1024"),
        ("lora_r: true", "lora_r: got True; expected a whole number at least 1 and at most 1024"),
        ("lora_r:", "lora_r: is empty; expected a whole number at least 1 and at most 1024"),
        ("lora_r: [4, 8]", "lora_r: got [4, 8]; expected a value, or {type: choice, values: [...]}"),
        ("method: xlora", f"method: got 'xlora'; expected {METHOD.describe()}"),
        ("method: {type: choice, values: [lora, x]}", f"method.values: got 'x'; expected {METHOD.describe()}"),
        ("method: {type: int, low: 1, high: 2}",
         f"method.type: got type int; method is {METHOD.describe()}: expected type: choice"),
        ("optim: {type: choice, values: [adamw]}", "optim.values: got 'adamw'; expected one of adamw_torch, adafactor"),
        ("max_length: {type: int, low: 4, high: 64}",
         "max_length.low: got 4; expected a whole number at least 8"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_problem(parse, line, problem):
    space, problems = parse("max_grad_norm: {type: float, low: 1, high: 2}", line)
    assert len(problems) == 1
    assert problems[0].startswith(f"a.yaml:3: {problem}")
    assert line.partition(":")[0] not in space.dimensions or "unknown key" in problem
    assert "max_grad_norm" in space.dimensions


WHEN = {  # of lora_r, beside a method (lora or dora), a weight_decay (0.1, 0.2, ... 0.5) and a max_grad_norm
    "": "is empty; expected another dimension and its value, e.g. {method: lora}",
    "{}": "is empty; expected another dimension and its value, e.g. {method: lora}",
    "lora": "got 'lora'; expected a mapping",
    "[method]": "got ['method']; expected a mapping",
    "{methd: lora}": "methd: is not a dimension; did you mean 'method'?",
    "{batch_size: 8}": "batch_size: is not a dimension; known: method, weight_decay, lora_r, max_grad_norm",
    "{method: rslora}": "method: got 'rslora'; method is one of lora, dora",
    "{method: [lora, rslora]}": "method: got 'rslora'; method is one of lora, dora",
    "{method: }": "method: is empty; method is one of lora, dora",
    "{method: []}": "method: got []; expected the values of method for which this dimension exists",
    "{weight_decay: 0.25}": "weight_decay: got 0.25; weight_decay is a number from 0.1 to 0.5 in steps of 0.1",
    "{max_grad_norm: 3}": "max_grad_norm: got 3; max_grad_norm is a number from 1 to 2",
    "{max_grad_norm: true}": "max_grad_norm: got True; max_grad_norm is a number from 1 to 2",
    "{lora_r: 4}": "depends on itself; conditions must not go in a circle",
}


@pytest.mark.parametrize("when", WHEN)
def test_each_impossible_condition_is_one_problem(parse, when):
    _, problems = parse(
        "method: {type: choice, values: [lora, dora]}",
        "weight_decay: {type: float, low: 0.1, high: 0.5, step: 0.1}",
        f"lora_r: {{type: int, low: 4, high: 8, when: {when}}}",
        "max_grad_norm: {type: float, low: 1, high: 2}",
    )
    between = "." if WHEN[when].partition(":")[0].isidentifier() else ": "
    assert problems == [f"a.yaml:4: lora_r.when{between}{WHEN[when]}"]


def test_a_condition_on_one_of_endless_values_is_refused(parse):
    _, problems = parse(
        "learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}",
        "lora_r: {type: int, low: 4, high: 8, when: {learning_rate: 1e-3}}",
    )
    assert problems == [
        "a.yaml:3: lora_r.when.learning_rate: learning_rate is any number from 0.0001 to 0.01: hardly a trial has this "
        "one; give learning_rate a step, or type: choice"
    ]


def test_a_circle_of_conditions_is_named_once_with_its_line(parse):
    space, problems = parse(
        "batch_size: 8",
        "lora_r: {type: int, low: 4, high: 8, when: {method: lora}}",
        "method: {type: choice, values: [lora, dora], when: {weight_decay: 0}}",
        "weight_decay: {type: choice, values: [0, 0.1], when: {lora_r: 4}}",
    )
    assert problems == ["a.yaml:3: lora_r.when: depends on itself; conditions must not go in a circle"]
    assert len(space.dimensions) == 4


def test_a_condition_on_a_broken_dimension_is_no_second_problem(parse):
    _, problems = parse(
        "method: {type: choice, values: [lora, x]}", "lora_r: {type: int, low: 4, high: 8, when: {method: x}}"
    )
    assert [problem.split(";")[0] for problem in problems] == ["a.yaml:2: method.values: got 'x'"]


def test_every_problem_of_a_space_at_once(parse):
    _, problems = parse(
        "lora_r: {type: int, low: 8, high: 4, log: true, step: 2, when: {method: x}}",
        "method: [lora]",
        "learnin_rate: 1",
        "batch_size: {type: choice, values: [8, 8, big]}",
    )
    assert [problem.split(";")[0] for problem in problems] == [
        "a.yaml:2: lora_r.low: low 8 is above high 4",
        "a.yaml:2: lora_r.step: got step with log: true",
        "a.yaml:3: method: got ['lora']",
        "a.yaml:4: learnin_rate: unknown parameter",
        "a.yaml:5: batch_size.values: got [8, 8, 'big']",
        "a.yaml:5: batch_size.values: got 'big'",
    ]


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if not field.searchable])
def test_a_setting_that_is_no_hyperparameter_cannot_be_searched(parse, name):
    space, [problem] = parse(f"{name}: {{type: int, low: 1, high: 2}}")
    assert problem.startswith(
        f"a.yaml:2: {name}: cannot be searched; set it under training; searchable: learning_rate,"
    )
    assert not space.dimensions


def test_a_setting_of_another_method_is_named_as_such(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("search_space:\n  lora_r: {type: int, low: 1, high: 2}\n")
    section = load(path).section("search_space")
    parse_space(section, {name: f for name, f in FIELDS.items() if not f.methods})
    assert [p.found for p in section.problems] == ["is not a setting of this method"]


@pytest.mark.parametrize("step", ["0.5", "2.5"])
def test_a_step_between_whole_numbers_is_whole(parse, step):
    _, problems = parse(f"lora_r: {{type: int, low: 4, high: 8, step: {step}}}")
    assert len(problems) == 1


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("max_grad_norm: {type: float, low: 1, high: .inf}"),
        "weight_decay: {type: float, low: .nan, high: 1}",
        pytest.param("weight_decay: {type: float, low: 0, high: 1, step: .nan}"),
        pytest.param("weight_decay: {type: float, low: 0, high: 1, step: .inf}"),
    ],
)
def test_intervals_are_finite(parse, line):
    _, problems = parse(line)
    assert len(problems) == 1


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.searchable])
def test_every_setting_marked_searchable_can_be_searched(parse, name):
    field = FIELDS[name]
    value = field.choices[0] if field.choices else (field.default or "query=4") if field.type is str else 8
    fixed, problems = parse(f"{name}: {value}" if field.refuse(value) is None else f"{name}: 0.5")
    assert problems == []
    assert list(fixed.dimensions) == [name]


# --- what a dimension knows ----------------------------------------------------------------------------

BOUNDS = st.floats(1e-6, 1e3)
SETTINGS = st.one_of(st.floats(-1e4, 1e4), st.integers(-5000, 5000), st.text(max_size=3), st.none())


@st.composite
def floats(draw, *, stepped=None):
    low, high = sorted([draw(BOUNDS), draw(BOUNDS)])
    if draw(st.booleans()) if stepped is None else stepped:
        return Float(low, high, step=draw(st.floats((high - low) / 50 + 1e-6, (high - low) + 1)))
    return Float(low, high, log=draw(st.booleans()))


@st.composite
def ints(draw, *, log=False):
    low, high = sorted([draw(st.integers(1, 1000)), draw(st.integers(1, 1000))])
    return Int(low, high, log=True) if log else Int(low, high, step=draw(st.integers(1, 200)))


CHOICES = st.one_of(
    st.lists(st.integers(1, 100), min_size=1, unique=True),
    st.lists(st.floats(0.1, 10), min_size=1, unique=True),
    st.lists(st.sampled_from(["linear", "cosine", "constant"]), min_size=1, unique=True),
).map(lambda values: Choice(tuple(values)))
DIMENSIONS = st.one_of(floats(), ints(), CHOICES)


@BUSY
@given(DIMENSIONS, SETTINGS)
@example(Int(0, 10, step=6), 10)
def test_the_nearest_value_is_contained_and_stays(dimension, value):
    nearest = dimension.nearest(value)
    assert dimension.contains(nearest)
    assert dimension.nearest(nearest) == nearest


@BUSY
@given(DIMENSIONS)
def test_a_contained_value_is_its_own_nearest(dimension):
    for value in dimension.grid() or [dimension.low, dimension.high]:
        assert dimension.nearest(value) == pytest.approx(value)


@BUSY
@given(st.one_of(floats(stepped=True), ints(), CHOICES))
@example(Float(0.1, 0.3, step=0.1))
def test_every_grid_value_is_contained(dimension):
    grid = dimension.grid()
    assert grid
    assert all(dimension.contains(value) for value in grid)
    assert len(set(grid)) == len(grid)


@BUSY
@given(st.one_of(floats(stepped=True), ints(), CHOICES), SETTINGS)
@example(Float(0.0, 1.0, step=0.6), 1.0)
@example(Float(0.1, 0.3, step=0.1), 0.3)
def test_the_nearest_value_is_a_grid_value(dimension, value):
    assert dimension.nearest(value) in dimension.grid()


@BUSY
@given(ints(), st.integers(-100, 2000))
@example(Int(1, 3, step=3), 3)
def test_no_grid_value_is_nearer_than_the_nearest(dimension, value):
    distance = abs(dimension.nearest(value) - value)
    assert distance == min(abs(v - value) for v in dimension.grid())


@BUSY
@given(floats(stepped=False), st.floats(-1e4, 1e4))
def test_a_continuum_clips(dimension, value):
    assert dimension.grid() is None
    assert dimension.nearest(value) == min(max(value, dimension.low), dimension.high)


def test_a_choice_of_words_falls_back_to_its_first():
    assert Choice(("linear", "cosine")).nearest("constant") == "linear"
    assert Choice(("linear", "cosine")).nearest("cosine") == "cosine"


def test_a_choice_of_numbers_moves_to_the_nearest():
    assert Choice((8, 16, 64)).nearest(30) == 16


@pytest.mark.parametrize(
    ("dimension", "value"),
    [
        (Float(0.0, 1.0), 1.1),
        (Float(0.0, 1.0), -0.1),
        (Float(0.0, 1.0), "a"),
        (Int(2, 8, step=2), 3),
        (Int(2, 8), 9),
        (Int(2, 8), 4.5),
        (Choice((8, 16)), 12),
    ],
)
def test_what_is_outside_is_not_contained(dimension, value):
    assert not dimension.contains(value)


@BUSY
@given(DIMENSIONS, st.floats(0, 1))
@example(Float(0.33, 0.87), 1.0)  # 0.33 + (0.87 - 0.33) is more than 0.87
@example(Int(1, 1000, log=True), 1.0)
@example(Int(1, 1000, log=True), 0.0)
def test_the_value_at_any_share_is_contained(dimension, u):
    assert dimension.contains(dimension.at(u))


@BUSY
@given(st.one_of(floats(), ints(), ints(log=True)), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_is_no_smaller_value(dimension, a, b):
    assert dimension.at(min(a, b)) <= dimension.at(max(a, b))


@BUSY
@given(st.one_of(floats(stepped=True), ints(), CHOICES))
def test_equal_parts_of_the_share_go_to_each_value(dimension):
    grid = dimension.grid()
    assert [dimension.at((i + 0.5) / len(grid)) for i in range(len(grid))] == grid


@BUSY
@given(st.one_of(floats(), ints(), ints(log=True), CHOICES))
def test_the_size_is_that_of_the_grid(dimension):
    grid = dimension.grid()
    assert dimension.size() == (INF if grid is None else len(grid))


def test_a_size_needs_no_list():
    """A list of these would need more memory than there is."""
    assert Int(1, 10**15).size() == 10**15
    assert Float(0, 1, step=1e-15).size() == pytest.approx(1e15)
    assert SearchSpace({"max_examples": Int(1, 10**15), "lora_r": Int(1, 2)}).most_points() == 2 * 10**15


def test_the_middle_of_a_logarithmic_dimension_is_its_geometric_mean():
    assert Float(1e-4, 1e-2, log=True).at(0.5) == pytest.approx(1e-3)
    assert Int(4, 64, log=True).at(0.5) == 15  # of 3.5 to 64.5: see the next test
    assert Float(1, 3).at(0.5) == 2


def test_both_ends_of_logarithmic_whole_numbers_are_drawn_as_often_as_their_neighbours():
    drawn = [Int(1, 64, log=True).at((i + 0.5) / 10000) for i in range(10000)]
    counts = {value: drawn.count(value) for value in range(1, 65)}
    assert min(counts.values()) > 0
    assert all(counts[value] >= counts[value + 1] - 1 for value in range(1, 64))


@pytest.mark.parametrize(
    "dimension", [Float(0, 1), Float(0, 1, step=0.5), Int(0, 4), Choice((0, 1)), Choice(("0", "1")), Choice((None,))]
)
def test_truth_is_no_number(dimension):
    assert not dimension.contains(True)
    assert not dimension.contains(False)


@pytest.mark.parametrize(
    ("dimension", "text"),
    [
        (Float(1e-5, 0.5, log=True), "a number from 1e-05 to 0.5"),
        (Float(0, 1, step=0.4), "a number from 0 to 0.8 in steps of 0.4"),
        (Int(4, 64), "a whole number from 4 to 64"),
        (Int(4, 65, step=4), "a whole number from 4 to 64 in steps of 4"),
        (Choice((None, 8, "a")), "one of null, 8, a"),
    ],
)
def test_a_dimension_says_what_it_holds(dimension, text):
    assert dimension.describe() == text


# --- its ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dimension", "value", "end"),
    [
        (Float(0, 1), 0.03, "lower"),
        (Float(0, 1), 0.031, None),
        (Float(0, 1), 0.969, None),
        (Float(0, 1), 0.97, "upper"),
        (Float(1e-4, 1e-2, log=True), 1.14e-4, "lower"),
        (Float(1e-4, 1e-2, log=True), 1.16e-4, None),
        (Float(1e-4, 1e-2, log=True), 9e-3, "upper"),
        (Int(4, 64), 4, "lower"),
        (Int(4, 64), 32, None),
        (Int(4, 64, log=True), 64, "upper"),
        (Int(4, 64), 63, "upper"),
        (Int(1, 10, step=6), 7, "upper"),  # its last step
        (Int(1, 3, step=3), 1, None),
        (Int(5, 5), 5, None),
        (Float(0.1, 0.3, step=0.5), 0.1, None),
        (Choice((8, 16)), 16, None),
        (Int(4, 64), None, None),
    ],
)
def test_an_edge_is_within_three_percent_of_an_end(dimension, value, end):
    assert edge(dimension, value) == end


@BUSY
@given(DIMENSIONS)
def test_both_ends_are_edges_where_there_is_something_between(dimension):
    assume(not isinstance(dimension, Choice))
    ends = [edge(dimension, dimension.low), edge(dimension, dimension.last)]
    assert ends == (["lower", "upper"] if dimension.size() > 1 and dimension.low < dimension.last else [None, None])


RATE, DECAY, RANK, LENGTH = (FIELDS[n] for n in ("learning_rate", "weight_decay", "lora_r", "max_length"))


@pytest.mark.parametrize(
    ("dimension", "end", "field", "bound"),
    [
        (Float(1e-4, 1e-2, log=True), "lower", RATE, 2.5e-5),
        (Float(1e-4, 1e-2, log=True), "upper", RATE, 0.04),
        (Float(1e-4, 0.5, log=True), "upper", RATE, 1.0),
        (Float(1e-4, 1.0, log=True), "upper", RATE, None),
        (Float(0.0, 0.4), "upper", DECAY, 0.6),
        (Float(0.0, 0.4), "lower", DECAY, None),
        (Float(0.1, 0.5), "lower", DECAY, 0.0),
        (Float(0.001, 0.9), "lower", RATE, None),  # 0 itself is no learning rate, and there is no round one before it
        (Int(4, 64, log=True), "lower", RANK, 1),
        (Int(4, 64, log=True), "upper", RANK, 256),
        (Int(1, 64, log=True), "lower", RANK, None),
        (Int(4, 512, log=True), "upper", RANK, 1024),
        (Int(4, 1024, log=True), "upper", RANK, None),
        (Int(4, 8), "upper", RANK, 10),
        (Int(7, 8), "upper", RANK, 9),
        (Int(7, 8), "lower", RANK, 6),
        (Int(64, 128), "lower", LENGTH, 32),
        (Int(8, 16), "lower", LENGTH, None),
        (Float(990.0, 1000.0), "upper", None, 1005.0),  # 1e+03, the round number, is no wider
        (Float(1e-4, 1.0, log=True), "upper", None, 4.0),
    ],
)
def test_a_wider_bound_is_one_that_the_setting_allows(dimension, end, field, bound):
    assert wider(dimension, end, field) == bound
    assert type(wider(dimension, end, field)) in (type(bound), type(None))


@BUSY
@given(st.one_of(floats(stepped=False), ints(), ints(log=True)), st.sampled_from(["lower", "upper"]), st.booleans())
def test_a_wider_bound_is_further_out_and_allowed(dimension, end, is_bounded):
    field = (RANK if isinstance(dimension, Int) else RATE) if is_bounded else None
    assume(dimension.low < dimension.high and (field is None or not field.refuse(dimension.high)))
    bound = wider(dimension, end, field)
    if bound is None:
        assert field is not None or dimension.high - dimension.low < 1e-9
    else:
        assert bound < dimension.low if end == "lower" else bound > dimension.high
        assert field is None or field.refuse(bound) is None


# --- the space -----------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d", "e")


@st.composite
def finite_dimensions(draw):
    kind = draw(st.sampled_from(["choice", "int", "float"]))
    if kind == "choice":
        values = st.one_of(st.sampled_from(["x", "y", "z", None]), st.integers(0, 3))
        return Choice(tuple(draw(st.lists(values, min_size=1, max_size=3, unique=True))))
    low, steps = draw(st.integers(0, 5)), draw(st.integers(0, 2))
    step, rest = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    if kind == "int":
        return Int(low, low + steps * step + min(rest, step - 1), step=step)
    return Float(low / 10, (low + steps * step) / 10, step=step / 10)


@st.composite
def spaces(draw, *, is_finite):
    """Up to five dimensions, some of which exist only where earlier ones have some of their values."""
    dimensions, conditions = {}, {}
    for name in NAMES[: draw(st.integers(0, len(NAMES)))]:
        is_small = is_finite or draw(st.booleans())
        dimensions[name] = draw(finite_dimensions() if is_small else st.one_of(floats(), ints()))
        earlier = [n for n in dimensions if n != name and dimensions[n].size() <= 20]
        if earlier and draw(st.booleans()):
            others = draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=2, unique=True))
            conditions[name] = {
                other: tuple(draw(st.lists(st.sampled_from(dimensions[other].grid()), min_size=1, unique=True)))
                for other in others
            }
    return SearchSpace(dimensions, conditions)


ANY_SPACE = st.booleans().flatmap(lambda is_finite: spaces(is_finite=is_finite))
SHARES = st.fixed_dictionaries({name: st.floats(0, 1) for name in NAMES})


def canonical(point):
    return json.dumps(point, sort_keys=True)


@BUSY
@given(ANY_SPACE, SHARES)
def test_a_point_at_any_shares_lies_inside(space, shares):
    point = space.point(lambda name, dimension: dimension.at(shares[name]))
    assert space.contains(point)
    for name, condition in space.conditions.items():
        assert (name in point) == all(n in point and point[n] in values for n, values in condition.items())
    assert [name for name in space.dimensions if name in point] == list(point)


@BUSY
@given(ANY_SPACE, st.fixed_dictionaries(dict.fromkeys(NAMES, SETTINGS)))
def test_the_baseline_of_any_defaults_lies_inside(space, defaults):
    baseline = space.baseline(defaults)
    assert space.contains(baseline)
    assert space.baseline({**defaults, **baseline}) == baseline


@BUSY
@given(spaces(is_finite=True))
def test_a_grid_is_just_what_the_space_contains_each_once(space):
    absent = object()
    axes = [[*dimension.grid(), absent] for dimension in space.dimensions.values()]
    candidates = (zip(space.dimensions, values, strict=True) for values in itertools.product(*axes))
    points = [{name: value for name, value in point if value is not absent} for point in candidates]
    inside = {canonical(point) for point in points if space.contains(point)}
    grid = [canonical(point) for point in space.grid()]
    assert len(set(grid)) == len(grid)
    assert set(grid) == inside
    assert len(grid) <= space.most_points()
    assert bool(space.conditions) or len(grid) == space.most_points()


@BUSY
@given(spaces(is_finite=True), SHARES, st.data())
def test_a_point_with_too_much_too_little_or_else_is_not_contained(space, shares, data):
    point = space.point(lambda name, dimension: dimension.at(shares[name]))
    assume(space.dimensions)
    name = data.draw(st.sampled_from(sorted(space.dimensions)))
    if name in point:
        assert not space.contains({n: v for n, v in point.items() if n != name})
        assert not space.contains({**point, name: "nothing like it"})
    else:
        assert not space.contains({**point, name: space.dimensions[name].at(0)})
    assert not space.contains({**point, "z": 1})


@BUSY
@given(ANY_SPACE)
def test_a_space_survives_json(space):
    again = from_resolved(json.loads(json.dumps(space.resolved())))
    assert again == space
    assert list(again.dimensions) == list(space.dimensions)
    assert again.resolved() == space.resolved()


def test_a_space_as_plain_values():
    space = SearchSpace(
        {"method": Choice(("lora", "dora")), "lora_r": Int(4, 8, step=2), "weight_decay": Float(0.0, 1.0)},
        {"lora_r": {"method": ("lora",)}},
    )
    assert space.resolved() == {
        "method": {"type": "choice", "values": ("lora", "dora")},
        "lora_r": {"type": "int", "low": 4, "high": 8, "log": False, "step": 2, "when": {"method": ["lora"]}},
        "weight_decay": {"type": "float", "low": 0.0, "high": 1.0, "log": False, "step": None},
    }


def test_what_depends_on_an_absent_dimension_is_absent_also_where_it_would_be_null():
    space = SearchSpace(
        {"method": Choice(("lora", "dora")), "lora_alpha": Choice((None, 8.0)), "alpha_ratio": Choice((1.0, 2.0))},
        {"lora_alpha": {"method": ("lora",)}, "alpha_ratio": {"lora_alpha": (None,)}},
    )
    assert {"method": "dora"} in space.grid()
    assert space.point(lambda name, d: "dora" if name == "method" else d.at(0)) == {"method": "dora"}
    assert len(space.grid()) == 1 + 1 + 2


@BUSY
@given(
    st.fixed_dictionaries(
        {},
        optional={"learning_rate": floats(), "lora_r": ints(), "batch_size": CHOICES, "target_modules": CHOICES},
    )
)
def test_the_baseline_is_inside_the_space(dimensions):
    baseline = SearchSpace(dimensions).baseline(DEFAULTS)
    assert list(baseline) == list(dimensions)
    assert all(dimensions[name].contains(value) for name, value in baseline.items())


def test_the_baseline_is_the_default_where_the_space_has_it():
    space = SearchSpace({"learning_rate": Float(1e-5, 1e-2, log=True), "lora_r": Choice((16, 32))})
    assert space.baseline(DEFAULTS) == {"learning_rate": 5e-4, "lora_r": 16}


def test_a_grid_is_every_combination_with_the_last_dimension_fastest():
    space = SearchSpace({"lora_r": Int(4, 8, step=4), "lr_scheduler_type": Choice(("linear", "cosine"))})
    assert [tuple(point.values()) for point in space.grid()] == [
        (4, "linear"), (4, "cosine"), (8, "linear"), (8, "cosine"),
    ]  # fmt: skip


def test_a_grid_over_a_continuum_names_it():
    space = SearchSpace({"weight_decay": Float(0, 1), "lora_r": Int(1, 2), "learning_rate": Float(0.1, 1)})
    with pytest.raises(ValueError, match=r"^weight_decay, learning_rate$"):
        space.grid()


def test_grid_values_are_low_plus_whole_steps():
    assert Float(0.0, 1.0, step=0.4).grid() == pytest.approx([0.0, 0.4, 0.8])
    assert Float(0.0, 0.3, step=0.1).grid() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert math.isclose(Float(0.1, 0.3, step=0.1).grid()[-1], 0.3)
