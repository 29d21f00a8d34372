"""What a release folder holds, and that it appears whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import BertConfig, GenerationConfig, LlamaConfig

from tests.trainers.export.conftest import (
    CHAT_TEMPLATE,
    LABELS,
    MAX_LENGTH,
    chat_tokenizer,
    wordpiece_tokenizer,
    written,
)
from trainers import runtime
from trainers.export.release import ExportError
from trainers.runtime.card import Card

SOURCE = Path(runtime.__file__).parents[1]
CODE = {f"runtime/{file.name}" for file in Path(runtime.__file__).parent.glob("*.py")}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "model.onnx.data").write_bytes(b"weights")
    return tmp_path


def write_classifier(folder: Path, **changes) -> Card:
    arguments = {
        "task": "text-classification",
        "variant": "int8",
        "labels": list(LABELS),
        "max_length": MAX_LENGTH,
        "tokenizer": wordpiece_tokenizer(),
        "model_config": BertConfig(pad_token_id=0),
    }
    return written(folder, **{**arguments, **changes})


def test_a_classifiers_card(graph):
    card = write_classifier(graph)
    assert card == Card.read(graph)
    assert (card.task, card.variant, card.labels, card.max_length) == (
        "text-classification",
        "int8",
        LABELS,
        MAX_LENGTH,
    )
    assert card.chat_template is None
    assert set(card.files) == {"model.onnx", "model.onnx.data", "tokenizer.json", *CODE}
    assert {str(path.relative_to(graph)) for path in graph.rglob("*") if path.is_file()} == {
        *card.files,
        "release.json",
    }
    assert all((graph / name).read_text() == (SOURCE / name).read_text() for name in CODE)
    assert json.loads((graph / "release.json").read_text())["format_version"] == 1


def test_a_chats_card_ends_answers_at_every_end_of_text(graph):
    card = write_classifier(
        graph,
        task="chat",
        labels=[],
        tokenizer=chat_tokenizer(),
        model_config=LlamaConfig(eos_token_id=7, pad_token_id=None),
        generation_config=GenerationConfig(eos_token_id=[7, 9]),
        max_new_tokens=5,
    )
    assert card.eos_token_ids == (2, 7, 9)
    assert card.pad_token_id == chat_tokenizer().pad_token_id == 2
    assert card.chat_template == CHAT_TEMPLATE
    assert card.template_tokens["eos_token"] == "<|im_end|>"  # noqa: S105 - a token of text
    assert card.generation == {"strategy": "greedy", "max_new_tokens": 5}
    assert json.loads((graph / "tokenizer.json").read_text())["truncation"] is None


def test_the_callers_tokenizer_is_left_alone(graph):
    tokenizer = wordpiece_tokenizer()
    tokenizer("text", padding="max_length", truncation=True, max_length=7)
    before = tokenizer.backend_tokenizer.to_str()
    write_classifier(graph, tokenizer=tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert json.loads((graph / "tokenizer.json").read_text())["truncation"]["max_length"] == MAX_LENGTH


def test_the_card_appears_last(graph, monkeypatch):
    monkeypatch.setattr(runtime, "__file__", str(graph / "absent" / "__init__.py"))
    with pytest.raises(FileNotFoundError):
        write_classifier(graph)
    assert not (graph / "release.json").exists()


def test_what_cannot_be_released_is_named(graph):
    class InPython:
        backend_tokenizer = None

    with pytest.raises(ExportError, match="InPython runs in Python only"):
        write_classifier(graph, tokenizer=InPython())
    (graph / "model.onnx").unlink()
    with pytest.raises(ExportError, match=r"has no model\.onnx"):
        write_classifier(graph)
