"""Labels, tags and numbers as users bring them: read rightly, and met by the head that belongs to them."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st

from hpo.config.file import load_config
from hpo.errors import ConfigError
from hpo.paths import Home
from tests.brought.labels import TEXTS, workload
from tests.trainers.families import CONFIGS, build
from trainers.data.sources import DataProblem, Row
from trainers.data.splits import Keyed, cut
from trainers.metrics.classification import classification_metrics
from trainers.model.load import load_base
from trainers.prepare.check import check
from trainers.prepare.data_findings import too_many_results
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import TASKS as CATALOG
from trainers.protocol.events import Finding
from trainers.protocol.requests import Check, Inspect
from trainers.protocol.trial_spec import DataRef, SourceRef
from trainers.tasks.table import TASKS
from trainers.training.evaluation import score_model

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
    assert finding == Finding("f:7", f"label is {label!r}", "expected a label: text, a number, true or false")


# --- several labels a row ------------------------------------------------------------------------------


def settled(task_name: str, rows: list[Any], column: str, **data: Any) -> tuple[list[Any], list[str]]:
    """What becomes of training rows with these values: each one's labels or finding, and the notes."""
    task, columns = TASKS[task_name], dict(CATALOG[task_name].columns)
    checked = [task.check(Row(f"f:{n}", {"text": f"t{n}", column: one}), columns) for n, one in enumerate(rows, 1)]
    ref = DataRef(SourceRef("/f"), None, None, columns, 1, 1, 0, **data)
    how = task.settle([row for row in checked if isinstance(row, Keyed)], ref)
    final = [row if isinstance(row, Finding) else how.read(row, f"f:{n}") for n, row in enumerate(checked, 1)]
    return [row if isinstance(row, Finding) else task.labels([row.example]) for row in final], how.notes


MULTI = "multi-label-classification"


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        ([[0, 1, 0], [1, 1, 0]], [["1"], ["0", "1"]]),
        ([[0.0, 1.0, 0.0], [True, False, False]], [["1"], ["0"]]),
        ([[0, 1], [1, 0], [0, 0]], [["1"], ["0"], []]),
        (["[0, 1, 0]", "[1 1 0]"], [["1"], ["0", "1"]]),
        ([[0, 1], [1, 2]], [["0", "1"], ["1", "2"]]),
        ([[0], [1]], [["0"], ["1"]]),
        ([["a", "b"], []], [["a", "b"], []]),
        (["['a', 'b']", '["c"]', "['d' 'e']", "[f, g]", "[]"], [["a", "b"], ["c"], ["d", "e"], ["f", "g"], []]),
        ([[10, 2]], [["2", "10"]]),
    ],
)
def test_lists_of_zeros_and_ones_are_one_label_a_place(given, labels):
    found, notes = settled(MULTI, given, "labels")
    assert found == labels
    is_vector = all(len(one) > 1 for one in given) and found[0] == ["1"]
    assert any("each position is a label" in note for note in notes) == is_vector


def test_a_list_of_another_length_among_zeros_and_ones_is_a_finding():
    found, _ = settled(MULTI, [[0, 1, 0], [1, 0, 0], [1, 0], ["a"]], "labels")
    assert found[:2] == [["1"], ["0"]]
    what = ("has no list of 0 and 1, unlike the other rows", "3 of them")
    assert found[2:] == [Finding("f:3", *what), Finding("f:4", *what)]


