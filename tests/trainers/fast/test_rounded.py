"""Frozen layers in bf16: gradients within bf16's resolution, and trials that follow those in float32."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainers.fast import rounded
from trainers.fast.enter import ROUNDED, SHORTCUTS, notes
from trainers.fast.rounded import RoundedLinear, RoundedLora, keep_rounded
from trainers.fast.shortcut import Unknown
from trainers.model.load import load_base, merge
from trainers.protocol.files import TrialPaths
from trainers.training.trainer import Trainer
from trainers.training.try_out import refused_for_base

RESOLUTION = 2.0**-8
"""Of bf16: 8 bits with the leading one."""


@pytest.fixture
def made(make_spec, inspection):
    """A trial's trainer in a precision; nothing drops."""

    def make(kind="encoder", precision="bf16", base=None, **settings):
        spec = make_spec(kind, **{"warmup_ratio": 0.0, "learning_rate": 1e-3, **settings})
        spec = replace(spec, workload=replace(spec.workload, precision=precision))
        base = base or load_base(spec.workload, inspection(kind).labels)
        for module in base.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return Trainer(base, spec, Path(inspection(kind).tokens_dir))

    return make


def counted(model, kind):
    return sum(type(module) is kind for module in model.modules())


@pytest.mark.parametrize("shape", [(3, 7, 64), (41, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_s_values_and_gradients_are_float32_s_within_bf16_s_resolution(shape, bias):
    torch.manual_seed(0)
    weight, up, down = torch.randn(96, 64) / 8, torch.randn(96, 4), torch.randn(4, 64) / 8
    given, cotangent = torch.randn(shape), torch.randn(*shape[:-1], 96)
    offset = torch.randn(96) if bias else None
    outcomes = []
    for way in ("ours", "plain"):
        x, u, d = (part.clone().requires_grad_() for part in (given, up, down))
        if way == "ours":
            y = rounded._RoundedLora.apply(x, weight.bfloat16(), offset, d, u, 0.5)
        else:
            y = torch.nn.functional.linear(x, weight, offset) + 0.5 * (x @ d.T @ u.T)
        assert y.dtype == torch.float32
        outcomes.append([y.detach(), *torch.autograd.grad(y, (x, u, d), cotangent)])
    for ours, plain in zip(*outcomes, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - plain).norm() / plain.norm()) < 2 * RESOLUTION


def test_products_have_few_shapes_whatever_the_number_of_tokens():
    """Between a power of two and the next there are 16, none is more than a sixteenth or 15 rows too large."""
    assert [rounded.rounded_up(count) for count in (0, 1, 16, 17, 512, 513)] == [0, 16, 16, 32, 512, 544]
    for count in range(1, 5_000):
        assert count <= rounded.rounded_up(count) <= count + max(15, count / 16)
    assert len({rounded.rounded_up(count) for count in range(2_049, 4_097)}) == 16


def test_rows_that_round_a_shape_up_change_nothing():
    torch.manual_seed(0)
    weight, up, down = torch.randn(96, 64).bfloat16(), torch.randn(96, 4), torch.randn(4, 64)
    x, cotangent = torch.randn(32, 64), torch.randn(32, 96)
    outcomes = []
    for rows in (32, 29):  # the last three count for nothing: by zeros of ours, or of the caller
        given, backward = x.clone(), cotangent.clone()
        given[29:], backward[29:] = 0.0, 0.0
        inputs = [part.clone().requires_grad_() for part in (given[:rows], down, up)]
        y = rounded._RoundedLora.apply(inputs[0], weight, None, inputs[1], inputs[2], 0.5)
        for_x, *for_weights = torch.autograd.grad(y, inputs, backward[:rows])
        outcomes.append([y[:29].detach(), for_x[:29], *for_weights])
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


@pytest.mark.parametrize("kind", ["encoder", "chat"])
def test_training_in_bf16_follows_float32(kind, made):
    """20 steps: losses within 1 %, and what was learned points where it does in float32."""
    trainers = [made(kind, precision) for precision in ("fp32", "bf16")]
    assert trainers[1].autocast_dtype is None
    assert counted(trainers[1].model, RoundedLora) > 0
    assert counted(trainers[0].model, RoundedLinear) == 0
    starts = [torch.cat([p.detach().flatten().clone() for p in t.parameters]) for t in trainers]
    losses = [[t.step(rows)[0] for rows, _ in zip(t.batches, range(20), strict=False)] for t in trainers]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]
    moved = [torch.cat([p.detach().flatten() for p in t.parameters]) - s for t, s in zip(trainers, starts, strict=True)]
    assert all(p.dtype == torch.float32 for p in trainers[1].parameters)
    assert float(torch.nn.functional.cosine_similarity(*moved, dim=0)) > 0.95
    scores = [t.evaluate()[0]["loss" if kind == "encoder" else "perplexity"] for t in trainers]
    assert scores[1] == pytest.approx(scores[0], rel=0.01)


def test_what_a_host_has_rounded_is_shared_unless_a_method_changed_the_weight(made, make_spec, inspection):
    base = load_base(make_spec("encoder").workload, inspection("encoder").labels)
    keep_rounded(base.model)
    kept = {id(m.rounded) for m in base.model.modules() if hasattr(m, "rounded")}
    plain, moved = copy.deepcopy(base), copy.deepcopy(base)
    used = {id(m.rounded) for m in made(base=base).model.modules() if type(m) is RoundedLinear}
    assert used
    assert used <= kept
    trainer = made(base=moved, method="pissa")
    off = [m for m in trainer.model.modules() if type(m) is RoundedLora]
    assert off
    for layer in off:
        torch.testing.assert_close(layer.base_layer.rounded, layer.base_layer.weight.bfloat16())
    assert counted(plain.model, torch.nn.Linear) > 0


def test_merged_weights_have_all_bits_of_the_base(made, make_spec, inspection):
    spec = make_spec("encoder")
    trainer = made()
    trainer.save_adapter(TrialPaths(Path(spec.dir)).adapter)
    base, untouched = (load_base(spec.workload, inspection("encoder").labels) for _ in range(2))
    keep_rounded(base.model)
    merged = merge(base, spec, TrialPaths(Path(spec.dir)).adapter)
    weights = dict(merged.named_parameters())
    for name, parameter in untouched.model.named_parameters():
        if name not in base.drawn_parameters:
            assert torch.equal(weights[name], parameter), name  # an adapter that has not learned yet


@pytest.mark.parametrize("method", ["dora", "full", "ia3"])
def test_other_methods_compute_in_bf16_through_autocast(method, make_spec, inspection):
    spec = make_spec("encoder", method)
    spec = replace(spec, workload=replace(spec.workload, precision="bf16"))
    base = load_base(spec.workload, inspection("encoder").labels)
    trainer = Trainer(base, spec, Path(inspection("encoder").tokens_dir))
    assert trainer.autocast_dtype == torch.bfloat16
    assert counted(trainer.model, RoundedLinear) == 0
    assert any("autocast rounds as much" in line for line in trainer.shortcuts.log_lines())


def test_a_wrong_gradient_leaves_bf16_to_autocast(made, make_spec, inspection, monkeypatch):
    real = rounded._RoundedLora.backward

    def backward(ctx, *given):
        gradients = list(real(ctx, *given))
        gradients[4] = 1.5 * gradients[4]
        return tuple(gradients)

    monkeypatch.setattr(rounded._RoundedLora, "backward", staticmethod(backward))
    with pytest.raises(Unknown, match="differs by more than rounding"):
        rounded.FrozenInBf16().check()
    monkeypatch.setattr(rounded.FrozenInBf16, "check", lambda self: None)  # the model's own gradients show it too
    spec = make_spec("encoder")
    base = load_base(replace(spec.workload, precision="bf16"), inspection("encoder").labels)
    refused = refused_for_base(base, Path(inspection("encoder").tokens_dir))
    assert list(refused) == [ROUNDED]
    assert "its gradients differ by" in refused[ROUNDED]
    assert notes(refused) == [
        f"shortcut not used: frozen layers in bf16 ({refused[ROUNDED]}); trials in bf16 use autocast, which is slower"
    ]
    trainer = made()
    assert trainer.autocast_dtype == torch.bfloat16
    assert trainer.shortcuts.used == list(SHORTCUTS)
