"""Tags and spans as users bring them: read, learned, measured and released as they are meant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.commands.predict import answer_line
from tests.brought.labels import workload
from tests.conftest import write_jsonl
from tests.trainers.families import build, trained
from trainers.data.sources import DataProblem, Row, read_rows
from trainers.data.splits import Keyed
from trainers.export.promotion import export, measure_variant
from trainers.metrics.entities import entity_counts, entity_metrics
from trainers.model.load import load_base
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import METRICS, canonical_settings, default_settings
from trainers.protocol.catalog import TASKS as CATALOG
from trainers.protocol.events import Finding, PreparedData
from trainers.protocol.requests import Export, Inspect, Measure
from trainers.protocol.trial_spec import DataRef, SourceRef, TrialSpec, Workload
from trainers.runtime.release import Release
from trainers.runtime.words import first_tokens
from trainers.runtime.words import words_of as words_of_a_text
from trainers.tasks.table import TASKS
from trainers.tasks.tag_schemes import scheme_of
from trainers.tasks.words import joined

TASK = TASKS["token-classification"]
COLUMNS = CATALOG["token-classification"].columns


def settled(rows: list[dict[str, Any]], **data: Any) -> tuple[list[Any], list[str]]:
    """What becomes of training rows: each one's tags or finding, and the notes."""
    checked = [TASK.check(Row(f"f:{number}", row), COLUMNS) for number, row in enumerate(rows, 1)]
    ref = DataRef(SourceRef("/f"), None, None, dict(COLUMNS), 1, 1, 0, **data)
    how = TASK.settle([row for row in checked if isinstance(row, Keyed)], ref)
    final = [row if isinstance(row, Finding) else how.read(row, "f:1") for row in checked]
    return [row if isinstance(row, Finding) else list(row.example.tags) for row in final], how.notes


def tagged(*tags: Any) -> dict[str, Any]:
    return {"words": [f"w{i}" for i in range(len(tags))], "tags": list(tags)}


# --- schemes -------------------------------------------------------------------------------------------

