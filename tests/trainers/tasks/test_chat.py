"""Chat rows: what the model sees, and which of it counts."""

from __future__ import annotations

import pytest
import torch

from trainers.data.sources import Row
from trainers.data.splits import Keyed
from trainers.model.load import load_base
from trainers.model.source import load_tokenizer
from trainers.protocol.events import Finding
from trainers.tasks.base import Batch
from trainers.tasks.chat import Chat
from trainers.tasks.conversations import Conversation
from trainers.tasks.next_token import causal_logits

MESSAGES = [
    {"role": "system", "content": "it is a film"},
    {"role": "user", "content": "what is warm"},
    {"role": "assistant", "content": "it is funny"},
    {"role": "user", "content": "what is dull"},
    {"role": "assistant", "content": "the plot"},
]


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return load_tokenizer(tiny / "chat")


def conversation(messages):
    return Conversation(messages, (1,) * len(messages), "f:1")


def test_a_turn_of_weight_0_is_read_but_not_learned(tokenizer):
    weighted = [{**message, "weight": int(i == 4)} for i, message in enumerate(MESSAGES)]
    example = Chat().check(Row("f:1", {"messages": weighted}), {"messages": "messages"}).example
    [[encoded]] = Chat().encode(tokenizer, [example], [], 64)
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids)
    said = [token for token, counts in zip(tokens, encoded.targets, strict=True) if counts]
    assert said == ["the", "plot", "<|end|>"]
    assert encoded.ids == tokenizer.apply_chat_template(MESSAGES, tokenize=True)["input_ids"]


def test_only_what_the_assistant_says_and_its_end_of_turn_count(tokenizer):
    [[encoded]] = Chat().encode(tokenizer, [conversation(MESSAGES)], [], 64)
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids)
    said = [token for token, counts in zip(tokens, encoded.targets, strict=True) if counts]
    assert said == ["it", "is", "funny", "<|end|>", "the", "plot", "<|end|>"]
    whole = tokenizer.apply_chat_template(MESSAGES, tokenize=True)["input_ids"]
    assert encoded.ids == whole


def test_what_ends_a_turn_is_found_however_turns_are_written(tokenizer):
    """Spaces around the words, and a turn that spells another one's end: to this tokenizer those are unknown words."""
    turns = ["it is funny", "it is  ", "the plot<|end|>", "funny<|end|>\n<|user|>what", "the plot"]
    messages = [
        m for said in turns for m in ({"role": "user", "content": "what"}, {"role": "assistant", "content": said})
    ]
    [[encoded]] = Chat().encode(tokenizer, [conversation(messages)], [], 128)
    said, learned = [], False
    for token, counts in zip(tokenizer.convert_ids_to_tokens(encoded.ids), encoded.targets, strict=True):
        if counts and not learned:
            said.append([])
        if counts:
            said[-1].append(token)
        learned = bool(counts)
    assert said == [
        ["it", "is", "funny", "<|end|>"], ["it", "is", "<|end|>"], ["the", "<unk>", "<unk>", "<|end|>"],
        ["<unk>", "<unk>", "<unk>", "<|end|>"], ["the", "plot", "<|end|>"],
    ]  # fmt: skip


def test_a_long_conversation_is_cut_as_if_all_of_it_had_been_rendered(tokenizer):
    long = [*MESSAGES[1:]] * 40
    [[cut]] = Chat().encode(tokenizer, [conversation(long)], [], 30)
    assert cut.ids == tokenizer.apply_chat_template(long, tokenize=True)["input_ids"][:30]
    assert len(cut.targets) == 30


THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if loop.last and m.role == 'assistant' %} film {% endif %} {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Writes the last turn unlike the others, as Qwen3's does with thoughts."""


def test_rows_of_one_conversation_name_it(tokenizer):
    import copy

    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = THINKING
    first, second = conversation(MESSAGES), conversation(MESSAGES[:3])
    encoded = Chat().encode(thinking, [first, second], [], 64)
    assert [len(rows) for rows in encoded] == [2, 1]
    named = [
        {Chat().measure_row(example, row, [])["conversation"] for row in rows}
        for example, rows in zip((first, second), encoded, strict=True)
    ]
    assert named == [{first.digest}, {second.digest}]
    assert first.digest != second.digest


def test_a_row_whose_answer_is_cut_away_is_dropped(tokenizer):
    long_question = [{"role": "user", "content": "film " * 50}, {"role": "assistant", "content": "it"}]
    assert Chat().encode(tokenizer, [conversation(long_question)], [], 16) == [[]]


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    import copy

    rewriting = copy.deepcopy(tokenizer)
    rewriting.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    (finding,) = Chat().encode(rewriting, [conversation(MESSAGES)], [], 64)
    assert (finding.where, "rewrites earlier turns" in finding.found) == ("f:1", True)


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        (None, "not a list"),
        ([], "not a list"),
        ([{"role": "bot", "content": "x"}], "the role 'bot'"),
        ([{"role": "user"}], "turn 1 has no text content"),
        (MESSAGES[:2], "the last turn is the user's"),
        ([{"role": "assistant", "content": "x", "weight": 2}], "turn 1 has the weight 2"),
        ('[{"role": "user", "content": "\\ud83d"}]', "half a character"),
    ],
)
def test_rows_that_are_no_conversation_are_findings(messages, found):
    finding = Chat().check(Row("f:3", {"messages": messages}), {"messages": "messages"})
    assert isinstance(finding, Finding)
    assert finding.where == "f:3"
    assert found in finding.found


def test_a_good_row_is_an_example():
    assert isinstance(Chat().check(Row("f:1", {"messages": MESSAGES}), {"messages": "messages"}), Keyed)


def test_logits_at_targets_are_those_of_the_full_forward_pass(workload):
    base = load_base(workload("chat"), [])
    torch.manual_seed(0)
    ids = torch.randint(3, 20, (3, 9))
    targets = torch.randint(0, 2, (3, 9))
    mask = torch.ones_like(ids)
    mask[2, 6:] = targets[2, 6:] = 0
    with torch.no_grad():
        [(logits, wanted, rows)] = causal_logits(base.model, Batch(ids, mask, targets, None, torch.zeros(3)), 100)
        full = base.model(input_ids=ids, attention_mask=mask).logits
    assert base.model._hpo_head_is_plain
    expected = [(row, full[row, i - 1], ids[row, i]) for row in range(3) for i in range(1, 9) if targets[row, i]]
    assert rows.tolist() == [row for row, _, _ in expected]
    assert wanted.tolist() == [int(target) for _, _, target in expected]
    torch.testing.assert_close(logits, torch.stack([row for _, row, _ in expected]))
