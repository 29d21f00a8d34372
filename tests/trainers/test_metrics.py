"""Metrics against their reference libraries, streamed in any batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from trainers.metrics.classification import Classification
from trainers.metrics.perplexity import Perplexity

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs, st.integers(1, 60))
@settings(deadline=None)
def test_classification_equals_scikit_learn_in_any_batches(rows, batch):
    true, predicted = (np.array(column) for column in zip(*rows, strict=True))
    metric = Classification(["a", "b", "c", "d"])
    for start in range(0, len(true), batch):
        metric.update(predicted[start : start + batch], true[start : start + batch])
    got = metric.results()
    for average in ("macro", "micro", "weighted"):
        assert got[f"f1_{average}"] == pytest.approx(f1_score(true, predicted, average=average, zero_division=0))
    assert got["accuracy"] == pytest.approx(accuracy_score(true, predicted))


@given(st.lists(st.tuples(st.floats(0.1, 50), st.integers(1, 40)), min_size=2, max_size=40), st.integers(1, 40))
@settings(deadline=None)
def test_perplexity_weighs_tokens_and_does_not_depend_on_batches(rows, batch):
    nll, tokens = (np.array(column) for column in zip(*rows, strict=True))
    metric = Perplexity()
    for start in range(0, len(nll), batch):
        metric.update(nll[start : start + batch], tokens[start : start + batch])
    got = metric.results()
    assert got["loss"] == pytest.approx(nll.sum() / tokens.sum())
    assert got["perplexity"] == pytest.approx(math.exp(nll.sum() / tokens.sum()))


def test_the_standard_error_of_perplexity_covers_the_truth():
    """Of 300 samples of conversations, about 95 % of intervals of two standard errors hold the population's value."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 60, size=20000)
    nll = tokens * rng.gamma(8, 0.4, size=20000)
    truth = nll.sum() / tokens.sum()
    covered = 0
    for _ in range(300):
        chosen = rng.integers(0, 20000, size=80)
        metric = Perplexity()
        metric.update(nll[chosen], tokens[chosen])
        got = metric.results()
        covered += abs(got["loss"] - truth) < 2 * got["loss_stderr"]
    assert 0.91 < covered / 300 < 0.985


def test_nothing_measured_is_not_a_number():
    assert math.isnan(Perplexity().results()["perplexity"])
