"""Advice where it is due, and none where it is not."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.config.objective import Objective
from hpo.results.diagnosis import Advice, Knobs, advice, collected, knobs
from tests.hpo.builders import evaluation, make_config, trial_result

F1 = Objective("f1_macro", "maximize")


def result(losses, values=None, **changes):
    values = values or [0.5] * len(losses)
    made = [
        dataclasses.replace(evaluation(i, (i + 1) / len(losses), value), metrics={"loss": loss, "f1_macro": value})
        for i, (loss, value) in enumerate(zip(losses, values, strict=True))
    ]
    return trial_result(evaluations=made, **changes)


@pytest.mark.parametrize(
    ("losses", "values", "kinds"),
    [
        ([1.0, 0.6, 0.5], [0.5, 0.7, 0.7], []),
        ([1.0, 0.6, 0.7], None, ["overfitting"]),
        ([1.0, 0.6, 0.62], None, []),
        ([0.69, 0.692, 0.691], None, ["no progress"]),
        ([1.0, 0.7, 0.5], [0.5, 0.6, 0.7], ["unfinished"]),
        ([1.0, 0.5], [0.5, 0.9], []),
        ([], None, []),
    ],
)
def test_a_curve_says_what_to_try(losses, values, kinds):
    assert [one.kind for one in advice(result(losses, values), F1)] == kinds


def test_less_is_better_counts_as_improvement_too():
    falling = result([3.0, 2.0, 1.0], [3.0, 2.0, 1.0])
    assert [one.kind for one in advice(falling, Objective("loss", "minimize"))] == ["unfinished"]
    assert advice(falling, Objective("f1_macro", "maximize")) == []


def test_one_that_stopped_itself_was_not_unfinished():
    stopped = result([1.0, 0.7, 0.5], [0.5, 0.6, 0.7], stopped_by="early_stopping")
    assert advice(stopped, F1) == []


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ({"f1/a": 0.7, "f1/b": 0.0, "f1/c": 0.0}, ["no label but a is predicted right"]),
        ({"f1/a": 0.0, "f1/b": 0.0}, ["no label is predicted right"]),
        ({"f1/a": 0.7, "f1/b": 0.1}, []),
        ({}, []),
    ],
)
def test_rows_all_predicted_as_one_label(scores, found):
    given = dataclasses.replace(trial_result(), metrics={"f1_macro": 0.3, **scores})
    assert [one.found for one in advice(given, F1)] == found


TURNED, STILL = result([1.0, 0.6, 0.9]), result([0.69, 0.692, 0.691])
RISING = result([1.0, 0.7, 0.5], [0.5, 0.6, 0.7])
STEPS = {"training": {"max_steps": 90, "warmup_steps": 3, "loss": "default"}, "task": "text-classification",
         "method": "full"}  # fmt: skip


def test_advice_names_the_settings_that_the_file_uses():
    """`max_steps: 90` with the method full: nothing is said of max_epochs, nor of a rank that nobody reads."""
    has = knobs(STEPS, {}, None)
    assert has == Knobs("max_steps", "warmup_steps", has_adapter_rank=False, has_class_weights=True)
    said = [one.to_try for given in (TURNED, STILL, RISING) for one in advice(given, F1, has)]
    assert said == ["fewer max_steps, more weight_decay", "a higher learning_rate", "more max_steps"]
    assert knobs(STEPS, {}, "num_train_epochs").budget == "num_train_epochs"
    assert knobs(STEPS, {"method": "dora"}, None).has_adapter_rank


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "max_epochs"),
        ({"training": {"num_train_epochs": 2}}, "num_train_epochs"),
        ({"training": {"max_steps": 5}}, "max_steps"),
        ({"training": {"max_examples": 64}}, "max_examples"),
        ({"search_space": {"max_epochs": {"type": "choice", "values": [1, 2]}}}, "max_epochs"),
    ],
)
def test_the_budget_has_the_name_that_the_file_gives_it(tmp_path, changes, name):
    assert make_config(tmp_path, **changes).budget_setting() == name


def test_class_weights_are_not_tried_where_they_are_used_already():
    given = dataclasses.replace(trial_result(), metrics={"f1_macro": 0.3, "f1/a": 0.7, "f1/b": 0.0})
    weighted = {**STEPS, "training": {**STEPS["training"], "loss": "class-weighted"}}
    [one] = advice(given, F1, knobs(weighted, {}, None))
    assert one.to_try == "a higher learning_rate, or more max_steps"


def test_a_diverged_trial_is_told_to_slow_down_and_a_pruned_one_nothing():
    diverged = trial_result("failed", None, cause="diverged", message="loss rose from 1 to 5 at step 3")
    [one] = advice(diverged, F1)
    assert (one.kind, one.found) == ("diverged", "loss rose from 1 to 5 at step 3")
    assert "lower learning_rate" in one.to_try
    assert advice(result([1.0, 0.6, 0.9], state="pruned"), F1) == []


def test_trials_with_the_same_trouble_share_a_line():
    given = Advice("overfitting", "it rose", "less")
    trials = [(n, [given] if n != 1 else []) for n in range(3)]
    assert collected(trials) == ["overfitting in trials 0, 2: in trial 0 it rose; try less"]
    assert collected(trials[:2]) == ["overfitting in trial 0: it rose; try less"]
