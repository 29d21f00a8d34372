"""The `pruner:` section: every rule by its name, its numbers, and the objective it looks at."""

import dataclasses
import json

import pytest

from hpo.config.objective import Objective
from hpo.config.pruner import DEFAULT, parse_pruner
from hpo.config.yaml_source import load
from hpo.pruning.base import Never
from hpo.pruning.halving import Hyperband, SuccessiveHalving
from hpo.pruning.paired import Paired
from hpo.pruning.patient import Patient
from hpo.pruning.percentile import Median, Percentile
from hpo.pruning.table import RULES
from hpo.pruning.threshold import Threshold

F1, LOSS, SECONDS = Objective("f1_macro", "maximize"), Objective("loss", "minimize"), Objective("seconds", "minimize")


@pytest.fixture
def parse(tmp_path):
    """(pruner, problems as text) of what stands below `pruner:`, in one line."""

    def parse(keys, objectives=(F1, LOSS)):
        path = tmp_path / "a.yaml"
        path.write_text(f"name: x\npruner: {keys}\n")
        root = load(path)
        pruner = parse_pruner(root, objectives)
        return pruner, [str(p).replace(f"{tmp_path}/", "") for p in root.problems]

    return parse


# --- what is read --------------------------------------------------------------------------------------

WRITTEN = {  # as written: the rule
    "": Percentile(),
    "{}": Percentile(25.0, 0.2, 3, 0.02),
    "{type: successive_halving}": SuccessiveHalving(3, 0.2, 0.02),
    "{type: none}": Never(),
    "{type: successive_halving, reduction_factor: 4, min_fraction: 0.1, tolerance: 0, standard_errors: 1}": (
        SuccessiveHalving(4, 0.1, 0.0, 1.0)
    ),
    "{type: successive_halving, reduction_factor: 2.0}": SuccessiveHalving(2),
    "{type: hyperband}": Hyperband(3, 0.1, 0.02),
    "{type: hyperband, reduction_factor: 2, min_fraction: 0.3, tolerance: 0.5, standard_errors: 0}": (
        Hyperband(2, 0.3, 0.5, 0.0)
    ),
    "{type: median}": Median(0.2, 3, 0.02),
    "{type: median, min_fraction: 0.5, min_peers: 1, tolerance: 0, standard_errors: 3}": Median(0.5, 1, 0.0, 3.0),
    "{type: percentile}": Percentile(25.0, 0.2, 3, 0.02),
    "{type: percentile, percentile: 70, min_fraction: 0.5, min_peers: 5, tolerance: 0, standard_errors: 1.5}": (
        Percentile(70.0, 0.5, 5, 0.0, 1.5)
    ),
    "{type: threshold, lower: 0.5}": Threshold(0.5, None),
    "{type: threshold, upper: -1}": Threshold(None, -1.0),
    "{type: threshold, lower: 0, upper: 0}": Threshold(0.0, 0.0),
    "{type: paired}": Paired(0.05, 0.2),
    "{type: paired, alpha: 0.01, min_fraction: 0.4}": Paired(0.01, 0.4),
    "{type: patient, rule: {type: median}}": Patient(Median(), 2, 0.0),
    "{type: patient, rule: {}}": Patient(Percentile()),
    "{type: patient, patience: 5, min_delta: 0.01, rule: {type: threshold, upper: 9}}": Patient(
        Threshold(None, 9.0), 5, 0.01
    ),
    "{type: patient, rule: {type: patient, patience: 1, rule: {type: hyperband, reduction_factor: 4}}}": Patient(
        Patient(Hyperband(4), 1)
    ),
}


@pytest.mark.parametrize("keys", WRITTEN)
def test_each_rule_is_read(parse, keys):
    pruner, problems = parse(keys)
    assert problems == []
    assert repr(pruner.rule) == repr(WRITTEN[keys])  # a whole number stays one
    assert RULES[pruner.type] is type(pruner.rule)
    assert pruner.objective == F1


def test_every_rule_and_every_number_of_one_is_among_those():
    assert {type(rule) for rule in WRITTEN.values()} == set(RULES.values())
    changed = {
        (type(r), f.name) for r in WRITTEN.values() for f in dataclasses.fields(r) if vars(r)[f.name] != f.default
    }
    assert changed == {(cls, f.name) for cls in RULES.values() for f in dataclasses.fields(cls)}


def test_the_default_is_the_one_that_is_documented():
    assert DEFAULT == "percentile"


@pytest.mark.parametrize(("keys", "objective"), [("{}", F1), ("{metric: f1_macro}", F1), ("{metric: loss}", LOSS)])
def test_it_looks_at_the_first_objective_or_the_one_it_names(parse, keys, objective):
    pruner, problems = parse(keys)
    assert (pruner.objective, problems) == (objective, [])


@pytest.mark.parametrize("keys", WRITTEN)
def test_a_pruner_as_plain_values_reads_back_as_itself(parse, keys):
    plain = json.loads(json.dumps(parse(keys)[0].resolved()))
    again, problems = parse(json.dumps(plain))
    assert problems == []
    assert again.rule == WRITTEN[keys]
    assert again.resolved() == plain


