"""Cheap dropout is dropout: as often, as much, only while training, and repeatable."""

from __future__ import annotations

import pytest
import torch

from trainers.fast.dropout import CheapDropout, keep_mask, make_dropout_cheap


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5, 0.9])
def test_elements_are_dropped_as_often_as_asked_and_the_rest_scaled(probability):
    torch.manual_seed(0)
    dropped = CheapDropout(probability)(torch.ones(400, 1001))
    zeros = float((dropped == 0).double().mean())
    assert zeros == pytest.approx(probability, abs=4 * (probability * (1 - probability) / dropped.numel()) ** 0.5)
    assert float(dropped[dropped > 0].mean()) == pytest.approx(1 / (1 - probability), rel=1e-4)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("probability", [1e-9, 1 - 1e-9])
def test_a_probability_next_to_none_or_all_is_one_of_65536(probability):
    kept = keep_mask(torch.Size([1 << 20]), probability).double()
    assert float((kept.mean() - (1 - probability)).abs()) == pytest.approx(1 / 65536, rel=1)
    assert CheapDropout(probability)(torch.ones(100)).isfinite().all()


def test_neighbours_are_independent():
    """Four elements share a draw of 64 bits."""
    torch.manual_seed(0)
    kept = keep_mask(torch.Size([100_000, 4]), 0.5).double()
    correlation = torch.corrcoef(kept.T)
    assert float((correlation - torch.eye(4)).abs().max()) < 0.02


def test_the_same_seed_drops_the_same_elements():
    outcomes = []
    for _ in range(2):
        torch.manual_seed(3)
        outcomes.append(CheapDropout(0.3)(torch.ones(7, 5)))
    torch.testing.assert_close(*outcomes, rtol=0, atol=0)


def test_gradients_are_dropped_with_their_elements():
    x = torch.ones(64, 64, requires_grad=True)
    y = CheapDropout(0.5)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach(), rtol=0, atol=0)


def test_nothing_is_dropped_in_evaluation_or_without_a_probability():
    x = torch.ones(50, 50)
    assert torch.equal(CheapDropout(0.5).eval()(x), x)
    assert torch.equal(CheapDropout(0.0)(x), x)
    assert not CheapDropout(1.0)(x).any()


def test_every_dropout_of_a_model_is_replaced():
    model = torch.nn.ModuleDict(
        {"a": torch.nn.Dropout(0.2), "b": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.4))}
    )
    make_dropout_cheap(model)
    found = {name: module.p for name, module in model.named_modules() if isinstance(module, CheapDropout)}
    assert found == {"a": 0.2, "b.1": 0.4}
