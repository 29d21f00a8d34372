"""What validation rows say: slices by label, length and word, and rows on which champion and baseline differ."""

from __future__ import annotations

import numpy as np

from hpo.results.row_findings import JudgedRows, row_findings

LABELS = ["bad", "good"]


def results(true, predicted, loss=None):
    """Per-row results of a classifier of two labels."""
    loss = [0.1 if t == p else 2.0 for t, p in zip(true, predicted, strict=True)] if loss is None else loss
    rows = np.zeros((len(true), 5))
    rows[:, 0], rows[:, 1], rows[:, 2] = true, predicted, loss
    return rows


def judged(inputs, champion, baseline=None, task="text-classification"):
    return JudgedRows(task, LABELS, inputs, champion, baseline, len(inputs))


def of(findings, kind):
    return {s.name: s for s in findings.slices if s.kind == kind}


def test_slices_are_means_over_their_rows_beside_the_baseline():
    inputs = [{"text": "word " * length, "label": 0} for length in range(1, 101)]
    true = [0] * 60 + [1] * 40
    champion = results(true, [0] * 100)
    baseline = results(true, [1] * 100)
    found = row_findings(judged(inputs, champion, baseline))
    labels = of(found, "label")
    assert [(s.name, s.rows, s.champion, s.baseline) for s in labels.values()] == [
        ("good", 40, 0.0, 1.0),
        ("bad", 60, 1.0, 0.0),
    ]
    assert [(s.name, s.rows) for s in of(found, "length").values()] == [
        ("1 to 25 words", 25), ("26 to 50 words", 25), ("51 to 75 words", 25), ("76 to 100 words", 25),
    ]  # fmt: skip
    assert of(found, "length")["76 to 100 words"].champion == 0.0
    assert (found.better, found.worse, found.measure) == (60, 40, "share of right rows")


def test_a_word_is_named_only_where_chance_does_not_explain_its_errors():
    rng = np.random.default_rng(0)
    words = [[w for w in ("not", "plot", "film", "story") if rng.random() < 0.3] for _ in range(400)]
    inputs = [{"text": " ".join(of_row)} for of_row in words]
    wrong = np.array([rng.random() < (0.6 if "not" in of_row else 0.1) for of_row in words])
    found = row_findings(judged(inputs, results([0] * 400, wrong.astype(int))))
    assert found.words_looked_at == 4
    assert list(of(found, "word")) == ["not"]
    assert of(found, "word")["not"].p_value < 1e-6
    by_chance = rng.random(400) < 0.2
    assert not of(row_findings(judged(inputs, results([0] * 400, by_chance.astype(int)))), "word")


def test_rows_that_differ_are_shown_the_clearest_first():
    inputs = [{"text": f"row {n}", "label": 0} for n in range(4)]
    champion = results([0, 0, 0, 0], [0, 0, 1, 1], loss=[0.1, 0.1, 3.0, 2.0])
    baseline = results([0, 0, 0, 0], [1, 1, 0, 1], loss=[1.0, 4.0, 0.2, 2.0])
    found = row_findings(judged(inputs, champion, baseline))
    assert (found.better, found.worse) == (2, 1)
    assert [row["text"] for row in found.examples_better] == ["row 1", "row 0"]
    assert found.examples_worse == [
        {"text": "row 2", "true": "bad", "champion": "good", "champion's loss": 3.0, "baseline": "bad",
         "baseline's loss": 0.2},
    ]  # fmt: skip


def test_a_task_that_predicts_tokens_is_measured_in_loss_and_its_rows_are_read_as_text():
    inputs = [{"input_ids": [1] * (n + 1)} for n in range(40)]
    champion = np.array([[float(n), 1.0, 0.0, 1.0] for n in range(40)])
    baseline = champion + np.array([1.0, 0, 0, 0])
    found = row_findings(JudgedRows("chat", [], inputs, champion, baseline, 40, lambda row: {"text": "decoded"}))
    assert found.measure == "loss"
    assert (found.better, found.worse, found.words_looked_at) == (40, 0, 0)
    assert not of(found, "label")
    assert found.examples_better[0] == {"text": "decoded", "champion's loss": 0.0, "baseline's loss": 1.0}