def test_places_and_numbers_are_named_by_the_data_settings():
    names = ["sport", "law", "art"]
    assert settled(MULTI, [[0, 1, 1], [0, 0, 0]], "labels", label_names=names)[0] == [["art", "law"], []]
    assert settled(MULTI, [[2], [0, 1]], "labels", label_names=names)[0] == [["art"], ["law", "sport"]]
    assert settled("text-classification", [2, "law", 0], "label", label_names=names)[0] == [["art"], ["law"], ["sport"]]
    expected = "one of the 3 names of data.label_names, or its number from 0"
    for given in (3, "x", -1, 10**400):
        [finding], _ = settled("text-classification", [given], "label", label_names=names)
        assert (finding.where, finding.expected) == ("f:1", expected)
    [finding], _ = settled(MULTI, [[0, 1, 0, 0]], "labels", label_names=names)
    assert finding == Finding("f:1", "has 4 values of 0 and 1", "one for each of 3 label_names")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("a, b", "got 'a, b'; expected a list of names, the name of label 0 first, e.g. [negative, positive]"),
        (["a", "a"], "expected at least two names, each of them once"),
        (["a"], "expected at least two names, each of them once"),
        (["a", 1], "expected a list of names"),
        (["a", " "], "expected a list of names"),
    ],
)
def test_label_names_are_a_list_of_different_names(names, expected, write_yaml, tiny, home):
    file = write_yaml(data={"train": str(tiny / "reviews.jsonl"), "label_names": names})
    with pytest.raises(ConfigError) as problem:
        load_config(file, Home(home))
    assert "data.label_names" in str(problem.value)
    assert expected in str(problem.value)


def test_label_names_belong_to_tasks_with_labels(write_yaml, tiny, home):
    file = write_yaml("chat", data={"train": str(tiny / "chats.jsonl"), "label_names": ["a", "b"]})
    with pytest.raises(ConfigError, match="chat has no labels: remove it"):
        load_config(file, Home(home))


def test_one_label_that_some_rows_have_is_a_question_of_its_own(tmp_path):
    rows = [{"text": text, "labels": ["spam"] if i % 2 else []} for i, text in enumerate(TEXTS)]
    given = workload(MULTI, build("bert", tmp_path / "bert"), rows, tmp_path)
    found = inspect(Inspect(given))
    assert found.labels == ["spam"]
    checked = check(Check(given))
    counts = checked.splits["train"].labels["spam"]
    assert 20 < counts < 40
    assert {example.target for example in checked.examples} <= {"spam", "none"}
    base = load_base(given, found.labels)
    assert 0 <= score_model(base, Path(found.tokens_dir), "cpu")[0]["accuracy"] <= 1


@pytest.mark.parametrize(("labels", "found"), [(["x"], "all rows have only the label 'x'"), ([], "no row has a label")])
def test_labels_that_teach_nothing_are_a_finding(labels, found, tmp_path):
    given = workload(MULTI, build("bert", tmp_path / "bert"), [{"text": t, "labels": labels} for t in TEXTS], tmp_path)
    with pytest.raises(DataProblem) as problem:
        inspect(Inspect(given))
    assert [finding.found for finding in problem.value.findings] == [found]


def test_one_text_with_two_labels_is_counted_apart(tmp_path):
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(TEXTS)]
    rows += [{"text": TEXTS[0], "label": "b"}, {"text": TEXTS[1], "label": "b"}]
    given = workload("text-classification", build("bert", tmp_path / "bert"), rows, tmp_path)
    notes = inspect(Inspect(given)).notes
    assert "2 duplicate rows dropped" in notes
    assert "1 of them has a different answer from the row that is kept" in notes
    [note] = [note for note in check(Check(given)).notes if "but a different answer" in note]
    assert note.startswith(
        "train: 1 row has the same text as another row but a different answer; a sweep keeps the first: "
    )
    assert note.endswith("data.jsonl:101 (as " + str(tmp_path / "data.jsonl:1)"))


def test_labels_that_look_alike_are_told(tmp_path):
    rows = [{"text": text, "label": ["Positive", "positive", "negative"][i % 3]} for i, text in enumerate(TEXTS)]
    given = workload("text-classification", build("bert", tmp_path / "bert"), rows, tmp_path)
    expected = "labels that differ only in case or spaces: 'Positive' and 'positive'"
    assert expected in check(Check(given)).notes


# --- very many labels ----------------------------------------------------------------------------------


def rows_of(labels: list[str]) -> list[Keyed[Any]]:
    return [Keyed(label, key=None, stratum=label) for label in labels]


