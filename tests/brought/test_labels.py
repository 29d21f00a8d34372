"""Labels, tags and numbers as users bring them: read rightly, and met by the head that belongs to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.brought.labels import TEXTS, workload
from tests.trainers.families import CONFIGS
from trainers.catalog import TASKS as CATALOG
from trainers.evaluation import score_model
from trainers.inspection import inspect
from trainers.model import load_base
from trainers.sources import Row
from trainers.spec import Finding, Inspect
from trainers.tasks.table import TASKS

# --- labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        ([10, 2, 1], ["1", "2", "10"]),
        ([0.5, -1, 10, "2"], ["-1", "0.5", "2", "10"]),
        ([True, False], ["False", "True"]),
        ([1.0, 2.0, 10.0], ["1", "2", "10"]),
        (["10", "2", "a"], ["10", "2", "a"]),
        (["1.0", "10.0", "9.0"], ["1.0", "9.0", "10.0"]),
        (["9" * 400, "2"], ["2", "9" * 400]),
    ],
)
def test_labels_are_text_in_the_order_of_numbers(given, labels, tmp_path):
    task = TASKS["text-classification"]
    rows = [
        task.check(Row("f:1", {"text": "a", "label": one}), CATALOG["text-classification"].columns) for one in given
    ]
    assert task.labels([row.example for row in rows]) == labels


@pytest.mark.parametrize("label", [None, float("nan"), float("inf"), "", " ", ["a"], {"a": 1}])
def test_no_label_is_a_finding(label):
    columns = CATALOG["text-classification"].columns
    finding = TASKS["text-classification"].check(Row("f:7", {"text": "a", "label": label}), columns)
    assert finding == Finding("f:7", f"label is {label!r}", "expected a label: text, a number or a truth value")


# --- the head of a checkpoint --------------------------------------------------------------------------


def perfect_checkpoint(family: str, folder: Path, names: list[str], **changes: Any) -> tuple[Path, list[str]]:
    """A classifier of texts as `save_pretrained` writes it, and which of `names` it gives each of TEXTS."""
    import transformers

    from tests.trainers.families import build
    from trainers.model_source import load_tokenizer
    from trainers.tasks.output_layer import output_layer

    plain = build(family, folder / "plain")
    config = transformers.AutoConfig.from_pretrained(plain)
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: row for row, name in enumerate(names)}
    torch.manual_seed(1)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    head = model.get_submodule(output_layer(model, len(names)))
    given: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    tokenizer = load_tokenizer(plain)
    batch = tokenizer(TEXTS, padding=True, padding_side="right", return_tensors="pt")
    batch.pop("token_type_ids", None)
    model.config.pad_token_id = 0
    with torch.no_grad():
        model(**batch)
        handle.remove()
        hidden = given[0] if given[0].dim() == 2 else given[0][:, 0]
        towards = torch.randn(hidden.shape[-1])
        mean = hidden.mean(dim=0)
        towards -= (mean @ towards) / (mean @ mean) * mean  # half of the texts lie on either side
        head.weight.copy_(torch.stack([towards, -towards, *[torch.zeros_like(towards)] * (len(names) - 2)]))
        if head.bias is not None:
            head.bias.zero_()
            head.bias[2:] = -1e3
        told = model(**batch).logits[:, :2].argmax(dim=-1)
    model.save_pretrained(folder / "checkpoint")
    if changes:
        file = folder / "checkpoint" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    tokenizer.save_pretrained(folder / "checkpoint")
    assert 0 < told.sum() < len(TEXTS)
    return folder / "checkpoint", [names[row] for row in told]


@pytest.mark.parametrize("family", CONFIGS)
def test_a_perfect_checkpoint_is_perfect_in_our_order_of_labels(family, tmp_path, capfd, caplog):
    checkpoint, told = perfect_checkpoint(family, tmp_path, ["pos", "neg"])
    given = workload(
        "text-classification",
        checkpoint,
        [{"text": t, "label": n} for t, n in zip(TEXTS, told, strict=True)],
        tmp_path,
    )
    found = inspect(Inspect(given))
    assert found.labels == ["neg", "pos"]
    assert "the model brings a head for these labels: training goes on from it" in found.notes
    base = load_base(given, found.labels)
    assert base.drawn_parameters == []
    assert base.model.config.id2label == {0: "neg", 1: "pos"}
    assert score_model(base, Path(found.tokens_dir), "cpu")[0]["accuracy"] == 1.0
    assert (capfd.readouterr().err, caplog.text) == ("", "")


HEADS = {
    "names-in-label2id-only": (
        {"label2id": {"pos": 0, "neg": 1}, "id2label": {0: "LABEL_0", 1: "LABEL_1"}}, str, "goes on from it",
    ),
    "other-case": ({"id2label": {0: "POS", 1: "Neg"}}, str, "Neg is neg, POS is pos"),
    "numbers-of-nameless-rows": (
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {}}, lambda name: ["pos", "neg"].index(name),
        "goes on from it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_names_of_a_head_are_read_either_way(case, tmp_path):
    changes, label, note = HEADS[case]
    checkpoint, told = perfect_checkpoint("bert", tmp_path, ["pos", "neg"], **changes)
    rows = [{"text": t, "label": label(n)} for t, n in zip(TEXTS, told, strict=True)]
    given = workload("text-classification", checkpoint, rows, tmp_path)
    found = inspect(Inspect(given))
    assert any(note in one for one in found.notes)
    base = load_base(given, found.labels)
    assert score_model(base, Path(found.tokens_dir), "cpu")[0]["accuracy"] == 1.0


def test_of_a_head_with_more_labels_the_rows_of_ours_are_kept(tmp_path):
    checkpoint, told = perfect_checkpoint("bert", tmp_path, ["pos", "neg", "mixed", "off-topic"])
    rows = [{"text": t, "label": n} for t, n in zip(TEXTS, told, strict=True)]
    given = workload("text-classification", checkpoint, rows, tmp_path)
    found = inspect(Inspect(given))
    assert any("its 2 other labels are left out" in note for note in found.notes)
    base = load_base(given, found.labels)
    assert score_model(base, Path(found.tokens_dir), "cpu")[0]["accuracy"] == 1.0


@pytest.mark.parametrize("task", ["text-classification", "multi-label-classification", "regression"])
@pytest.mark.parametrize("names", [["joy", "anger"], ["a", "b", "c", "d", "e"], ["pos", "joy"]])
def test_a_head_for_other_labels_is_drawn_anew_and_said_so(task, names, tmp_path):
    checkpoint, _ = perfect_checkpoint("roberta", tmp_path, names)
    values: dict[str, Any] = {
        "text-classification": lambda i: {"label": "pos" if i % 2 else "neg"},
        "multi-label-classification": lambda i: {"labels": ["pos"] if i % 2 else ["neg", "pos"]},
        "regression": lambda i: {"value": i},
    }[task]
    given = workload(task, checkpoint, [{"text": t, **values(i)} for i, t in enumerate(TEXTS)], tmp_path)
    found = inspect(Inspect(given))
    assert any(f"brings a head for {len(names)} labels: " in note and "is drawn" in note for note in found.notes)
    base = load_base(given, found.labels, scale=found.scale)
    assert base.drawn_parameters == ["classifier.out_proj.bias", "classifier.out_proj.weight"]
    assert base.new_modules == ["classifier"]
    assert base.model.get_submodule("classifier.out_proj").out_features == max(1, len(found.labels))


def test_a_head_whose_weights_contradict_its_config_is_drawn_anew(tmp_path):
    changes = {"id2label": {0: "neg", 1: "pos"}, "label2id": {"neg": 0, "pos": 1}}
    checkpoint, told = perfect_checkpoint("bert", tmp_path, ["pos", "neg", "mixed"], **changes)
    rows = [{"text": t, "label": n} for t, n in zip(TEXTS, told, strict=True)]
    given = workload("text-classification", checkpoint, rows, tmp_path)
    base = load_base(given, inspect(Inspect(given)).labels)
    assert base.drawn_parameters == ["classifier.bias", "classifier.weight"]


def test_a_head_for_texts_is_none_for_words(tmp_path):
    checkpoint, _ = perfect_checkpoint("bert", tmp_path, ["B-X", "O"])
    rows = [{"words": text.split(), "tags": ["B-X", "O", "O"]} for text in TEXTS]
    given = workload("token-classification", checkpoint, rows, tmp_path)
    found = inspect(Inspect(given))
    assert not any("head" in note for note in found.notes)
    assert load_base(given, found.labels).drawn_parameters == ["classifier.bias", "classifier.weight"]
