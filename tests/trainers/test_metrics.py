"""Metrics against their reference libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from trainers.catalog import METRICS, TASKS
from trainers.metrics.classification import classification_metrics
from trainers.metrics.perplexity import perplexity_metrics
from trainers.metrics.table import ROW_RESULTS

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 9)), min_size=1, max_size=60)


@given(pairs)
@settings(deadline=None)
def test_classification_equals_scikit_learn(rows):
    table = np.array(rows, dtype=float)
    true, predicted = table[:, 0].astype(int), table[:, 1].astype(int)
    got = classification_metrics(table, ["a", "b", "c", "d"])
    for average in ("macro", "micro", "weighted"):
        assert got[f"f1_{average}"] == pytest.approx(f1_score(true, predicted, average=average, zero_division=0))
    assert got["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert got["loss"] == pytest.approx(table[:, 2].mean())


@given(st.lists(st.tuples(st.floats(0.1, 50), st.integers(1, 40)), min_size=2, max_size=40))
@settings(deadline=None)
def test_perplexity_weighs_tokens(rows):
    nll, tokens = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    got = perplexity_metrics(np.stack([nll, tokens, tokens / 2], axis=1))
    assert got["loss"] == pytest.approx(nll.sum() / tokens.sum())
    assert got["perplexity"] == pytest.approx(math.exp(nll.sum() / tokens.sum()))
    assert got["token_accuracy"] == pytest.approx(0.5)


def test_the_standard_error_of_perplexity_covers_the_truth():
    """Of 300 samples of conversations, about 95 % of intervals of two standard errors hold the population's value."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 60, size=20000).astype(float)
    rows = np.stack([tokens * rng.gamma(8, 0.4, size=20000), tokens, tokens], axis=1)
    truth = rows[:, 0].sum() / tokens.sum()
    covered = 0
    for _ in range(300):
        got = perplexity_metrics(rows[rng.integers(0, 20000, size=80)])
        covered += abs(got["loss"] - truth) < 2 * got["loss_stderr"]
    assert 0.91 < covered / 300 < 0.985


def test_nothing_measured_is_not_a_number():
    assert math.isnan(perplexity_metrics(np.zeros((0, 3)))["perplexity"])


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_that_the_catalog_promises_follows_from_the_rows(task):
    results = ROW_RESULTS[task]
    rows = np.ones((4, len(results.columns)))
    assert set(TASKS[task].metrics) <= set(results.metrics(rows, ["a", "b"])) & set(METRICS)
    assert results.losses(rows).shape == (4,)
