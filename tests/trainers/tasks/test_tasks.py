"""What each task reads of a row, what it learns of it, and what it refuses."""

from __future__ import annotations

import pytest

from trainers.data.running_text import Text
from trainers.data.sources import DataProblem, Row
from trainers.data.splits import Keyed
from trainers.model.source import load_tokenizer
from trainers.protocol.events import Finding
from trainers.tasks.instruct import parse_template
from trainers.tasks.spans import places_and_tags
from trainers.tasks.table import TASKS


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return load_tokenizer(tiny / "chat")


def check(task, columns=None, **values):
    from trainers.protocol.catalog import TASKS as CATALOG

    return TASKS[task].check(Row("f:3", values), {**CATALOG[task].columns, **(columns or {})})


@pytest.mark.parametrize(
    ("task", "values", "found"),
    [
        ("text-classification", {"label": "a"}, "has no column 'text' for data.text"),
        ("text-classification", {"text": "a"}, "has no column 'label' for data.label"),
        ("text-classification", {"text": " ", "label": "a"}, "text is ' '"),
        ("text-classification", {"text": "a", "label": None}, "label is None"),
        ("text-classification", {"text": "a", "label": float("nan")}, "label is nan"),
        ("multi-label-classification", {"text": "a", "labels": 3}, "labels is 3"),
        ("multi-label-classification", {"text": "a", "labels": ["x", ""]}, "labels is ''"),
        ("multi-label-classification", {"text": "a", "labels": '["\\ud83d"]'}, "labels is '["),
        ("token-classification", {"words": '["a\\ud83d"]', "tags": "O"}, "words is '["),
        ("token-classification", {"words": "['a\\ud83d']", "tags": "O"}, 'words is "['),
        ("regression", {"text": "a", "value": "much"}, "value is 'much'"),
        ("regression", {"text": "a", "value": float("nan")}, "value is nan"),
        ("regression", {"text": "a", "value": None}, "value is None"),
        ("token-classification", {}, "has no column 'words' for data.words"),
        ("token-classification", {"words": ["a"], "tags": []}, "tags is []"),
        ("token-classification", {"words": ["a"], "tags": ["O", "O"]}, "has 1 word and 2 tags"),
        ("token-classification", {"words": ["a"], "tags": [None]}, "tags is [None]"),
        ("token-classification", {"text": "a", "entities": [{"start": 0, "end": 2, "label": "X"}]}, "runs from 0 to 2"),
        ("causal-lm", {"text": ""}, "text is ''"),
        ("instruct", {"input": "a"}, "has no column 'output'"),
        ("chat", {"messages": "hello"}, "messages is not a list"),
        ("text-to-text", {"input": "a"}, "has no column 'output' for data.output"),
    ],
)
def test_a_row_that_is_no_example_is_a_finding_with_its_line(task, values, found):
    finding = check(task, **values)
    assert isinstance(finding, Finding)
    assert finding.where == "f:3"
    assert found in finding.found


def test_a_pair_of_texts_is_read_where_its_column_is_named():
    alone = check("text-classification", text="a", label="x", other="b")
    paired = check("text-classification", {"text_pair": "other"}, text="a", label="x", other="b")
    assert (alone.key, paired.key) == ("a", ("a", "b"))
    assert isinstance(check("text-classification", {"text_pair": "other"}, text="a", label="x"), Finding)


def test_whole_numbers_are_labels_and_text_between_commas_is_several():
    assert check("text-classification", text="a", label=3).example.label == "3"
    assert check("multi-label-classification", text="a", labels="x, y").example.labels == ("x", "y")
    assert check("multi-label-classification", text="a", labels=[]).example.labels == ()
    assert check("regression", text="a", value="1.5").example.value == 1.5


def test_an_instruction_learns_its_answer_and_when_to_stop(tokenizer):
    columns = {"text_template": "what is {input} it is {output}"}
    row = check("instruct", columns, input="warm", output="funny plot")
    [[encoded]] = TASKS["instruct"].encode(tokenizer, [row.example], [], 32)
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids)
    learned = [token for token, counts in zip(tokens, encoded.targets, strict=True) if counts]
    assert tokens == ["what", "is", "warm", "it", "is", "funny", "plot", "<|end|>"]
    assert learned == ["funny", "plot", "<|end|>"]
    assert encoded.target_bytes == len("funny plot")


def test_the_answer_may_be_another_column_and_the_rest_is_learned_with_it(tokenizer):
    columns = {"text_template": "{output} is {input}", "answer": "output"}
    row = check("instruct", columns, input="warm", output="plot")
    [[encoded]] = TASKS["instruct"].encode(tokenizer, [row.example], [], 32)
    assert row.example.prompt == ""
    assert list(encoded.targets) == [1, 1, 1, 1]


@pytest.mark.parametrize("template", ["no columns", "{", "{a.b}", "{a[0]}", "{a!r}", "{a:>3}", "{}"])
def test_a_template_holds_plain_column_names_only(template):
    with pytest.raises(DataProblem, match=r"data\.text_template"):
        parse_template(template)


def test_plain_text_is_cut_into_blocks_and_no_token_is_lost(tokenizer):
    texts = ["a film", "the plot is warm", "it"]
    blocks = TASKS["causal-lm"].encode(tokenizer, [Text(text) for text in texts], [], 4)
    ids = [i for made in blocks for one in made for i in one.ids]
    whole = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts]
    assert ids == [i for text in whole for i in text]
    assert [len(one.ids) for made in blocks for one in made] == [4, 4, 2]
    assert len(blocks) == len(texts)


@pytest.mark.parametrize(
    ("text", "entities", "expected"),
    [
        (
            "Ada Lovelace wrote.",
            [(0, 12, "PER")],
            [("Ada", "B-PER"), ("Lovelace", "I-PER"), ("wrote", "O"), (".", "O")],
        ),
        ("xAday", [(1, 4, "PER")], [("x", "O"), ("Ada", "B-PER"), ("y", "O")]),
        ("a b", [(2, 3, "X"), (0, 1, "Y")], [("a", "B-Y"), ("b", "B-X")]),
        (
            "हिन्दी e\u0301",
            [(0, 6, "X")],
            [("हिन्दी", "B-X"), ("e\u0301", "O")],
        ),
    ],
)
def test_spans_become_tags(text, entities, expected):
    spans = [{"start": start, "end": end, "label": label} for start, end, label in entities]
    places, tags = places_and_tags(text, spans)
    words = [text[start:end] for start, end in places]
    assert list(zip(words, tags, strict=True)) == expected


@pytest.mark.parametrize(
    ("entities", "found"),
    [
        ("x", "entities is 'x'"),
        ([{"start": 0, "end": 1}], "has no label"),
        ([{"start": 0, "end": True, "label": "X"}], "has no start and end"),
        ([{"start": 2, "end": 2, "label": "X"}], "runs from 2 to 2"),
        ([{"start": 0, "end": 3, "label": "X"}, {"start": 2, "end": 4, "label": "Y"}], "overlap at character 2"),
    ],
)
def test_spans_that_cannot_be_are_told(entities, found):
    assert found in places_and_tags("some text", entities)


def test_every_task_of_the_catalog_is_built():
    from trainers.model.methods.table import METHODS as BUILT
    from trainers.protocol.catalog import METHODS
    from trainers.protocol.catalog import TASKS as CATALOG

    assert set(TASKS) == set(CATALOG)
    assert set(BUILT) == set(METHODS)
    assert isinstance(check("causal-lm", text="a"), Keyed)
