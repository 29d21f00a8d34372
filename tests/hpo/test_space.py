"""Search dimensions: what is read, what is refused, and what a dimension knows of its values."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpo.space import Choice, Float, Int, SearchSpace, parse_space
from hpo.yaml_source import load
from trainers.catalog import FIELDS, default_settings

DEFAULTS = default_settings("text-classification", "lora")


@pytest.fixture
def parse(tmp_path):
    """(space, problems as text) of the YAML below `search_space:`, one parameter a line."""

    def parse(*lines):
        path = tmp_path / "a.yaml"
        path.write_text("\n".join(["search_space:", *(f"  {line}" for line in lines)]))
        section = load(path).section("search_space")
        space = parse_space(section, FIELDS)
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
        ("lora_alpha: {type: choice, values: [null, 16]}", Choice((None, 16))),
    ],
)
def test_each_kind_is_read(parse, line, dimension):
    space, problems = parse(line)
    assert problems == []
    assert list(space.dimensions.values()) == [dimension]
    assert [type(v) for v in vars(next(iter(space.dimensions.values()))).values()] == [
        type(v) for v in vars(dimension).values()
    ]


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
            "target_modules.type: got type int; target_modules is one of all-linear, attention, mlp: "
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
        ("batch_size: {type: choice}", "batch_size.values: got None; expected a list of values, e.g. [8, 16, 32]"),
        (
            "batch_size: {type: choice, values: [8, big]}",
            "batch_size.values: got 'big'; expected a whole number at least 1 and at most 65536",
        ),
        (
            "batch_size: {type: choice, values: [[8]]}",
            "batch_size.values: got [8]; expected a whole number at least 1 and at most 65536",
        ),
        ("lora_r: {type: int, low: 4, high: 8, stp: 2}", "lora_r.stp: unknown key; did you mean 'step'?"),
    ],
)
def test_each_mistake_is_one_problem(parse, line, problem):
    space, problems = parse("max_grad_norm: {type: float, low: 1, high: 2}", line)
    assert problems == [f"a.yaml:3: {problem}"]
    assert line.partition(":")[0] not in space.dimensions or "unknown key" in problem
    assert "max_grad_norm" in space.dimensions


@pytest.mark.parametrize("name", ["max_epochs", "micro_batch_size", "early_stopping.patience"])
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


def test_a_dimension_that_is_no_mapping_is_one_problem(parse):
    _, problems = parse("lora_r: 8")
    assert problems == ["a.yaml:2: lora_r: got 8; expected a mapping"]


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
def ints(draw):
    low, high = sorted([draw(st.integers(1, 1000)), draw(st.integers(1, 1000))])
    return Int(low, high, step=draw(st.integers(1, 200)))


CHOICES = st.one_of(
    st.lists(st.integers(1, 100), min_size=1, unique=True),
    st.lists(st.floats(0.1, 10), min_size=1, unique=True),
    st.lists(st.sampled_from(["linear", "cosine", "constant"]), min_size=1, unique=True),
).map(lambda values: Choice(tuple(values)))
DIMENSIONS = st.one_of(floats(), ints(), CHOICES)


@given(DIMENSIONS, SETTINGS)
@example(Int(0, 10, step=6), 10)
def test_the_nearest_value_is_contained_and_stays(dimension, value):
    nearest = dimension.nearest(value)
    assert dimension.contains(nearest)
    assert dimension.nearest(nearest) == nearest


@given(DIMENSIONS)
def test_a_contained_value_is_its_own_nearest(dimension):
    for value in dimension.grid() or [dimension.low, dimension.high]:
        assert dimension.nearest(value) == pytest.approx(value)


@given(st.one_of(floats(stepped=True), ints(), CHOICES))
@example(Float(0.1, 0.3, step=0.1))
def test_every_grid_value_is_contained(dimension):
    grid = dimension.grid()
    assert grid
    assert all(dimension.contains(value) for value in grid)
    assert len(set(grid)) == len(grid)


@given(st.one_of(floats(stepped=True), ints(), CHOICES), SETTINGS)
@example(Float(0.0, 1.0, step=0.6), 1.0)
@example(Float(0.1, 0.3, step=0.1), 0.3)
def test_the_nearest_value_is_a_grid_value(dimension, value):
    assert dimension.nearest(value) in dimension.grid()


@given(ints(), st.integers(-100, 2000))
@example(Int(1, 3, step=3), 3)
def test_no_grid_value_is_nearer_than_the_nearest(dimension, value):
    distance = abs(dimension.nearest(value) - value)
    assert distance == min(abs(v - value) for v in dimension.grid())


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


# --- the space -----------------------------------------------------------------------------------------


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