def test_a_pruner_as_plain_values(parse):
    assert parse("{type: patient, metric: loss, rule: {type: median, min_peers: 4}}")[0].resolved() == {
        "type": "patient",
        "metric": "loss",
        "rule": {"type": "median", "min_fraction": 0.2, "min_peers": 4, "tolerance": 0.02, "standard_errors": 2.0},
        "patience": 2,
        "min_delta": 0.0,
    }
    assert parse("{type: none}")[0].resolved() == {"type": "none", "metric": "f1_macro"}


# --- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("none", ": got 'none'; expected a mapping"),
        ("false", ": got False; expected a mapping"),
        ("{type: succesive_halving}", ".type: got 'succesive_halving'; did you mean 'successive_halving'?"),
        ("{type: asha}", ".type: got 'asha'; known: " + ", ".join(RULES)),
        ("{type: hyperband, reduction_factor: 1}", ".reduction_factor: got 1; expected a whole number from 2"),
        (
            "{type: successive_halving, reduction_factor: 2.5}",
            ".reduction_factor: got 2.5; expected a whole number from 2",
        ),
        ("{min_fraction: 0}", ".min_fraction: got 0; expected a number between 0 and 1"),
        ("{min_fraction: 1}", ".min_fraction: got 1; expected a number between 0 and 1"),
        ("{tolerance: -0.1}", ".tolerance: got -0.1; expected a share from 0, below 1"),
        ("{standard_errors: -1}", ".standard_errors: got -1; expected a number from 0"),
        ("{tolerance: 1}", ".tolerance: got 1; expected a share from 0, below 1"),
        ("{tolerance: 2 %}", ".tolerance: got '2 %'; expected a share from 0, below 1"),
        ("{type: median, min_peers: 0}", ".min_peers: got 0; expected a whole number from 1"),
        ("{type: percentile, percentile: 0}", ".percentile: got 0; expected a number between 0 and 100"),
        ("{type: percentile, percentile: 100}", ".percentile: got 100; expected a number between 0 and 100"),
        ("{type: paired, alpha: 0}", ".alpha: got 0; expected a number between 0 and 1"),
        ("{type: paired, alpha: 1}", ".alpha: got 1; expected a number between 0 and 1"),
        ("{type: threshold}", ".type: has no bound; expected lower or upper"),
        ("{type: threshold, lower: null, upper: null}", ".type: has no bound; expected lower or upper"),
        ("{type: threshold, lower: .nan}", ".lower: got nan; expected a number"),
        ("{type: threshold, upper: high}", ".upper: got 'high'; expected a number"),
        ("{type: threshold, lower: 2, upper: 1}", ".lower: lower 2 is above upper 1; expected lower <= upper"),
        ("{type: patient}", ".type: has no rule; expected e.g. rule: {type: median}"),
        ("{type: patient, rule: }", ".type: has no rule; expected e.g. rule: {type: median}"),
        ("{type: patient, rule: median}", ".rule: got 'median'; expected a mapping"),
        ("{type: patient, rule: {type: meridian}}", ".rule.type: got 'meridian'; did you mean 'median'?"),
        ("{type: patient, rule: {type: patient}}", ".rule.type: has no rule; expected e.g. rule: {type: median}"),
        (
            "{type: patient, rule: {type: median, min_peers: 0}}",
            ".rule.min_peers: got 0; expected a whole number from 1",
        ),
        ("{type: patient, rule: {type: median, metric: loss}}", ".rule.metric: unknown key; known: type, "),
        ("{type: patient, patience: 0, rule: {}}", ".patience: got 0; expected a whole number from 1"),
        ("{type: patient, min_delta: -1, rule: {}}", ".min_delta: got -1; expected a number from 0"),
        ("{type: median, reduction_factor: 3}", ".reduction_factor: unknown key; known: metric, type, "),
        ("{type: none, min_peers: 3}", ".min_peers: unknown key; known: metric, type"),
        ("{min_fractoin: 0.5}", ".min_fractoin: unknown key; did you mean 'min_fraction'?"),
        ("{metric: accuracy}", ".metric: got 'accuracy'; known: f1_macro, loss"),
        ("{metric: [loss]}", ".metric: got ['loss']; did you mean 'loss'?"),
    ],
)
def test_each_mistake_is_one_problem(parse, keys, problem):
    [found] = parse(keys)[1]
    assert found.startswith(f"a.yaml:2: pruner{problem}")


def test_a_resource_has_no_curve_to_prune_by(parse):
    """Seconds and sizes are known when a trial is over."""
    assert parse("{metric: seconds}", (F1, SECONDS))[1] == ["a.yaml:2: pruner.metric: got 'seconds'; known: f1_macro"]
    assert parse("{}", (F1, SECONDS)) == parse("{}", (F1,))


def test_every_problem_at_once(parse):
    problems = parse("{type: patient, patience: x, metric: y, rule: {type: percentile, percentile: 200, alpha: 1}}")[1]
    assert [problem.split(";")[0].removeprefix("a.yaml:2: pruner.") for problem in problems] == [
        "metric: got 'y'",
        "rule.percentile: got 200",
        "rule.alpha: unknown key",
        "patience: got 'x'",
    ]
