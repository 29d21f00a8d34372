"""Metrics besides the task's: read from YAML, part of what a trial is, judged by where they can be."""

from __future__ import annotations

import pytest

from hpo.config.objective import Objective, gate_of
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ConfigError
from hpo.paths import Home
from hpo.study.revision import changes_of
from tests.hpo.builders import INSPECTION, make_config
from trainers.protocol.catalog import GENERATED
from trainers.protocol.trial_spec import Generation

CHAT = {"task": "chat"}


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text("def cost(rows):\n    return [0.0 for _ in rows]\n")
    return tmp_path


def problems(folder, **changes):
    with pytest.raises(ConfigError) as caught:
        make_config(folder, **changes)
    return [str(problem).replace(f"{folder}/", "").partition(": ")[2] for problem in caught.value.problems]


def test_metrics_and_generation_reach_the_workload(mine):
    config = make_config(
        mine, **CHAT, metrics=["rouge_l", "mine.py:cost"], generation={"examples": 8},
        objective={"metric": "cost", "direction": "minimize"},
    )  # fmt: skip
    workload = config.workload(Home(mine))
    assert config.objective == Objective("cost", "minimize")
    assert (workload.metrics, workload.generation) == (["rouge_l", "mine.py:cost"], Generation(8, 64))
    assert workload.code_dir == str(mine)


@pytest.mark.parametrize("metric", GENERATED)
def test_an_objective_of_generated_text_is_measured_without_being_named_again(tmp_path, metric):
    workload = make_config(tmp_path, **CHAT, objective={"metric": metric}).workload(Home(tmp_path))
    assert (workload.metrics, workload.generation) == ([metric], Generation(64, 64))


def test_nothing_is_generated_unless_a_metric_asks_for_it(mine):
    assert make_config(mine, **CHAT, metrics=["mine.py:cost"]).workload(Home(mine)).generation is None


def test_what_a_metric_of_ones_own_says_is_part_of_what_a_trial_is(mine):
    def identity():
        config = make_config(mine, metrics="mine.py:cost")
        paths = Home(mine).sweep("x").trial(0)
        return TrialSpecs(config, Home(mine), INSPECTION).spec(0, {}, paths).fingerprint()

    before = identity()
    assert identity() == before
    (mine / "mine.py").write_text("def cost(rows):\n    return [1.0 for _ in rows]\n")
    assert identity() != before


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"metrics": ["rouge"], **CHAT}, "metrics: got 'rouge'; expected exact_match, rouge1, rouge2, rouge_l, chrf, "
                                         "bleu, one of yours: FILE.py:FUNCTION"),
        ({"metrics": ["bleu"]}, "metrics: got 'bleu'; text-classification generates no text; "
                                "expected one of yours: FILE.py:FUNCTION"),
        ({"metrics": ["accuracy"]}, "metrics: got 'accuracy'; is measured anyway: leave it out"),
        ({"metrics": ["mine.py:cost", "mine.py:cost"]}, "metrics: got 'mine.py:cost'; is named twice"),
        ({"metrics": ["mine.py:loss"]},
         "metrics: got 'mine.py:loss'; loss is the name of a metric already: give the function another"),
        ({"metrics": ["mine.py:seconds"]},
         "metrics: got 'mine.py:seconds'; seconds is the name of a metric already: give the function another"),
        ({"metrics": [3]}, "metrics: got 3; expected one of yours: FILE.py:FUNCTION"),
        ({"metrics": ["gone.py:cost"]}, "metrics: no file 'gone.py'; paths start at "),
        ({"metrics": ["../mine.py:cost"]}, "metrics: got '../mine.py:cost'; expected a file below "),
        ({"metrics": ["mine.py:cost"], "objective": {"metric": "cost"}},
         "objective.direction: is missing; expected maximize or minimize: which is better of cost?"),
        ({"metrics": ["mine.py:cost"], "objective": {"metric": "cost", "direction": "up"}},
         "objective.direction: got 'up'; known: maximize, minimize"),
        ({"objective": {"metric": "accuracy", "direction": "minimize"}},
         "objective.direction: got 'minimize', but accuracy is maximized; leave it out: "),
        ({"objective": {"metric": "bleu"}}, "objective.metric: text-classification has no metric 'bleu'; expected"),
        ({"generation": {"examples": 0}}, "generation.examples: got 0; expected a whole number from 1 to 1,000,000"),
        ({"generation": {"max_new_tokens": 1.5}}, "generation.max_new_tokens: got 1.5; expected a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(mine, changes, problem):
    (told,) = problems(mine, **changes)
    assert told.startswith(problem)


def test_onnx_is_judged_by_a_metric_that_is_measured_there():
    mcc = Objective("mcc", "maximize")
    assert gate_of("text-classification", mcc) == mcc
    assert gate_of("text-classification", Objective("cost", "minimize")) == Objective("f1_macro", "maximize")
    assert gate_of("chat", Objective("bleu", "maximize")) == Objective("perplexity", "minimize")


def test_other_metrics_make_results_that_do_not_compare(mine):
    before = make_config(mine).resolved()
    with pytest.raises(ConfigError, match="metrics: was"):
        changes_of(make_config(mine, metrics=["mine.py:cost"]), before)
