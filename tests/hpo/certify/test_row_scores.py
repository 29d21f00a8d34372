"""Per-row scores: what is bet on means what the metric means, for every task and metric."""

import numpy as np
import pytest

from hpo.certify.row_scores import MOST_LOST, one_row_each, paired
from hpo.config.objective import Objective
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.catalog import METRICS, TASKS

ROWS = 400
LABELS = ("a", "b", "c")
ALL = [(task, metric) for task in TASKS for metric in TASKS[task].metrics]
HALF = np.arange(0, ROWS, 2)


def differences(task, metric, old, new, labels=(LABELS, LABELS), choosing=HALF, max_drop=0.0):
    """Of all rows in their order, of which some choose, and what they are about."""
    others = np.setdiff1d(np.arange(ROWS), choosing)
    found = paired(task, metric, (old[choosing], new[choosing]), (old[others], new[others]), labels, max_drop)
    every = np.empty(ROWS)
    every[choosing], every[others] = found.choosing, found.certifying
    return every, found.about


def classified(quality, rng, labels=LABELS):
    """Per-row results of a classifier; labels have the shares 0.6, 0.3 and 0.1."""
    truth = np.repeat(np.arange(3), [240, 120, 40])
    right = rng.permutation(ROWS) < quality * ROWS
    predicted = np.where(right, truth, (truth + 1) % 3)
    places = np.array([labels.index(name) for name in LABELS])
    probability = np.full((ROWS, 3), 0.1)
    probability[np.arange(ROWS), places[predicted]] = 0.8
    loss = np.where(right, 0.2, 2.3)
    return np.column_stack([places[truth], places[predicted], loss, probability])


def answers(task, quality, seed):
    """Per-row results of a model: the better, the nearer quality is to 1."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1 - quality, ROWS)
    if task == "text-classification":
        return classified(quality, rng)
    if task == "multi-label-classification":
        truth = rng.permuted(np.tile([1.0, 1.0, 0.0], (ROWS, 1)), axis=1)
        is_right = rng.random((ROWS, 3)) < quality
        probability = np.where(is_right == (truth > 0.5), 0.9, 0.1)
        return np.column_stack([-np.log(np.where(is_right, 0.9, 0.1)).sum(axis=1), truth, probability])
    if task in ("regression", "text-similarity"):
        value = np.random.default_rng(0).normal(0, 1, ROWS)
        return np.column_stack([value, value + noise])
    if task == "token-classification":
        hits = rng.binomial(10, quality, ROWS).astype(float)
        right, predicted, true = np.floor(hits / 2), np.full(ROWS, 5.0), np.full(ROWS, 5.0)
        tags = np.column_stack([np.outer(hits, [0.5, 0.3, 0.2]), np.tile([5.0, 3.0, 2.0] * 2, (ROWS, 1))])
        return np.column_stack([20 - 2 * hits, np.full(ROWS, 10.0), hits, right, predicted, true, tags])
    hits = rng.binomial(20, quality, ROWS).astype(float)
    return np.column_stack([3 * (20 - hits) + 5, np.full(ROWS, 20.0), hits, np.full(ROWS, 80.0)])


@pytest.mark.parametrize(("task", "metric"), ALL)
def test_who_is_better_by_the_metric_is_better_row_by_row(task, metric):
    old, new = answers(task, 0.7, 1), answers(task, 0.9, 2)
    objective = Objective(metric, METRICS[metric].direction)
    values = [ROW_RESULTS[task].metrics(rows, LABELS)[metric] for rows in (new, old)]
    assert objective.better(*values)
    found, _ = differences(task, metric, old, new)
    assert np.abs(found).max() <= 1
    assert found.mean() > 2 * found.std() / np.sqrt(ROWS)
    assert not differences(task, metric, new, new)[0].any()
    assert differences(task, metric, new, old)[0].mean() < 0


def test_accuracy_is_a_mean_over_rows_whatever_the_numbers_of_the_labels():
    old, new = answers("text-classification", 0.7, 1), classified(0.9, np.random.default_rng(2), ("c", "a", "b"))
    found, about = differences("text-classification", "accuracy", old, new, (LABELS, ("c", "a", "b")))
    assert about == "the share of right rows"
    assert found.mean() == pytest.approx(0.2)


def test_where_the_metric_counts_each_label_alike_so_do_the_bets():
    old, new = answers("text-classification", 0.9, 1), answers("text-classification", 0.9, 1)
    rare, frequent = new[:, 0] == 2, np.flatnonzero(new[:, 0] == 0)[:20]
    old[rare, 1], new[frequent, 1] = 2, 1  # better on the rare label, worse on some of the frequent one
    found, about = differences("text-classification", "f1_macro", old, new, choosing=np.arange(ROWS))
    recalls = [[(rows[rows[:, 0] == n, 1] == n).mean() for n in range(3)] for rows in (old, new)]
    assert found.mean() == pytest.approx((np.mean(recalls[1]) - np.mean(recalls[0])) * 3 * 40 / ROWS)
    assert about == "the share of right rows, each label counted alike"


def test_a_row_that_gains_very_much_counts_as_one_unit_and_one_that_loses_much_as_up_to_four():
    old, new = (np.column_stack([np.full(ROWS, 50.0), *np.ones((3, ROWS))]) for _ in range(2))
    new[:, 0] -= np.linspace(-1, 1, ROWS)
    new[[1, 3, 5], 0] = [0.0, 53.0, 5000.0]
    found, _ = differences("causal-lm", "perplexity", old, new)
    assert found.max() == found[1] == 1 / MOST_LOST
    assert found[3] == pytest.approx(-3 / 0.98 / MOST_LOST, rel=0.02)
    assert found[5] == -1


def test_a_version_may_be_credited_with_the_drop_that_the_file_allows():
    old = answers("text-classification", 0.8, 1)
    found, _ = differences("text-classification", "accuracy", old, old, choosing=np.arange(ROWS), max_drop=0.1)
    assert found == pytest.approx(np.full(ROWS, 0.08 / 1.08))


def test_the_turns_of_a_conversation_are_one_bet():
    """Sums over tokens add up: what is claimed of the whole conversation is the same."""
    rng = np.random.default_rng(7)
    old, new = (answers("chat", quality, seed) for quality, seed in ((0.5, 1), (0.9, 2)))
    units = rng.integers(0, 90, ROWS)
    units[:90] = np.arange(90)
    merged = one_row_each(old, new, units)
    assert [rows.shape for rows in merged] == [(90, old.shape[1])] * 2
    assert merged[0][5] == pytest.approx(old[units == 5].sum(axis=0))
    for metric in TASKS["chat"].metrics:
        for rows, whole in zip((old, new), merged, strict=True):
            found = [ROW_RESULTS["chat"].metrics(each, ())[metric] for each in (rows, whole)]
            assert found[0] == pytest.approx(found[1])
    assert one_row_each(old, new, None) == (old, new)
