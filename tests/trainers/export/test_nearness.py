"""How near a variant is to torch."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.export.nearness import agreement_of_logits, agreement_of_rows, max_logit_diff
from trainers.protocol.measured import Agreement

LOGITS = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, -1.0]])


def test_values_of_a_regression_are_compared_in_their_unit():
    assert max_logit_diff(np.array([[90.0]]), np.array([[100.0]]), "regression") == pytest.approx(0.1)
    assert max_logit_diff(LOGITS, LOGITS + 0.5, "text-classification") == pytest.approx(0.5)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match="logits have shape"):
        max_logit_diff(LOGITS[:1], LOGITS, "chat")


def test_answers_are_the_largest_logits_or_those_above_zero():
    other = np.array([[2.0, 1.0], [4.0, 3.0], [1.0, 0.5]])
    assert agreement_of_logits(other, LOGITS, "chat") == Agreement(2, 3)
    assert agreement_of_logits(other, LOGITS, "multi-label-classification") == Agreement(1, 3)
    assert agreement_of_logits(other, LOGITS, "regression") is None


def test_answers_of_rows_where_rows_have_answers():
    rows = np.array([[0, 0, 0.1, 0.9, 0.1], [1, 0, 2.3, 0.9, 0.1]])
    other = rows.copy()
    other[1, 1] = 1
    assert agreement_of_rows(rows, other, "text-classification", 2) == Agreement(1, 2)
    labels = np.array([[0.1, 1.0, 0.0, 0.9, 0.4]])
    assert agreement_of_rows(labels, labels + 0.2, "multi-label-classification", 2) == Agreement(0, 1)
    assert agreement_of_rows(rows, rows, "chat", 0) is None
