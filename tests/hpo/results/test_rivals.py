"""Who takes the alias: the rule on the paired difference of two releases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpo.config.objective import Objective
from hpo.results.outcome import Comparison
from hpo.results.released import Rivalry
from hpo.results.rivals import answer, answer_to_itself, decide, in_words, rivalry
from tests.hpo.release.rivals import LABELS, ROWS, answers
from trainers.metrics.table import ROW_RESULTS

F1 = Objective("f1_macro", "maximize")


def f1(rows):
    return ROW_RESULTS["text-classification"].metrics(rows, LABELS)["f1_macro"]


def compared(old, new):
    return rivalry(answers(*old), f1, answers(*new), f1, F1)


def lead(low, high, champion=0.8):
    middle = (low + high) / 2
    return Rivalry("f1_macro", champion, champion + middle, 100, Comparison(middle, low, high, 0.5))


def test_a_better_one_a_worse_one_and_a_tie():
    assert answer("better", compared((0.8, 1), (0.92, 2)), 0.01) == "yes"
    assert answer("better", compared((0.9, 1), (0.6, 2)), 0.01) == "no"
    assert answer("better", compared((0.9, 1), (0.905, 2)), 0.01) == "open"
    assert answer("better", compared((0.9, 1), (0.9, 1)), 0.01) == "no"  # the same answers: surely a tie


def test_chance_alone_takes_the_alias_in_few_cases():
    """Models of equal quality that err on different rows, as two sweeps of one recipe: 2.5 of 100 on each side."""
    rng = np.random.default_rng(0)
    truth, taken, tries = np.arange(ROWS) % 2, 0, 300
    for _ in range(tries):
        pair = []
        for _ in range(2):
            predicted = np.where(rng.random(ROWS) < 0.85, truth, 1 - truth)
            pair.append(np.stack([truth, predicted, truth * 0.0, truth * 0.5, truth * 0.5], axis=1))
        taken += answer("better", rivalry(pair[0], _accuracy, pair[1], _accuracy, F1), 0.01) == "yes"
    assert taken / tries < 0.05


def _accuracy(rows):
    return float((rows[:, 0] == rows[:, 1]).mean())


def test_a_metric_to_be_minimized_is_better_where_it_is_lower():
    rows = np.stack([np.linspace(1, 2, ROWS), np.linspace(1, 2, ROWS) + 0.5], axis=1)
    better = rows.copy()
    better[:, 1] -= 0.4 + 0.05 * (np.arange(ROWS) % 3)

    def mae(values):
        return float(np.abs(values[:, 0] - values[:, 1]).mean())

    found = rivalry(rows, mae, better, mae, Objective("mae", "minimize"))
    assert found.champion == pytest.approx(0.5)
    assert found.challenger < 0.1
    assert found.lead.low > 0
    assert answer("better", found, 0.01) == "yes"


@pytest.mark.parametrize(
    ("low", "high", "better", "not_worse", "to_itself"),
    [
        (0.01, 0.03, "yes", "yes", "yes"),
        (-0.005, 0.03, "open", "yes", "yes"),  # the margin is 0.01 of 0.8
        (-0.02, 0.03, "open", "open", "yes"),
        (-0.007, -0.001, "no", "yes", "no"),
        (-0.03, -0.02, "no", "no", "no"),
        (0.0, 0.0, "no", "yes", "yes"),
    ],
)
def test_what_is_required(low, high, better, not_worse, to_itself):
    found = lead(low, high)
    assert answer("better", found, 0.01) == better
    assert answer("not_worse", found, 0.01) == not_worse
    assert answer("always", found, 0.01) == "yes"
    assert answer_to_itself("better", found, 0.01) == to_itself


def test_no_number_is_never_champion():
    assert answer("not_worse", Rivalry("loss", 0.5, math.nan, 9, Comparison(math.nan, 0, 0, 1.0)), 0.01) == "no"
    assert answer("better", Rivalry("loss", math.nan, 0.5, 9, Comparison(math.nan, 0, 0, 1.0)), 0.01) == "yes"
    assert answer_to_itself("better", Rivalry("loss", 0.5, math.nan, 9, Comparison(math.nan, -math.nan, math.nan, 1.0)),
                            0.01) == "no"  # fmt: skip


def test_what_cannot_be_compared_is_open():
    assert [answer(require, None, 0.01) for require in ("better", "not_worse", "always")] == ["open", "open", "yes"]
    assert answer_to_itself("better", None, 0.01) == "yes"


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows_tell_nothing(rows):
    for old, new in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.995)):
        found = rivalry(np.full((rows, 1), old), _mean, np.full((rows, 1), new), _mean, F1)
        found_by = {require: answer(require, found, 0.01) for require in ("better", "not_worse", "always")}
        assert found_by == {"better": "open", "not_worse": "open", "always": "yes"}
        assert answer_to_itself("better", found, 0.01) == "yes"


def _mean(rows):
    return float(rows.mean())


def test_who_decides():
    table = {
        approve: [decide(approve, found) for found in ("yes", "open", "no")]
        for approve in ("auto", "ask", "when_close")
    }
    assert table == {
        "auto": ["champion", "refused", "refused"],
        "ask": ["waits", "refused", "refused"],
        "when_close": ["champion", "waits", "refused"],
    }


def test_the_lead_in_words():
    assert in_words(compared((0.9, 1), (0.6, 2))).endswith("worse beyond noise")
    assert in_words(compared((0.9, 1), (0.905, 2))).endswith("within noise")
    assert "better beyond noise" in in_words(compared((0.6, 1), (0.9, 2)))
