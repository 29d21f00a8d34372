"""Verdicts from a part of the rows, against the verdict of all of them, on simulated models."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from trainers.metrics.enough_rows import FIRST_LOOK, LEVEL, PairedDrop, looks, sample_order
from trainers.protocol.requests import Gate

ROWS = 400
PERPLEXITY = Gate("perplexity", "minimize", 0.01)
ACCURACY, F1 = Gate("accuracy", "maximize", 0.02), Gate("f1_macro", "maximize", 0.02)
NOISES = {
    "normal": lambda rng: rng.normal(0, 1, ROWS),
    "heavy tails": lambda rng: rng.standard_t(3, ROWS),
    "skewed": lambda rng: rng.exponential(1, ROWS) - 1,
    "one row in 40 is bad": lambda rng: 6.0 * (rng.random(ROWS) < 0.025),
    "one row in 40 is good": lambda rng: -6.0 * (rng.random(ROWS) < 0.025),
}


def writing(rng, loss, noise):
    """Torch's rows, and those of a model whose loss a token is higher by `loss` on all rows together."""
    tokens = rng.integers(5, 120, ROWS).astype(float)
    nll = tokens * np.exp(rng.normal(0.9, 0.3, ROWS))
    change = NOISES[noise](rng) * 0.02 * tokens
    change += (loss - change.sum() / tokens.sum()) * tokens
    same = [tokens, np.round(tokens / 2), tokens * 4]
    return np.column_stack([nll, *same]), np.column_stack([nll + change, *same])


def answering(rng, labels, spoiled, mended):
    """Torch's rows with 80 % right, and those of a model with so many right ones spoiled and wrong ones mended."""
    true = rng.integers(0, labels, ROWS)
    torchs = np.where(rng.random(ROWS) < 0.8, true, (true + 1) % labels)
    its = torchs.copy()
    its[rng.permutation(np.flatnonzero(torchs == true))[:spoiled]] += 1
    its %= labels
    others = rng.permutation(np.flatnonzero(torchs != true))[:mended]
    its[others] = true[others]
    return tuple(np.column_stack([true, given, -np.log(np.where(given == true, 0.9, 0.1)), np.eye(labels)[given]])
                 for given in (torchs, its))  # fmt: skip


def verdict(test, results):
    """The verdict and the rows that it took."""
    order = sample_order(len(results))
    for size in looks(len(results)):
        drop = test.at(order[:size], results[order[:size]])
        found = drop.within(test.gate.max_drop)
        if found is not None:
            return found, size
    raise AssertionError("all rows give a verdict")


def of_all(test, results):
    return test.at(np.arange(len(results)), results).within(test.gate.max_drop)


@pytest.mark.parametrize("noise", NOISES)
def test_wrong_verdicts_on_writing_models_are_as_rare_as_stated(noise):
    wrong, models = 0, 0
    for seed in range(40):
        for loss in (0.0, 0.004, 0.008, 0.0099, 0.01, 0.012, 0.016, 0.03):
            torchs, its = writing(np.random.default_rng(seed), loss, noise)
            test = PairedDrop("chat", [], PERPLEXITY, torchs)
            wrong += verdict(test, its)[0] != of_all(test, its)
            models += 1
    assert wrong <= binom.ppf(0.99, models, LEVEL)


@pytest.mark.parametrize(("labels", "gate"), [(2, ACCURACY), (2, F1), (5, F1)])
def test_wrong_verdicts_on_classifiers_are_as_rare_as_stated(labels, gate):
    wrong, models = 0, 0
    for seed in range(10):
        for spoiled, mended in ((0, 0), (5, 0), (8, 1), (7, 0), (6, 0), (20, 10), (40, 35), (30, 0), (80, 0)):
            torchs, its = answering(np.random.default_rng(seed), labels, spoiled, mended)
            test = PairedDrop("text-classification", [str(n) for n in range(labels)], gate, torchs)
            wrong += verdict(test, its)[0] != of_all(test, its)
            models += 1
    assert wrong <= binom.ppf(0.99, models, LEVEL)


@pytest.mark.parametrize(("loss", "passed"), [(0.0, True), (0.05, False)])
def test_a_clear_case_needs_fewer_rows(loss, passed):
    torchs, its = writing(np.random.default_rng(0), loss, "normal")
    found, size = verdict(PairedDrop("chat", [], PERPLEXITY, torchs), its)
    assert found is passed
    assert size < ROWS


def test_equal_answers_prove_nothing_before_bad_rows_would_have_shown():
    torchs, _ = answering(np.random.default_rng(0), 2, 0, 0)
    test = PairedDrop("text-classification", ["a", "b"], Gate("accuracy", "maximize", 0.01), torchs)
    order = sample_order(ROWS)
    assert test.at(order[:FIRST_LOOK], torchs[order[:FIRST_LOOK]]).within(0.01) is None
    assert test.at(order, torchs[order]).within(0.01) is True


def test_no_number_is_a_drop_at_once():
    torchs, its = writing(np.random.default_rng(0), 0.0, "normal")
    its[sample_order(ROWS)[3], 0] = math.nan
    assert verdict(PairedDrop("chat", [], PERPLEXITY, torchs), its) == (False, FIRST_LOOK)


def test_a_share_of_nothing_is_judged_on_all_rows():
    torchs, its = writing(np.random.default_rng(0), 0.01, "normal")
    torchs[:, 0] = 0.0
    assert verdict(PairedDrop("chat", [], Gate("loss", "minimize", 0.01), torchs), its) == (False, ROWS)


@pytest.mark.parametrize("task", ["token-classification", "multi-label-classification"])
def test_rows_of_several_decisions(task):
    rng = np.random.default_rng(1)
    if task == "token-classification":
        ones = np.ones(ROWS)
        rows = np.column_stack([ones, 9 * ones, 9 * ones, ones, ones, ones, *([3 * ones] * 9)])
        gate, labels = Gate("entity_f1", "maximize", 0.05), ["B-X", "I-X", "O"]
    else:
        true = (rng.random((ROWS, 3)) < 0.5).astype(float)
        rows = np.concatenate([np.ones((ROWS, 1)), true, true], axis=1)
        gate, labels = Gate("f1_macro", "maximize", 0.05), ["a", "b", "c"]
    found, size = verdict(PairedDrop(task, labels, gate, rows), rows)
    assert found
    assert FIRST_LOOK < size < ROWS


def test_looks_grow_and_end_with_all_rows():
    assert looks(885) == [32, 64, 128, 256, 512, 885]
    assert looks(40) == [40]
    assert looks(1) == [1]
    assert sorted(sample_order(50)) == list(range(50))


def test_bounds_on_more_rows_hold_the_drop_and_narrow_with_rows():
    torchs, its = answering(np.random.default_rng(0), 2, 12, 6)
    gate = Gate("accuracy", "maximize", 0.01)
    few = PairedDrop("text-classification", ["a", "b"], gate, torchs[:100]).on_more_rows(its[:100])
    found = PairedDrop("text-classification", ["a", "b"], gate, torchs).on_more_rows(its)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(6 / 320, rel=0.1)  # of the right ones
    # Eighteen rows changed: a standard error of sqrt(18) rows, as a share of those that are right.
    assert found.high - found.value == pytest.approx(1.96 * math.sqrt(18) / 320, rel=0.1)
    assert few.high - few.low > found.high - found.low


def test_equal_answers_have_no_width_on_more_rows():
    torchs, _ = answering(np.random.default_rng(0), 2, 0, 0)
    found = PairedDrop("text-classification", ["a", "b"], ACCURACY, torchs).on_more_rows(torchs)
    assert found.low == found.value == found.high == 0.0
