"""Standard errors of differences: from the same rows, and none where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.search.row_errors import RowErrors
from tests.hpo.builders import make_config

ROWS = 400


def answers(rng, right: float, labels) -> np.ndarray:
    """Per-row results of a classifier: (label, predicted, loss, probability of each)."""
    predicted = np.where(rng.random(len(labels)) < right, labels, 1 - labels)
    return np.column_stack([labels, predicted, predicted != labels, 1 - predicted, predicted]).astype(float)


@pytest.fixture
def errors(tmp_path):
    """Errors over the rows in a mapping, and how often each was read."""

    def over(kept):
        read = []

        def rows_of(look):
            read.append(look)
            if look not in kept:
                raise FileNotFoundError
            return kept[look]

        return RowErrors(make_config(tmp_path), ["a", "b"], rows_of), read

    return over


def test_the_error_is_that_of_the_difference_seen_over_many_samples(errors):
    rng = np.random.default_rng(0)
    found, differences = [], []
    for _ in range(200):
        labels = rng.integers(0, 2, ROWS)
        one, other = answers(rng, 0.8, labels), answers(rng, 0.75, labels)
        found.append(errors({(0, 0): one, (1, 0): other})[0]((0, 0), (1, 0)))
        differences.append(np.mean(one[:, 1] == labels) - np.mean(other[:, 1] == labels))
    assert np.mean(found) == pytest.approx(np.std(differences), rel=0.15)


def test_equal_answers_differ_by_nothing_and_alike_ones_by_less(errors):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, ROWS)
    one = answers(rng, 0.8, labels)
    alike, apart = one.copy(), answers(rng, 0.8, labels)
    alike[:20] = answers(rng, 0.5, labels[:20])
    error, _ = errors({(0, 0): one, (1, 0): one, (2, 0): alike, (3, 0): apart})
    assert error((0, 0), (1, 0)) == 0
    assert 0 < error((0, 0), (2, 0)) < error((0, 0), (3, 0))


def test_nothing_is_known_without_the_same_rows(errors):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, ROWS)
    error, _ = errors({(0, 0): answers(rng, 0.8, labels), (1, 0): answers(rng, 0.8, labels[:300])})
    assert error((0, 0), (1, 0)) is None
    assert error((0, 0), (2, 0)) is None
    assert error((2, 0), (0, 0)) is None


def test_the_rows_of_an_evaluation_are_read_once_and_those_to_come_are_asked_for_again(errors):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, ROWS)
    kept = {(0, 0): answers(rng, 0.8, labels)}
    error, read = errors(kept)
    assert error((0, 0), (1, 0)) is None
    kept[1, 0] = answers(rng, 0.7, labels)
    assert error((0, 0), (1, 0)) > 0
    assert error((1, 0), (0, 0)) > 0
    assert read.count((0, 0)) == 1
