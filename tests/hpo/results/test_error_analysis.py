"""What a model gets wrong: worst rows, confusion, and the files in which people read it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from hpo.executors.base import here
from hpo.results.confusion_svg import CELL, confusion_svg
from hpo.results.error_analysis import Confusion, confusion, example, worst_rows
from hpo.trials.trial_files import write_examples
from tests.hpo.builders import INSPECTION, trial_result
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.files import TrialPaths

SVG = "{http://www.w3.org/2000/svg}"
LABELS = ["good", "bad", "mixed"]


def classified(*rows):
    """Per-row results of (true, predicted, loss)."""
    return np.array([[true, predicted, loss, 0.2, 0.3, 0.5] for true, predicted, loss in rows])


ROWS = classified((0, 0, 0.1), (1, 2, 3.0), (2, 2, 0.3), (1, 1, 0.2), (0, 1, 2.0), (1, 2, 1.5))


# --- rows ----------------------------------------------------------------------------------------------


def test_the_confusion_counts_true_against_predicted():
    assert confusion("text-classification", ROWS, LABELS) == Confusion(LABELS, [[1, 1, 0], [0, 1, 2], [0, 0, 1]])


@pytest.mark.parametrize("task", sorted(ROW_RESULTS.keys() - {"text-classification"}))
def test_tasks_without_one_label_a_row_have_no_confusion(task):
    assert confusion(task, np.zeros((3, 6)), []) is None


@for_all(st.lists(st.floats(0, 100) | st.just(math.nan) | st.just(math.inf), min_size=1), st.integers(1, 30))
def test_no_row_left_out_is_worse_than_one_that_is_shown(losses, count):
    worst = worst_rows("text-classification", classified(*((0, 0, loss) for loss in losses)), count)
    ranks = [math.inf if math.isnan(loss) else loss for loss in losses]
    assert len(worst) == min(count, len(losses)) == len(set(worst))
    assert [ranks[row] for row in worst] == sorted(ranks, reverse=True)[:count]


def test_of_equal_losses_the_earlier_row_comes_first():
    assert worst_rows("text-classification", classified(*[(0, 0, 1.0)] * 30)) == list(range(20))


@pytest.mark.parametrize(
    ("task", "inputs", "row", "shown"),
    [
        (
            "text-classification", {"text": "x", "text_pair": "y", "label": 1}, [1, 2, 3.5, 0.1, 0.1, 0.8],
            {"text": "x", "text_pair": "y", "loss": 3.5, "true": "bad", "predicted": "mixed"},
        ),
        (
            "multi-label-classification", {"text": "x", "labels": [1, 0, 1]}, [0.5, 1, 0, 1, 0.9, 0.7, 0.2],
            {"text": "x", "loss": 0.5, "true": ["good", "mixed"], "predicted": ["good", "bad"]},
        ),
        (
            "regression", {"text": "x", "value": 1.0}, [1.0, 3.0],
            {"text": "x", "loss": 4.0, "true": 1.0, "predicted": 3.0},
        ),
        (
            "text-similarity", {"text": "x", "text_pair": "y", "value": 1.0}, [1.0, 0.5],
            {"text": "x", "text_pair": "y", "loss": 0.25, "true": 1.0, "predicted": 0.5},
        ),
        (
            "token-classification", {"words": ["a", "b"], "tags": ["O", "O"]}, [3.0, 2, 1, 0, 1, 1],
            {"words": ["a", "b"], "tags": ["O", "O"], "loss": 1.5},
        ),
        ("text-to-text", {"input": "a", "output": "b"}, [6.0, 3, 1, 9], {"input": "a", "output": "b", "loss": 2.0}),
    ],
)  # fmt: skip
def test_a_row_is_shown_with_its_loss_and_answers(task, inputs, row, shown):
    assert example(task, inputs, np.array(row, dtype=float), LABELS) == shown


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_null(loss):
    shown = example("text-classification", {"text": "x", "label": 0}, classified((0, 0, loss))[0], LABELS)
    assert json.loads(json.dumps(shown, allow_nan=False))["loss"] is None


# --- the picture ---------------------------------------------------------------------------------------


def drawn(labels, counts):
    """The picture's (size, texts, filled squares); fails where it is no XML."""
    root = ElementTree.fromstring(confusion_svg(labels, counts))  # noqa: S314  # our own
    texts = [text.text for text in root.iter(f"{SVG}text")]
    squares = [r for r in root.iter(f"{SVG}rect") if r.get("width") == str(CELL)]
    return root, texts, squares


def test_the_picture_names_every_label_twice_and_every_count_once():
    _, texts, squares = drawn(["a", "b & <c>"], [[7, 1], [0, 9]])
    assert sorted(texts) == sorted(["predicted", "true", "a", "a", "b & <c>", "b & <c>", "7", "1", "9"])
    assert len(squares) == 3, "an empty cell is left white"


