"""What a search has saved is counted from its study; what nobody can know is not said."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.config.objective import Objective
from hpo.results.leaderboard import saved_in_words
from hpo.results.records import StudySnapshot
from hpo.results.savings import EvaluationSavings, PruningSavings, Savings, savings
from hpo.study.stored_state import read_state
from tests.hpo.builders import INSPECTION, Sweep, trial_record
from trainers.protocol.codec import to_json
from trainers.protocol.events import Evaluation

DATA = dataclasses.replace(INSPECTION, rows={"train": 1000, "validation": 885, "test": 100})


def fifths(count):
    return [((i + 1) / 5, 0.5) for i in range(count)]


def saved(*records, space=None, evaluation_rows=None):
    objective = to_json(Objective("f1_macro", "maximize"))
    config = {"task": "text-classification", "constraints": {}, "search_space": space or {}, "objective": [objective]}
    state = read_state({"config": config, "data": to_json(DATA), "evaluation_rows": evaluation_rows})
    return savings(StudySnapshot("s", state, list(records)))


def test_pruning_saves_what_its_trials_were_not_trained_on():
    records = [trial_record(0, curve=fifths(5)), trial_record(1, "pruned", curve=fifths(1)),
               trial_record(2, "pruned", curve=fifths(2)), trial_record(3, curve=fifths(5))]  # fmt: skip
    found = saved(*records)
    assert found.pruning == PruningSavings(2, 4, pytest.approx((0.8 + 0.6) / 4))
    assert saved_in_words(found) == ["pruning: stopped 2 of 4 trials; saved 35% of the planned training examples"]


def test_only_trials_that_were_trained_to_a_result_count():
    records = [trial_record(0, curve=fifths(5)), trial_record(1, "pruned", curve=fifths(1)),
               trial_record(2, "failed", None, curve=fifths(1)), trial_record(3, "running", curve=fifths(1)),
               trial_record(4, "pruned", curve=fifths(1), reused_from="1")]  # fmt: skip
    assert saved(*records).pruning == PruningSavings(1, 2, pytest.approx(0.4))


def test_what_the_budget_ended_is_not_the_rule_s():
    pruned = trial_record(1, "pruned", curve=fifths(1))
    ended = dataclasses.replace(pruned, number=2, result=dataclasses.replace(pruned.result, stopped_by="sweep_budget"))
    assert saved(trial_record(0, curve=fifths(5)), ended).pruning is None
    assert saved(trial_record(0, curve=fifths(5)), pruned, ended).pruning == PruningSavings(1, 2, pytest.approx(0.4))


def test_where_budgets_differ_only_the_trials_are_counted():
    budget = {"max_epochs": {"type": "int", "low": 1, "high": 4}}
    found = saved(trial_record(0, curve=fifths(5)), trial_record(1, "pruned", curve=fifths(1)), space=budget)
    assert found.pruning == PruningSavings(1, 2, None)
    assert saved_in_words(found) == ["pruning: stopped 1 of 2 trials"]


def test_evaluations_on_some_rows_save_the_others_but_for_the_last_one_of_a_complete_trial():
    records = [trial_record(0, curve=fifths(5)), trial_record(1, "pruned", curve=fifths(1))]
    found = saved(*records, evaluation_rows=320)
    assert found.evaluation == EvaluationSavings(320, 885, pytest.approx(1 - (6 * 320 + 885) / (6 * 885)))
    line = saved_in_words(found)[-1]
    assert line == "evaluations: used 320 of 885 rows inside trials; saved 47% of evaluated rows"
    assert len(line) <= 80


@pytest.mark.parametrize("rows", [None, 800])
def test_what_saves_nothing_or_was_not_written_down_is_not_said(rows):
    assert saved(trial_record(0, curve=fifths(5)), evaluation_rows=rows) == Savings()
    assert saved(evaluation_rows=320) == Savings()
    assert saved_in_words(Savings()) == []


def test_a_search_is_counted_as_its_trainer_saw_it(tmp_path):
    given = Sweep(
        tmp_path, search_strategy={"type": "grid"}, pruner={"type": "successive_halving"},
        search_space={"learning_rate": {"type": "choice", "values": [1e-3, 1e-1, 9e-2, 8e-2]}},
        training={"max_examples": 100, "learning_rate": 1e-3, "evaluation_rows": 10},
    )  # fmt: skip
    given.search(jobs=4, during=lambda study: study.update_state(
        data=INSPECTION, evaluation_rows=given.config.evaluation_rows(INSPECTION)
    ))  # fmt: skip
    seen = [(trial, event) for trial, event in given.executor.events if isinstance(event, Evaluation)]
    trained = sum(max(e.examples for number, e in seen if number == trial) for trial in range(4))
    found = given.summary()
    assert found.savings.pruning == PruningSavings(3, 4, pytest.approx(1 - trained / 400))
    assert found.savings.evaluation == EvaluationSavings(
        10, 100, pytest.approx(1 - (len(seen) * 10 + 100) / (len(seen) * 100))
    )
    assert found.to_json()["savings"]["pruning"]["stopped"] == 3
