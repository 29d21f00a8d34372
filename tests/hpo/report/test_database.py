"""`hpo query`: the tables hold what `hpo show --json` prints, and a question can do nothing but read them."""

from __future__ import annotations

import json

import pytest

from hpo.commands.query import answer_text
from hpo.errors import UsageError
from hpo.report import database
from hpo.report.database import Answer, Database
from hpo.results.summary import summarize
from hpo.results.timeline import Stint
from tests.hpo.builders import evaluation, trial_record, trial_result
from tests.hpo.results.test_summary import SPACE, study_view

TIMELINE = [Stint(1, None, 0, 1, 0.0, 5.0, 9.0, "crash"), Stint(1, None, 0, 1, 0.0, 10.0, 30.0, "complete")]


@pytest.fixture(scope="module")
def tables():
    best = trial_result(value=0.9, evaluations=[evaluation(0, 0.5, 0.8), evaluation(1, 1.0, 0.9)])
    view = study_view(
        trial_record(0, value=0.5, params={"learning_rate": 1e-3, "lora_r": 4}),
        trial_record(1, params={"learning_rate": 2e-3, "lora_r": 8}, result=best),
        trial_record(2, "running", None, params={"learning_rate": 3e-3}),
        space=SPACE,
    )
    return Database([(view, summarize(view, "running", timeline=TIMELINE))])


def test_sweeps_trials_and_evaluations_are_tables(tables):
    assert tables.ask("select sweep, metric, trials, champion, value, baseline_value from sweeps").rows == [
        ["s", "f1_macro", 3, 1, 0.9, 0.5]
    ]
    assert tables.ask("select trial, lora_r, began, ended from trials where is_champion").rows == [[1, 8, 5.0, 30.0]]
    assert tables.ask("select trial, metrics ->> '$.f1_macro' as f1 from trials order by trial") == Answer(
        ["trial", "f1"], [[0, 0.5], [1, 0.9], [2, None]]
    )
    assert tables.ask("select share, examples, value from evaluations where trial = 1").rows == [
        [0.5, 0, 0.8], [1.0, 10, 0.9],
    ]  # fmt: skip
    assert tables.ask("select share, value from evaluations where trial = 2").rows == [[0.5, 0.1]]


@pytest.mark.parametrize(
    "question",
    [
        "insert into trials (trial) values (9)", "delete from sweeps", "update trials set value = 1",
        "drop table trials", "create table t (a)", "create temp table t (a)",
        "attach '/tmp/x.db' as x", "pragma query_only = off",
        "vacuum into '/tmp/x.db'", "begin", "select load_extension('x')", "select 1; delete from trials", "",
        "select * from elsewhere", "select nothing from trials", "select",
    ],
)  # fmt: skip
def test_nothing_else_is_answered(tables, question):
    with pytest.raises(UsageError, match=r"^query: "):
        tables.ask(question)
    assert tables.ask("select count(*) from trials").rows == [[3]]


def test_a_question_without_an_end_has_one(tables, monkeypatch):
    monkeypatch.setattr(database, "MOST_SECONDS", 0.05)
    with pytest.raises(UsageError, match="longer than"):
        tables.ask("with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n")
    with pytest.raises(UsageError, match="add a LIMIT"):
        tables.ask("select zeroblob(40000000) from trials")
    with pytest.raises(UsageError, match="too big"):
        tables.ask("select zeroblob(2000000000)")


def test_a_wrong_name_is_answered_with_the_right_ones(tables):
    with pytest.raises(
        UsageError, match=r"no such column: metricks; sweeps has sweep, state, .*; trials has sweep, trial"
    ):
        tables.ask("select metricks from sweeps")


def test_answers_have_formats():
    answer = Answer(["a", "b"], [[1, "x|y"], [None, 0.5]])
    assert json.loads(answer_text(answer, "json")) == [{"a": 1, "b": "x|y"}, {"a": None, "b": 0.5}]
    assert answer_text(answer, "csv") == "a,b\n1,x|y\n,0.5"
    assert answer_text(answer, "md").splitlines()[2] == "| 1 | x\\|y |"
    with pytest.raises(UsageError, match="give one another name with AS"):
        answer_text(Answer(["a", "a"], [[1, 2]]), "json")


def test_a_trial_under_way_has_the_metric_that_the_pruner_looks_at():
    view = study_view(trial_record(0, "running", curve=[(0.5, 9.0)]), pruner={"type": "median", "metric": "loss"})
    asked = Database([(view, summarize(view, "running"))]).ask("select value, metrics ->> '$.loss' from evaluations")
    assert asked.rows == [[None, 9.0]]


def test_a_question_that_is_no_text_is_refused(tables):
    """A terminal that does not write UTF-8 gives half characters."""
    with pytest.raises(UsageError, match=r"^query: "):
        tables.ask("select 'na\udcefve'")
