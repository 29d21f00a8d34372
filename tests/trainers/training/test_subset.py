"""Evaluations on some of the validation rows: which rows, and what becomes of a trial's value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.data.tokens import Encoded, Tokens, write_tokens
from trainers.model.load import load_adapter, load_base
from trainers.protocol.events import PAUSED, Evaluation
from trainers.protocol.files import TrialPaths
from trainers.training.evaluation import score_model
from trainers.training.subset import subset_order


class Split:
    """As much of `Tokens` as an order needs."""

    kind = "row"

    def __init__(self, labels):
        self._labels = np.array(labels)

    def __len__(self):
        return len(self._labels)

    def targets(self, row):
        return self._labels[row : row + 1]


@given(st.lists(st.sampled_from([0, 0, 0, 0, 1, 1, 2]), min_size=1, max_size=200))
def test_every_beginning_holds_each_class_as_often_as_the_split_but_for_a_row(labels):
    order = subset_order(Split(labels))
    assert sorted(order) == list(range(len(labels)))
    drawn = np.array(labels)[order]
    for label in set(labels):
        expected = np.arange(1, len(labels) + 1) * labels.count(label) / len(labels)
        assert np.abs(np.cumsum(drawn == label) - expected).max() <= 1.5


def test_the_order_follows_from_the_rows_alone():
    assert subset_order(Split([0, 1] * 30)).tolist() == subset_order(Split([0, 1] * 30)).tolist()


def test_without_classes_short_and_long_rows_are_mixed(tmp_path):
    rows = [Encoded([1] * length, [1] * length) for length in range(1, 101)]
    write_tokens(tmp_path / "t", {"validation": rows}, {"validation": [{}] * 100})
    tokens = Tokens(tmp_path / "t", "validation", "token")
    order = subset_order(tokens)
    assert 40 <= tokens.lengths[order[:20]].mean() <= 60


def test_a_subset_of_tokens_is_those_rows_in_that_order(tmp_path):
    rows = [Encoded([n] * (n + 1), [n], [0] * (n + 1), n) for n in range(5)]
    write_tokens(tmp_path / "t", {"validation": rows}, {"validation": [{}] * 5})
    some = Tokens(tmp_path / "t", "validation", "row").subset(np.array([3, 1]))
    assert (len(some), some.lengths.tolist(), some.target_bytes.tolist()) == (2, [4, 2], [3, 1])
    assert [some.ids(row).tolist() for row in range(2)] == [[3] * 4, [1] * 2]
    assert [some.targets(row).tolist() for row in range(2)] == [[3], [1]]
    assert [some.types(row).tolist() for row in range(2)] == [[0] * 4, [0] * 2]


@pytest.mark.parametrize("kind", ["encoder", "chat"])
def test_a_trial_is_valued_on_all_rows_as_it_was_at_its_best_evaluation(make_spec, run_trial, inspection, kind):
    spec = make_spec(kind, evaluations=4, evaluation_rows=16, learning_rate=0.05)
    result, _ = run_trial(spec)
    paths, found = TrialPaths(Path(spec.dir)), inspection(kind)
    assert all(len(np.load(paths.rows(e.index))) == 16 for e in result.evaluations)
    base = load_base(spec.workload, found.labels)
    base.model = load_adapter(base, spec, paths.adapter)
    metrics, rows = score_model(base, Path(found.tokens_dir), "cpu")
    assert len(rows) == 40
    assert result.metrics == pytest.approx(metrics, rel=1e-5)
    assert result.value == result.metrics[spec.metric]
    np.testing.assert_allclose(np.load(paths.all_rows), rows, rtol=1e-4, atol=1e-5)


def test_the_rows_of_an_evaluation_are_the_first_of_those_of_a_larger_one(make_spec, run_trial, inspection):
    order = subset_order(Tokens(Path(inspection("encoder").tokens_dir), "validation", "row"))
    seen = {}
    for count in (12, 24, None):
        spec = make_spec("encoder", evaluation_rows=count)
        run_trial(spec)
        seen[count] = np.load(TrialPaths(Path(spec.dir)).rows(0))
    np.testing.assert_allclose(seen[12], seen[24][:12], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen[24], seen[None][order[:24]], rtol=1e-4, atol=1e-5)


def test_as_many_rows_as_there_are_is_what_all_rows_are(make_spec, run_trial):
    all_rows, _ = run_trial(make_spec("encoder"))
    spec = make_spec("encoder", evaluation_rows=40)
    as_many, _ = run_trial(spec)
    assert as_many.metrics == all_rows.metrics
    assert not TrialPaths(Path(spec.dir)).all_rows.exists()


def test_a_pruned_trial_is_not_evaluated_on_all_rows(make_spec, run_trial):
    spec = make_spec("encoder", evaluation_rows=16)
    result, _ = run_trial(spec, verdicts=("stop",))
    assert (result.state, result.value) == ("pruned", result.evaluations[0].metrics[spec.metric])
    assert not TrialPaths(Path(spec.dir)).all_rows.exists()


def test_a_trial_whose_minutes_are_over_is_complete_and_valued_on_all_rows(make_spec, run_trial):
    spec = make_spec("encoder", evaluation_rows=16)
    result, events = run_trial(spec, verdicts=("finish",))
    assert (result.state, result.stopped_by) == ("complete", "trial_minutes")
    assert sum(isinstance(event, Evaluation) for event in events) == 1
    assert TrialPaths(Path(spec.dir)).all_rows.exists()


def test_a_trial_that_goes_on_is_valued_as_if_undisturbed(make_spec, run_trial):
    """The best parameters are in the checkpoint: the process that goes on has never had them."""
    settings = {
        "evaluations": 4,
        "evaluation_rows": 16,
        "learning_rate": 1e-5,
    }  # F1 stands still, so the first one is the best
    undisturbed, _ = run_trial(make_spec("encoder", **settings))
    assert undisturbed.best_index == 0
    paused, _ = run_trial(make_spec("encoder", **settings), verdicts=("go", "go", "go", "pause"))
    assert paused == PAUSED
    resumed, _ = run_trial(make_spec("encoder", **settings), fresh=False)
    assert resumed.metrics == undisturbed.metrics
