"""Metrics against their reference libraries."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
)

from trainers.metrics.classification import classification_metrics, multi_label_metrics
from trainers.metrics.entities import entity_counts, entity_metrics
from trainers.metrics.perplexity import perplexity_metrics
from trainers.metrics.regression import regression_metrics
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.catalog import METRICS, TASKS

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 9)), min_size=1, max_size=60)


@given(pairs)
@settings(deadline=None)
def test_classification_equals_scikit_learn(rows):
    table = np.array(rows, dtype=float)
    true, predicted = table[:, 0].astype(int), table[:, 1].astype(int)
    probabilities = np.random.default_rng(len(rows)).dirichlet(np.ones(4), len(rows)).round(2)
    got = classification_metrics(np.concatenate([table, probabilities], axis=1), ["a", "b", "c", "d"])
    assert got["precision_macro"] == pytest.approx(precision_score(true, predicted, average="macro", zero_division=0))
    assert got["recall_macro"] == pytest.approx(recall_score(true, predicted, average="macro", zero_division=0))
    assert got["mcc"] == pytest.approx(matthews_corrcoef(true, predicted) if len({*true, *predicted}) > 1 else 0.0)
    known = [i for i in range(4) if 0 < (true == i).sum() < len(true)]
    areas = [roc_auc_score(true == i, probabilities[:, i]) for i in known]
    assert got["roc_auc"] == pytest.approx(np.mean(areas) if areas else 0.0)
    for average in ("macro", "micro", "weighted"):
        assert got[f"f1_{average}"] == pytest.approx(f1_score(true, predicted, average=average, zero_division=0))
    assert got["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert got["loss"] == pytest.approx(table[:, 2].mean())


@given(st.lists(st.tuples(st.floats(0.1, 50), st.integers(1, 40)), min_size=2, max_size=40))
@settings(deadline=None)
def test_perplexity_weighs_tokens(rows):
    nll, tokens = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    got = perplexity_metrics(np.stack([nll, tokens, tokens / 2, 2 * tokens], axis=1))
    assert got["loss"] == pytest.approx(nll.sum() / tokens.sum())
    assert got["perplexity"] == pytest.approx(math.exp(nll.sum() / tokens.sum()))
    assert got["token_accuracy"] == pytest.approx(0.5)
    assert got["bits_per_byte"] == pytest.approx(nll.sum() / tokens.sum() / 2 / math.log(2))


@given(st.lists(st.tuples(*[st.booleans()] * 3, *[st.floats(0, 1)] * 3), min_size=2, max_size=40))
def test_multi_label_equals_scikit_learn(rows):
    table = np.array(rows, dtype=float)
    true, predicted = table[:, :3] > 0, table[:, 3:] > 0.5
    got = multi_label_metrics(np.concatenate([np.ones((len(rows), 1)), table], axis=1), ["a", "b", "c"])
    for average in ("micro", "weighted"):
        assert got[f"f1_{average}"] == pytest.approx(f1_score(true, predicted, average=average, zero_division=0))
    present = (true | predicted).any(axis=0)
    each = f1_score(true, predicted, average=None, zero_division=0)[present]
    assert got["f1_macro"] == pytest.approx(each.mean() if len(each) else 0.0)
    assert got["accuracy"] == pytest.approx(accuracy_score(true, predicted))


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=40))
def test_regression_equals_scipy_and_scikit_learn(rows):
    table = np.array(rows, dtype=float)
    true, predicted = table.T
    got = regression_metrics(table)
    assert got["loss"] == pytest.approx(np.mean((true - predicted) ** 2))
    if len(set(true)) > 1:
        assert got["r2"] == pytest.approx(r2_score(true, predicted))
        if len(set(predicted)) > 1:
            assert got["pearson"] == pytest.approx(stats.pearsonr(true, predicted).statistic)
            assert got["spearman"] == pytest.approx(stats.spearmanr(true, predicted).statistic)


TAGS = ["B-X", "B-Y", "I-X", "I-Y", "O"]


@given(st.lists(st.lists(st.tuples(*[st.sampled_from(range(5))] * 2), min_size=1, max_size=9), min_size=1, max_size=9))
def test_entities_equal_seqeval(sentences):
    from seqeval.metrics import f1_score as seqeval_f1
    from seqeval.metrics import precision_score as seqeval_precision

    rows = np.array([row for row, words in enumerate(sentences) for _ in words])
    true, predicted = np.array([word for words in sentences for word in words]).T
    counts = entity_counts(rows, true, predicted, np.ones(len(rows)), TAGS, len(sentences))
    got = entity_metrics(counts)
    wanted, found = ([[TAGS[word[i]] for word in words] for words in sentences] for i in (0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval's, where there is nothing to divide by
        assert got["entity_f1"] == pytest.approx(seqeval_f1(wanted, found))
        assert got["entity_precision"] == pytest.approx(seqeval_precision(wanted, found))
    assert got["token_accuracy"] == pytest.approx((true == predicted).mean())


def test_the_standard_error_of_perplexity_covers_the_truth():
    """Of 300 samples of conversations, about 95 % of intervals of two standard errors hold the population's value."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 60, size=20000).astype(float)
    rows = np.stack([tokens * rng.gamma(8, 0.4, size=20000), tokens, tokens, tokens], axis=1)
    truth = rows[:, 0].sum() / tokens.sum()
    covered = 0
    for _ in range(300):
        got = perplexity_metrics(rows[rng.integers(0, 20000, size=80)])
        covered += abs(got["loss"] - truth) < 2 * got["loss_stderr"]
    assert 0.91 < covered / 300 < 0.985


def test_nothing_measured_is_not_a_number():
    assert math.isnan(perplexity_metrics(np.zeros((0, 4)))["perplexity"])


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_that_the_catalog_promises_follows_from_the_rows(task):
    results = ROW_RESULTS[task]
    rows = np.ones((4, results.width(["a", "b"])))
    assert set(TASKS[task].metrics) <= set(results.metrics(rows, ["a", "b"])) & set(METRICS)
    assert results.losses(rows).shape == (4,)
