"""Every task that can be released: its ONNX model has torch's numbers, and answers as the task does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from seqeval.metrics.sequence_labeling import get_entities

from tests.trainers.export.conftest import assert_equal_numbers
from tests.trainers.families import rows
from trainers.runtime.tag import Tagger

PAIRED = ("text-classification", "multi-label-classification", "regression")


@pytest.mark.parametrize(("family", "pairs"), [("bert", False), ("bert", True), ("distilbert", True), ("llama", True)])
@pytest.mark.parametrize("task", PAIRED)
def test_models_that_judge(promoted, family, task, pairs):
    exported, measured, release, given, _ = promoted(family, task, pairs, layers=1 if pairs else 2)
    assert_equal_numbers(exported, measured)
    if not pairs:
        answers = release.predict([row["text"] for row in given])
    else:
        assert release.card.columns == ("text", "text_pair")
        inputs = [{"text": row["text"], "text_pair": row["text_pair"]} for row in given]
        answers = release.predict(inputs)
        assert release.predict([json.dumps(one) for one in inputs]) == answers
        with pytest.raises(ValueError, match="input 1: expected texts for text, text_pair, as a mapping or its JSON"):
            release.predict([inputs[0], "a text alone"])
        with pytest.raises(ValueError, match="not a text: text_pair"):
            release.predict([{"text": "a"}])
    assert_answers(task, answers, given, measured.metrics, release.card.labels)


def test_a_model_that_tags(promoted):
    exported, measured, release, given, _ = promoted("bert", "token-classification")
    assert_equal_numbers(exported, measured)
    right = predicted = true = 0
    for row in given:
        text = " ".join(row["words"])
        (answer,) = release.predict([text])
        assert all(text[e["start"] : e["end"]] == e["text"] and 0 < e["score"] <= 1 for e in answer["entities"])
        ends = {sum(len(word) + 1 for word in row["words"][: i + 1]) - 1: i for i in range(len(row["words"]))}
        starts = {end - len(row["words"][i]): i for end, i in ends.items()}
        found = {(e["label"], starts[e["start"]], ends[e["end"]]) for e in answer["entities"]}
        wanted = set(get_entities(row["tags"]))
        right, predicted, true = right + len(found & wanted), predicted + len(found), true + len(wanted)
    assert predicted
    assert 2 * right / (predicted + true) == pytest.approx(measured.metrics["entity_f1"])
    assert release.predict(["", " "]) == [{"entities": []}] * 2


def test_entities_are_runs_of_tags(promoted, monkeypatch):
    """As conlleval reads them: I- after another entity, or after nothing, begins one."""
    release = promoted("bert", "token-classification")[2]
    labels = list(release.card.labels)
    tags = ["B-NAME", "I-NAME", "B-NAME", "I-FLAW", "O", "I-NAME"]
    logits = np.array(
        [[9.0 * (label == tag) for label in ["B-FLAW", "B-NAME", "I-FLAW", "I-NAME", "O"]] for tag in tags]
    )
    card = replace(release.card, labels=("B-FLAW", "B-NAME", "I-FLAW", "I-NAME", "O"))
    monkeypatch.setattr(Tagger, "word_logits", lambda *_: (logits, {n: n for n in range(6)}))
    found = Tagger(card, release.tokenizer, release.session).predict(["Jo An,Bo xx y z cut"])[0]["entities"]
    assert labels == ["B-FLAW", "B-NAME", "I-NAME", "O"]
    assert [(e["label"], e["text"]) for e in found] == [
        ("NAME", "Jo An"), ("NAME", ","), ("FLAW", "Bo"), ("NAME", "y"),
    ]  # fmt: skip
    assert [e["label"] for e in found] == [kind for kind, _, _ in get_entities(tags)]


def assert_answers(task, answers, given, metrics, labels):
    """Accuracy and errors of the answers are those that were measured."""
    if task == "regression":
        errors = [abs(a["value"] - row["value"]) for a, row in zip(answers, given, strict=True)]
        assert sum(errors) / len(errors) == pytest.approx(metrics["mae"], rel=1e-4)
    elif task == "text-classification":
        hits = [labels[row["label"]] == a["label"] for a, row in zip(answers, given, strict=True)]
        assert sum(hits) / len(hits) == pytest.approx(metrics["accuracy"])
    else:
        told = [[label in a["labels"] for label in labels] for a in answers]
        hits = [mine == [bool(n) for n in row["labels"]] for mine, row in zip(told, given, strict=True)]
        assert sum(hits) / len(hits) == pytest.approx(metrics["accuracy"])


@pytest.mark.parametrize("task", ["instruct", "causal-lm", "chat"])
def test_models_that_write(promoted, task):
    exported, measured, release, given, model = promoted(None, task)
    assert_equal_numbers(exported, measured)
    asked = rows(task, 3)[0].get("input", "what is great")
    ids = (
        release.prompts.chat_ids(asked)
        if task == "chat"
        else release.prompts.continued_ids(release.prompts.filled({release.card.columns[0]: asked}))
    )
    if task == "instruct":
        assert {row["input_ids"][row["loss_mask"].index(1) - 1] for row in given} == {ids[-1]}
    prompt = torch.tensor([ids])
    torchs = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False)
    told = torchs[0, len(ids) :].tolist()
    ends = [place for place, token in enumerate(told) if token in release.card.eos_token_ids]
    told = told[: ends[0]] if ends else told
    assert told
    assert list(release.generate(ids, 16)) == told
    assert release.predict([asked], 16) == [{"text": release.prompts.decoded(ids, told)}]