def test_many_labels_are_cut_in_seconds():
    """20,000 labels, and 3,000 rare ones beside a frequent one, took minutes."""
    began = time.perf_counter()
    rest, taken = cut(rows_of([str(i % 20_000) for i in range(50_000)]), 0.2, 0)
    assert (len(rest), len(taken)) == (40_000, 10_000)
    rest, taken = cut(rows_of([*map(str, range(3_000)), *["often"] * 30_000]), 0.5, 0)
    assert (len(rest), len(taken)) == (16_500, 16_500)
    assert time.perf_counter() - began < 5


@drawn(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 60))
def test_the_cut_gives_every_label_its_turn(labels, size):
    """As one row a turn would."""
    rows = rows_of(list(map(str, labels)))
    taken = Counter(row.stratum for row in cut(rows, size, 0)[1]) if size else Counter()
    assert taken == (Counter(one_by_one(labels, size)) if size else Counter())


def one_by_one(labels: list[int], size: int) -> dict[str, int]:
    members = Counter(map(str, labels))
    wanted = min(len(labels), size)
    share = wanted / len(labels)
    most = {name: max(0, n - 1) if wanted < len(labels) else n for name, n in members.items()}
    quotas = {name: min(most[name], int(n * share)) for name, n in members.items()}
    turns = itertools.cycle(sorted(members, key=lambda s: (-(members[s] * share - quotas[s]), s)))
    while sum(quotas.values()) < min(wanted, sum(most.values())):
        name = next(turns)
        quotas[name] += quotas[name] < most[name]
    return {name: n for name, n in quotas.items() if n}


def test_metrics_of_20_000_labels_fit_into_memory():
    count = 20_000
    rows = np.concatenate([np.tile([[1.0, 1.0, 0.5]], (40, 1)), np.full((40, count), 1 / count)], axis=1)
    got = classification_metrics(rows, list(map(str, range(count))))
    assert (got["accuracy"], got["f1_macro"], got["mcc"]) == (1.0, 1.0, 0.0)


def test_more_results_than_can_be_kept_are_a_finding():
    splits = {"train": [], "validation": [None] * 3_000, "test": [None] * 10}
    [finding] = too_many_results(TASKS["text-classification"], splits, list(map(str, range(20_000))))
    assert finding == Finding(
        "data.validation", "3,000 rows with 20,000 labels give 60,009,000 numbers",
        "at most 50,000,000 per evaluation: use fewer rows (data.validation_size) or fewer labels",
    )  # fmt: skip


def test_notes_on_many_rare_labels_are_a_line(tmp_path):
    rows = [{"text": f"text {i}", "label": f"label-{i % 3000}"} for i in range(6000)]
    given = workload("text-classification", build("bert", tmp_path / "bert"), rows, tmp_path)
    checked = check(Check(given))
    assert max(map(len, checked.notes)) < 5000
    assert any(note.endswith("and 2,990 more") for note in checked.notes)


# --- the head of a checkpoint --------------------------------------------------------------------------


def perfect_checkpoint(family: str, folder: Path, names: list[str], **changes: Any) -> tuple[Path, list[str]]:
    """A classifier of texts as `save_pretrained` writes it, and which of `names` it gives each of TEXTS."""
    import transformers

    from trainers.model.source import load_tokenizer
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
    assert "the model has a head for these labels: training starts from it" in found.notes
    base = load_base(given, found.labels)
    assert base.drawn_parameters == []
    assert base.model.config.id2label == {0: "neg", 1: "pos"}
    assert score_model(base, Path(found.tokens_dir), "cpu")[0]["accuracy"] == 1.0
    assert (capfd.readouterr().err, caplog.text) == ("", "")


HEADS = {
    "names-in-label2id-only": (
        {"label2id": {"pos": 0, "neg": 1}, "id2label": {0: "LABEL_0", 1: "LABEL_1"}}, str, "starts from it",
    ),
    "other-case": ({"id2label": {0: "POS", 1: "Neg"}}, str, "Neg is neg, POS is pos"),
    "numbers-of-nameless-rows": (
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {}}, lambda name: ["pos", "neg"].index(name),
        "starts from it",
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
    assert any(f"has a head for {len(names)} labels: " in note and "with a new head" in note for note in found.notes)
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
