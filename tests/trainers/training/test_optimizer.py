"""Optimizers: what they do to LoRA's B, which begins at zero."""

from __future__ import annotations

import pytest
import torch

from trainers.training.optimizer import make_optimizer


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "adamw_bnb_8bit", "lion_32bit"])
def test_the_first_step_from_zero_is_as_large_as_the_learning_rate(make_spec, optim):
    spec = make_spec("encoder", optim=optim, learning_rate=1e-2)
    parameter = torch.nn.Parameter(torch.zeros(4, 8))
    parameter.grad = torch.ones(4, 8)
    make_optimizer(spec, [parameter]).step()
    torch.testing.assert_close(parameter.detach(), torch.full((4, 8), -1e-2), rtol=1e-3, atol=0)
