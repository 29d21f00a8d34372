"""Attention of rows in a line: the same as of each row alone, with dropout and without."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from trainers.fast import varlen_attention as row_attention
from trainers.fast.dropout import dropout_factors
from trainers.fast.enter import make_fast
from trainers.fast.varlen_attention import DroppingAttention, attend_rows, runs

LENGTHS = [3, 5, 5, 2]
HEADS, WIDTH = 2, 4


def lines(count=3):
    torch.manual_seed(0)
    made = torch.randn(count, 1, HEADS, sum(LENGTHS), WIDTH)
    return [line.clone().requires_grad_() for line in made]


class Everywhere(torch.nn.Module):
    is_causal = False


class Backwards(torch.nn.Module):
    is_causal = True


def test_rows_of_one_length_side_by_side_are_one_run():
    assert list(runs([3, 5, 5, 2, 5])) == [(1, 3), (2, 5), (1, 2), (1, 5)]


@pytest.mark.parametrize("module", [Everywhere(), Backwards()])
def test_each_row_is_attended_alone(module, monkeypatch):
    query, key, value = lines()
    alone = [
        sdpa_attention_forward(module, q, k, v, None)[0]
        for q, k, v in zip(*(line.split(LENGTHS, dim=2) for line in (query, key, value)), strict=True)
    ]
    shapes = []
    monkeypatch.setattr(
        row_attention, "sdpa_attention_forward",
        lambda module, query, *rest, **options: shapes.append(tuple(query.shape))
        or sdpa_attention_forward(module, query, *rest, **options),
    )  # fmt: skip
    got = attend_rows(module, query, key, value, LENGTHS, None)
    torch.testing.assert_close(got, torch.cat(alone, dim=1))
    assert shapes == [(1, HEADS, 3, WIDTH), (2, HEADS, 5, WIDTH), (1, HEADS, 2, WIDTH)]


def plainly(query, key, value, probability, scaling):
    """The same with autograd, row by row, from the same draws."""
    sizes = [HEADS * length * length for length in LENGTHS]
    factors = dropout_factors(torch.Size([sum(sizes)]), probability).split(sizes)
    attended, start = [], 0
    for length, row_factors in zip(LENGTHS, factors, strict=True):
        q, k, v = (line[0, :, start : start + length] for line in (query, key, value))
        weights = torch.softmax(scaling * q @ k.transpose(1, 2), dim=-1)
        attended.append(weights * row_factors.view(HEADS, length, length) @ v)
        start += length
    return torch.cat(attended, dim=1)[None]


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_values_and_gradients_with_dropout_are_those_of_autograd(probability):
    ours, theirs, cotangent = lines(), lines(), lines(4)[3].detach()
    torch.manual_seed(1)
    got = DroppingAttention.apply(*ours, LENGTHS, probability, 0.5)
    torch.manual_seed(1)
    expected = plainly(*theirs, probability, 0.5)
    torch.testing.assert_close(got, expected)
    (got * cotangent).sum().backward()
    (expected * cotangent).sum().backward()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)


def test_dropout_keeps_the_expectation():
    query, key, value = (line.detach() for line in lines())
    module = Everywhere()
    drawn = [attend_rows(module, query, key, value, LENGTHS, None, dropout=0.2) for _ in range(4000)]
    mean = torch.stack(drawn).mean(0)
    torch.testing.assert_close(mean, attend_rows(module, query, key, value, LENGTHS, None), atol=0.06, rtol=0.05)


@pytest.mark.parametrize(("model", "drops"), [("bert", True), ("gpt2", False)])
def test_only_models_that_see_everywhere_drop_here(model, drops, monkeypatch):
    small = {"vocab_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8}
    kinds = {"bert": (BertModel, BertConfig), "gpt2": (GPT2Model, GPT2Config)}
    made = kinds[model][0](kinds[model][1](**small)).eval()
    assert make_fast(made, {}).used == ["cheap dropout", "layers without padding", "attention by row"]
    made.train()
    calls = []
    real = DroppingAttention.apply
    monkeypatch.setattr(DroppingAttention, "apply", lambda *given: calls.append(given) or real(*given))
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    made(input_ids=ids, attention_mask=(ids > 0).long())
    assert bool(calls) == drops