def test_a_cell_is_as_dark_as_its_share_of_the_row():
    fills = [square.get("fill") for square in drawn(["a", "b"], [[1, 1], [0, 50]])[2]]
    assert fills == ["rgb(132,168,206)", "rgb(132,168,206)", "rgb(8,81,156)"]


@for_all(st.integers(2, 30), st.integers(1, 60))
def test_everything_lies_within_the_picture(count, length):
    root, texts, squares = drawn(["x" * length] * count, np.ones((count, count), dtype=int).tolist())
    size = int(root.get("width"))
    assert all(0 <= float(s.get(axis)) <= size - CELL for s in squares for axis in ("x", "y"))
    assert len(squares) == count**2
    assert all(len(text) <= 24 for text in texts)


def test_a_control_character_in_a_label_leaves_the_picture_xml():
    _, texts, _ = drawn(["a\x1b[31m\x00", "b\x85"], [[1, 0], [0, 1]])
    assert texts.count("a\\x1b[31m\\x00") == texts.count("b\\x85") == 2


# --- files ---------------------------------------------------------------------------------------------


@pytest.fixture
def trial(tmp_path):
    """Files of a trial whose second evaluation was the best, and the inspection with its rows."""
    paths = TrialPaths(tmp_path / "trial")
    paths.rows(1).parent.mkdir(parents=True)
    np.save(paths.rows(1), ROWS)
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    texts = [{"text": f"text {i} \u2028", "label": int(row[0])} for i, row in enumerate(ROWS)]
    lines = [json.dumps(text, ensure_ascii=False) + "\n" for text in texts]
    (tokens / "validation.jsonl").write_text("".join(lines), encoding="utf-8")
    inspection = dataclasses.replace(INSPECTION, tokens_dir=str(tokens), model_dir=str(tmp_path), labels=LABELS)
    return paths, inspection


def jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_a_complete_trial_leaves_its_worst_rows_and_its_confusion(trial, tmp_path):
    paths, inspection = trial
    write_examples(trial_result(best_index=1), paths, "text-classification", inspection, tmp_path / "shown", here)
    shown = jsonl(tmp_path / "shown/worst_examples.jsonl")
    assert [row["loss"] for row in shown] == [3.0, 2.0, 1.5, 0.3, 0.2, 0.1]
    assert shown[0] == {"text": "text 1 \u2028", "loss": 3.0, "true": "bad", "predicted": "mixed"}
    matrix = json.loads((tmp_path / "shown/confusion_matrix.json").read_text())
    assert matrix == {"labels": LABELS, "counts": [[1, 1, 0], [0, 1, 2], [0, 0, 1]]}
    assert ">mixed</text>" in (tmp_path / "shown/confusion_matrix.svg").read_text()


@pytest.mark.parametrize("state", ["pruned", "failed"])
def test_a_trial_that_is_not_complete_leaves_none(trial, tmp_path, state):
    paths, inspection = trial
    write_examples(
        trial_result(state, best_index=1), paths, "text-classification", inspection, tmp_path / "shown", here
    )
    assert not (tmp_path / "shown").exists()


def test_tokens_are_shown_as_their_text(trial, tmp_path, tiny):
    from transformers import AutoTokenizer

    paths, inspection = trial
    np.save(paths.rows(1), np.array([[3.0, 3.0, 0.0, 9.0], [9.0, 3.0, 0.0, 9.0]]))
    texts = ["<|user|>what is warm<|end|>", "<|assistant|>it is dull<|end|>"]
    ids = AutoTokenizer.from_pretrained(tiny / "chat")(texts)["input_ids"]
    rows = [{"input_ids": row, "loss_mask": [1] * len(row), "target_bytes": 9} for row in ids]
    Path(inspection.tokens_dir, "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model_dir, key in ((str(tiny / "chat"), "text"), (str(tmp_path), "input_ids")):
        found = dataclasses.replace(inspection, model_dir=model_dir, labels=[])
        write_examples(trial_result(best_index=1), paths, "chat", found, tmp_path / key, here)
        assert [row["loss"] for row in jsonl(tmp_path / key / "worst_examples.jsonl")] == [3.0, 1.0]
        assert not (tmp_path / key / "confusion_matrix.json").exists()
    worst, _ = jsonl(tmp_path / "text/worst_examples.jsonl")
    assert {"it", "is", "dull"} <= set(worst["text"].replace("<", " ").replace(">", " ").split())
    assert jsonl(tmp_path / "input_ids/worst_examples.jsonl")[0]["input_ids"] == ids[1]
