"""Running text: held out as a stretch from its end, with nothing lost, and learned as it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.data.running_text import Text, cut_off_end
from trainers.data.sources import Row
from trainers.data.splits import Placed, drop_duplicates
from trainers.model.source import load_tokenizer
from trainers.tasks.causal_lm import CausalLM


def documents(*texts):
    return [Placed(Text(text), None, None, Row(f"f{i}.txt:1", {"text": text}, True)) for i, text in enumerate(texts)]


def text_of(rows):
    return "".join(row.example.text for row in rows)


@given(st.lists(st.text("ab \n", min_size=1), min_size=1, max_size=5), st.floats(0.01, 0.99))
def test_nothing_is_lost_and_order_is_kept(texts, share):
    rest, held = cut_off_end(documents(*texts), share)
    assert text_of([*rest, *held]) == "".join(texts)


@given(st.integers(2, 400), st.floats(0.05, 0.95))
def test_a_stretch_has_the_size_that_is_asked_for_to_a_line(lines, share):
    text = "a line\n" * lines
    _, held = cut_off_end(documents(text), share)
    assert abs(len(text_of(held)) - share * len(text)) <= len("a line\n")


def test_a_document_is_parted_at_the_end_of_a_line_and_its_second_part_knows_its_line():
    rest, held = cut_off_end(documents("one\ntwo\nthree\nfour\n"), 0.3)
    assert [(row.row.where, row.example) for row in rest] == [("f0.txt:1", Text("one\ntwo\nthree\n", is_whole=False))]
    assert [(row.row.where, row.example) for row in held] == [("f0.txt:4", Text("four\n"))]


def test_a_document_of_one_long_line_is_parted_between_words_where_its_end_is_wanted():
    rest, held = cut_off_end(documents("A title\n" + "word " * 200), 0.1)
    assert len(text_of(held)) == pytest.approx(0.1 * 1008, abs=5)
    assert text_of(rest).endswith("word ")


def test_a_size_from_one_on_counts_documents():
    rest, held = cut_off_end(documents("a", "b", "c"), 2)
    assert [len(rest), len(held)] == [1, 2]


def test_lines_that_come_twice_are_no_duplicates():
    rows = documents("the same\n", "the same\n")
    kept, dropped = drop_duplicates({"train": rows})
    assert kept["train"] == rows
    assert not dropped


@pytest.fixture
def tokenizer(tiny):
    return load_tokenizer(tiny / "chat")


def ids_of(tokenizer, *texts, max_length=1000):
    made = CausalLM().encode(tokenizer, list(texts), [], max_length)
    return [block.ids for many in made for block in many]


def test_a_document_ends_once_and_a_part_of_one_does_not(tokenizer):
    end, plain = tokenizer.eos_token_id, tokenizer("the film", add_special_tokens=False)["input_ids"]
    assert ids_of(tokenizer, Text("the film")) == [[*plain, end]]
    assert ids_of(tokenizer, Text("the film <|end|>")) == [[*plain, end]]
    assert ids_of(tokenizer, Text("the film", is_whole=False), Text("the film")) == [[*plain, *plain, end]]


def test_blocks_run_across_line_ends_and_documents(tokenizer):
    (first, second, third) = ids_of(tokenizer, Text("the film \n is"), Text("a story"), max_length=3)
    whole = tokenizer("the film \n is", add_special_tokens=False)["input_ids"]
    assert first + second + third == [
        *whole, tokenizer.eos_token_id, *tokenizer("a story", add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]  # fmt: skip