SCHEMES = {
    "IOB2": (["B-X", "I-X", "O", "B-X"], ["B-X", "I-X", "O", "B-X"], ""),
    "IOB1": (["I-X", "I-X", "B-X", "O"], ["I-X", "I-X", "B-X", "O"], ""),
    "IO": (["I-X", "I-X", "O", "I-Y"], ["I-X", "I-X", "O", "I-Y"], ""),
    "IOBES": (["B-X", "E-X", "O", "S-Y"], ["B-X", "I-X", "O", "B-Y"], "tags are IOBES: they are learned"),
    "BILOU": (["B-X", "I-X", "L-X", "U-Y"], ["B-X", "I-X", "I-X", "B-Y"], "tags are BILOU: they are learned"),
    "BMES": (["B-X", "M-X", "E-X", "S-Y"], ["B-X", "I-X", "I-X", "B-Y"], "tags are BMES: they are learned"),
    "single-words-only": (["S-X", "O", "S-Y", "O"], ["B-X", "O", "B-Y", "O"], "tags are IOBES"),
    "parts-of-speech": (["DET", "-LRB-", "PRP$"], ["DET", "-LRB-", "PRP$"], "tags are plain (-LRB-, DET, PRP$)"),
    "names-without-prefix": (["PER", "PER", "O", "LOC"], ["PER", "PER", "O", "LOC"], "each word counts by itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", SCHEMES)
def test_tags_are_read_as_all_training_rows_together_say(case):
    given, learned, note = SCHEMES[case]
    half = len(given) // 2
    rows, notes = settled([tagged(*given[:half]), tagged(*given[half:])])
    assert rows == [learned[:half], learned[half:]]
    assert [note in one for one in notes] == ([True] if note else [])


def test_a_tag_without_a_prefix_among_entities_is_a_finding():
    rows, _ = settled([tagged("B-X", "O"), tagged("PER", "O")])
    assert rows[1] == Finding("f:1", "has the tag 'PER'", "expected O, B-NAME or I-NAME")


def test_numbers_for_tags_want_their_names():
    rows, _ = settled([tagged(0, 1), tagged(2, 0)])
    assert all(row.found == "has numbers for tags" and "data.label_names" in row.expected for row in rows)
    rows, _ = settled([tagged(0, 1), tagged(2, 7)], label_names=["O", "B-X", "I-X"])
    assert rows[0] == ["O", "B-X"]
    assert rows[1] == Finding("f:1", "has the tag '7'", "one of the 3 names of data.label_names, or its number from 0")


def test_one_tag_for_all_words_teaches_nothing():
    rows = [TASK.check(Row("f:1", tagged("NN", "NN")), COLUMNS)]
    assert [finding.found for finding in TASK.check_all(rows, "f")] == ["all words have the tag 'NN'"]


@pytest.mark.parametrize(
    ("words", "tags"),
    [
        ('["Ada", "wrote"]', '["B-P", "O"]'),
        ("['Ada', 'wrote']", "['B-P', 'O']"),
        ("['Ada' 'wrote']", "['B-P' 'O']"),
        ("Ada wrote", "B-P O"),
        ('["it\'s", "a \\"b\\""]', "['O', 'B-P']"),
    ],
)
def test_lists_in_cells_of_a_table_are_lists(words, tags):
    row = TASK.check(Row("f:1", {"words": words, "tags": tags}), COLUMNS)
    assert isinstance(row, Keyed)
    assert len(row.example.words) == 2
    assert set(row.example.tags) == {"B-P", "O"}


# --- words in running text -----------------------------------------------------------------------------


NAMES = ("pad_token", "bos_token", "eos_token")
SPECIAL = ["<pad>", "<s>", "</s>"]


def byte_level(folder: Path, prefix: bool = False) -> Any:
    """A BPE tokenizer like GPT-2's or RoBERTa's, trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ["the film is dull", "the café is warm and the plot is stale", "a film, a plot: the story"] * 9,
        trainers.BpeTrainer(
            vocab_size=330, special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        ),
    )  # fmt: skip
    if prefix:  # RoBERTa's
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        **dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True)),
    )
    fast.save_pretrained(folder)
    return fast


@pytest.mark.parametrize("like", ["gpt2", "roberta"])
def test_words_after_the_first_carry_their_blank(like, tmp_path):
    tokenizer = byte_level(tmp_path, prefix=like == "roberta")
    words = ["the", "film", "is", "a", "café", "(", "dull", "🙂", ")"]
    row = TASK.check(Row("f:1", {"words": words, "tags": ["O"] * 9}), COLUMNS)
    assert isinstance(row, Keyed)
    [[one]] = TASK.encode(tokenizer, [row.example], ["B-X", "O"], 64)
    assert one.ids == tokenizer("the film is a café ( dull 🙂 )")["input_ids"]
    carrying = [tokenizer.convert_ids_to_tokens(i) for i, target in zip(one.ids, one.targets, strict=True) if target]
    assert len(carrying) == len(words)
    assert carrying[:4] == ["the", "Ġfilm", "Ġis", "Ġa"]


def test_the_release_tags_the_same_tokens_as_training(tmp_path):
    tokenizer = byte_level(tmp_path, prefix=True)
    words = ["the", "café", "film", ",", "is", "🙂", "dull", "!"]
    text, places = joined(words)
    encoding = tokenizer.backend_tokenizer.encode(text)
    given = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert first_tokens(places, encoding.offsets) == first_tokens(places, given)
    assert words_of_a_text(json.dumps(words)) == (text, list(places))


@pytest.mark.parametrize(
    ("places", "tokens", "expected"),
    [
        ([(0, 3), (4, 8)], [(0, 0), (0, 3), (3, 8), (0, 0)], {0: 1, 1: 2}),  # a blank in front
        ([(0, 3), (4, 8)], [(0, 3), (3, 4), (4, 6), (6, 8)], {0: 0, 1: 2}),  # a blank of its own
        ([(0, 1), (1, 2)], [(0, 2)], {0: 0}),  # one token for two words
        ([(0, 1), (1, 3)], [(0, 2), (2, 3)], {0: 0, 1: 1}),  # what is left of the second word
        ([(0, 2), (3, 5), (6, 8)], [(0, 2)], {0: 0}),  # cut off
        ([(0, 2), (3, 5)], [(0, 2), (0, 2), (3, 5)], {0: 0, 1: 2}),  # bytes of one character
        ([(0, 2), (3, 5)], [(3, 5)], {1: 0}),  # characters that the tokenizer leaves out
        ([], [(0, 2)], {}),
    ],
)
def test_the_first_token_of_a_word(places, tokens, expected):
    assert first_tokens(places, tokens) == expected


# --- plain tags from data to release -------------------------------------------------------------------

KINDS = {"the": "DET", "a": "DET", "film": "NOUN", "plot": "NOUN", "is": "VERB", "was": "VERB", "warm": "ADJ",
         "dull": "ADJ", "stale": "ADJ"}  # fmt: skip


def sentences(count: int) -> list[dict[str, Any]]:
    names = list(KINDS)
    rows = [[names[(i * step + i // 9) % 9] for step in range(1, 8)] for i in range(count)]
    return [{"words": [*words, *str(i)], "tags": [*(KINDS[w] for w in words), *["NUM"] * len(str(i))]}
            for i, words in enumerate(rows)]  # fmt: skip


def spec_of(given: Workload, folder: Path) -> TrialSpec:
    chosen = {
        **default_settings(given.task, "lora"), "learning_rate": 1e-2, "batch_size": 8, "evaluations": 2,
    }  # fmt: skip
    metric = CATALOG[given.task].metrics[0]
    return TrialSpec(
        0, given, "lora", canonical_settings("lora", chosen), metric, METRICS[metric].direction, 480, 480, 0, "i", 1,
        ("cpu",), str(folder / "trial"),
    )  # fmt: skip


def released(given: Workload, found: PreparedData, folder: Path) -> tuple[Any, Any, Release]:
    spec = spec_of(given, folder)
    trained(spec, found)
    exported = export(load_base(given, found.labels), Export(spec, found, ["fp32"], str(folder / "release")))
    rows = Path(found.tokens_dir, "validation.jsonl")
    measured = measure_variant(Measure("fp32", str(folder / "release"), str(rows), 1))
    return exported, measured, Release.load(folder / "release" / "fp32", 1)


def test_parts_of_speech_are_learned_measured_and_released(tmp_path):
    given = workload("token-classification", build("bert", tmp_path / "bert"), sentences(90), tmp_path)
    found = inspect(Inspect(given))
    assert found.labels == ["ADJ", "DET", "NOUN", "NUM", "VERB"]
    assert any("tags are plain (ADJ, DET, NOUN, NUM, VERB)" in note for note in found.notes)
    exported, measured, release = released(given, found, tmp_path)
    metrics = exported.metrics
    assert metrics["entity_f1"] == pytest.approx(metrics["token_accuracy"])
    assert metrics["token_accuracy"] > 0.7
    assert metrics["f1_macro"] == pytest.approx(sum(metrics[f"f1/{tag}"] for tag in found.labels) / 5)
    assert set(measured.metrics) == set(metrics)
    assert measured.max_logit_diff < 1e-4
    for name, value in metrics.items():
        assert measured.metrics[name] == pytest.approx(value, abs=1e-3), name
    [answer] = release.predict(["the film is warm"])
    assert list(answer) == ["tags"]
    assert [(word["text"], word["start"], word["end"]) for word in answer["tags"]] == [
        ("the", 0, 3), ("film", 4, 8), ("is", 9, 11), ("warm", 12, 16),
    ]  # fmt: skip
    assert all(word["tag"] in found.labels and 0 < word["score"] <= 1 for word in answer["tags"])
    assert answer_line(answer).split()[0] == f"the/{answer['tags'][0]['tag']}"
    rows = [json.loads(line) for line in Path(found.tokens_dir, "validation.jsonl").read_text().splitlines()]
    answers = release.predict([row["words"] for row in rows])
    hits = [word["tag"] == tag for a, row in zip(answers, rows, strict=True)
            for word, tag in zip(a["tags"], row["tags"], strict=True)]  # fmt: skip
    assert sum(hits) / len(hits) == pytest.approx(metrics["token_accuracy"])


def test_f1_of_each_tag_is_that_of_scikit_learn():
    import numpy as np
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    rows = np.sort(rng.integers(0, 20, 200))
    got = entity_metrics(entity_counts(rows, true, predicted, np.ones(200), [*"ABCD"], 20), [*"ABCD"])
    assert [got[f"f1/{tag}"] for tag in "ABCD"] == pytest.approx(f1_score(true, predicted, average=None))
    assert got["f1_macro"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert got["entity_f1"] == got["entity_precision"] == pytest.approx((true == predicted).mean())


# --- spans of the usual tools --------------------------------------------------------------------------

TEXT = "Ada Lovelace wrote to Babbage."
TAGS = ["B-PER", "I-PER", "O", "O", "B-PER", "O"]
EXPORTS = {
    "ours": {
        "text": TEXT,
        "entities": [{"start": 0, "end": 12, "label": "PER"}, {"start": 22, "end": 29, "label": "PER"}],
    },
    "spacy": {"text": TEXT, "entities": [[0, 12, "PER"], [22, 29, "PER"]]},
    "doccano": {"id": 1, "text": TEXT, "label": [[0, 12, "PER"], [22, 29, "PER"]]},
    "doccano-relations": {
        "text": TEXT, "relations": [],
        "entities": [{"id": 1, "label": "PER", "start_offset": 0, "end_offset": 12},
                     {"id": 2, "label": "PER", "start_offset": 22, "end_offset": 29}],
    },
    "label-studio-min": {
        "text": TEXT, "annotator": 1,
        "label": [{"start": 0, "end": 12, "text": "Ada Lovelace", "labels": ["PER"]},
                  {"start": 22, "end": 29, "text": "Babbage", "labels": ["PER"]}],
    },
    "label-studio": {
        "id": 1, "data": {"text": TEXT},
        "annotations": [
            {"was_cancelled": True, "result": []},
            {"result": [
                {"type": "labels", "value": {"start": 22, "end": 29, "text": "Babbage", "labels": ["PER"]}},
                {"type": "labels", "value": {"start": 0, "end": 12, "text": "Ada Lovelace", "labels": ["PER"]}},
                {"type": "relation", "from_id": "a", "to_id": "b"},
                {"type": "choices", "value": {"choices": ["letter"]}},
            ]},
        ],
    },
    "prodigy": {
        "text": TEXT, "tokens": [],
        "spans": [{"start": 0, "end": 12, "token_start": 0, "label": "PER"}, {"start": 22, "end": 29, "label": "PER"}],
    },
    "blanks-at-the-ends": {"text": TEXT, "entities": [[0, 13, "PER"], [21, 29, "PER"]]},
    "twice-the-same": {"text": TEXT, "entities": [[0, 12, "PER"], [0, 12, "PER"], [22, 29, "PER"]]},
    "in-a-cell": {"text": TEXT, "entities": "[(0, 12, 'PER'), (22, 29, 'PER')]"},
}  # fmt: skip


@pytest.mark.parametrize("tool", EXPORTS)
def test_spans_are_read_as_the_tool_writes_them(tool):
    row = TASK.check(Row("f:1", EXPORTS[tool]), COLUMNS)
    assert isinstance(row, Keyed), row
    assert row.example.words == ("Ada", "Lovelace", "wrote", "to", "Babbage", ".")
    assert list(row.example.tags) == TAGS


def from_label_studio(start: int, end: int, said: str, *labels: str) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "text": said, "labels": list(labels)}]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"text": "🙂 Ada", "label": from_label_studio(3, 6, "Ada", "P")}, "the tool counts UTF-16 units, as"),
        (
            {"text": "🙂 Ada wrote", "label": from_label_studio(3, 6, "Ada", "P")},
            "entity 'Ada' is not at 3 to 6, where the text has 'da ': the tool counts UTF-16 units",
        ),
        ({"text": "é Ada wrote", "label": from_label_studio(3, 6, "Ada", "P")}, "the tool counts bytes instead of"),
        ({"text": "x Ada", "label": from_label_studio(2, 4, "Ada", "P")}, "gives the last character as end"),
        ({"text": "x Ada", "label": from_label_studio(0, 2, "y", "P")}, "is not at 0 to 2, where the text has 'x '"),
        ({"text": "x Ada", "label": from_label_studio(2, 5, "Ada", "P", "Q")}, "has 2 labels; a word can have"),
        ({"text": "x Ada", "entities": [[0, 9, "P"]]}, "entity 'P' runs from 0 to 9 in a text of 5 characters"),
        ({"text": "x Ada", "entities": [[-3, 5, "P"]]}, "entity 'P' runs from -3 to 5 in a text of 5 characters"),
        ({"text": "x Ada", "entities": [[0, 3, "P"], [2, 5, "Q"]]}, "entities 'P' and 'Q' overlap at character 2"),
        (
            {"text": "x Ada", "entities": [[2, 5, label] for label in "XPYQZ"]},
            "entities 'X' and 'P' overlap at character 2",  # in the order of the data
        ),
        ({"text": "x   Ada", "entities": [[2, 4, "P"]]}, "entity 'P' from 2 to 4 contains no word"),
        ({"text": "x Ada", "entities": None}, "entities is None"),
        ({"data": {"text": "x"}, "annotations": [{"was_cancelled": True, "result": []}]}, "entities is None"),
        ({"text": "x Ada", "label": "P"}, "has no column 'entities' for data.entities"),
    ],
)  # fmt: skip
def test_spans_that_cannot_be_meant_say_why(row, found):
    finding = TASK.check(Row("f:9", row), COLUMNS)
    assert isinstance(finding, Finding)
    assert found in finding.found


def test_training_data_of_spacy_is_a_list_of_pairs(tmp_path):
    file = tmp_path / "train.json"
    file.write_text(json.dumps([[TEXT, {"entities": [[0, 12, "PER"], [22, 29, "PER"]]}]]))
    [row] = read_rows(SourceRef(str(file)), "train", [])
    checked = TASK.check(row, COLUMNS)
    assert isinstance(checked, Keyed)
    assert list(checked.example.tags) == TAGS


def test_a_span_dataset_keeps_its_own_text_for_the_release(tmp_path):
    rows = [{"text": f"the film,  {name} {i} is dull", "entities": [[11, 11 + len(name), "NAME"]]}
            for i, name in enumerate(["warm", "funny", "stale"] * 20)]  # fmt: skip
    given = workload("token-classification", build("bert", tmp_path / "bert"), rows, tmp_path)
    found = inspect(Inspect(given))
    exported, measured, release = released(given, found, tmp_path)
    assert measured.metrics["entity_f1"] == pytest.approx(exported.metrics["entity_f1"], abs=1e-3)
    [answer] = release.predict([rows[0]["text"]])
    assert all(rows[0]["text"][e["start"] : e["end"]] == e["text"] for e in answer["entities"])


def test_the_schemes_of_other_splits_are_those_of_training(tmp_path):
    """A sentence of single-word entities in validation is no scheme of its own."""
    rows = [{"words": [f"w{i}", "film"], "tags": ["B-X", "E-X"] if i % 2 else ["S-X", "O"]} for i in range(40)]
    given = workload("token-classification", build("bert", tmp_path / "bert"), rows, tmp_path)
    other = write_jsonl(tmp_path / "v.jsonl", [{"words": ["a", "b"], "tags": ["S-X", "O"]},
                                               {"words": ["b"], "tags": ["NN"]}])  # fmt: skip
    given = replace(given, data=replace(given.data, validation=SourceRef(str(other))))
    with pytest.raises(DataProblem) as problem:
        inspect(Inspect(given))
    assert [(f.where, f.found) for f in problem.value.findings] == [(f"{other}:2", "has the tag 'NN'")]


def test_a_scheme_is_found_from_a_set_of_tags():
    assert scheme_of({"O"}).name == ""
    assert scheme_of({"E-mail", "NOUN"}).name == ""
    assert scheme_of({"B-X", "U-X", "S-X"}).name == "entities"
