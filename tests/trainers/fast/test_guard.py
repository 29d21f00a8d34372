"""Shortcuts cannot hurt: broken on purpose, each is left out, and the trial trains as without it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainers.fast import dropout, folded_lora, padding_free, varlen_attention
from trainers.fast.enter import SHORTCUTS, make_fast, notes
from trainers.fast.proof import refused_by
from trainers.model.load import load_base
from trainers.training import trainer as training
from trainers.training.loop import train
from trainers.training.trainer import Trainer

CHEAP, FOLDED, UNPADDED, BY_ROW = SHORTCUTS
ALL = dict.fromkeys(SHORTCUTS, "not wanted")


@pytest.fixture
def made(make_spec, inspection):
    """A trial's trainer on a base model without dropout; `refused` is what its host knows of shortcuts."""

    def make(kind="encoder", refused=None, **settings):
        spec = make_spec(kind, warmup_ratio=0.0, **settings)
        base = load_base(spec.workload, inspection(kind).labels)
        base.refused_shortcuts = refused
        for module in base.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return Trainer(base, spec, Path(inspection(kind).tokens_dir)), base

    return make


def losses(trainer, steps=3):
    return [trainer.step(rows)[0] for rows, _ in zip(trainer.batches, range(steps), strict=False)]


# --- what is broken --------------------------------------------------------------------------------------


def is_not_there(name):
    return lambda patch: patch.setitem(sys.modules, SHORTCUTS[name][0], None)


def has_no_class(name):
    return lambda patch: patch.delattr(sys.modules[SHORTCUTS[name][0]], SHORTCUTS[name][1])


def raises(module, name, error):
    def broken(*_given, **_named):
        raise error

    return lambda patch: patch.setattr(module, name, broken)


def wrong_gradient(function, place, *, checked):
    """A tenth too much, seen by the check of small tensors, or without that by the model's own gradients."""
    real = function.backward

    def backward(ctx, *given):
        gradients = list(real(ctx, *given))
        gradients[place] = 1.1 * gradients[place]
        return tuple(gradients)

    def broken(patch):
        patch.setattr(function, "backward", staticmethod(backward))
        if not checked:
            patch.setattr(folded_lora.AdaptersFolded, "check", lambda self: None)

    return broken


def wrong_gradient_of_lines(patch):
    real = padding_free.RowLayout.apart

    def apart(layout, line):
        more = 0.1 * line
        return real(layout, line + more - more.detach())

    patch.setattr(padding_free.RowLayout, "apart", apart)


def drops_too_much(patch):
    real = dropout._dropped_levels
    patch.setattr(dropout, "_dropped_levels", lambda probability: real(probability) + 4096)


def attention_has_another_option(patch):
    real = ALL_ATTENTION_FUNCTIONS.get_interface

    def get_interface(name, default):
        attend = real(name, default)
        return lambda *given, **options: attend(*given, sink_strength=0.5, **options)

    patch.setattr(ALL_ATTENTION_FUNCTIONS, "get_interface", get_interface)


def attention_is_another(patch):
    AttentionInterface.register("another", sdpa_attention_forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register("another", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    after_attach(patch, lambda model: model.set_attn_implementation("another"))


def model_is_unknown(patch):
    patch.setattr(padding_free, "KNOWN_MODELS", {"llama"})


def layers_are_elsewhere(patch):
    after_attach(patch, lambda model: setattr(model.config, "num_hidden_layers", 99))


def peft_layer_has_more(patch):
    after_attach(patch, lambda model: [setattr(layer, "lora_gate", 1.0) for layer in lora_layers(model)])


def peft_layer_is_renamed(patch):
    """`lora_A` is called `lora_down` one day, and PEFT's own layer knows it by that name."""

    def rename(model):
        for layer in lora_layers(model):
            layer._modules["lora_down"] = layer._modules.pop("lora_A")

    def forward(layer, x):
        down, up = layer.lora_down["default"], layer.lora_B["default"]
        return layer.base_layer(x) + up(down(x)) * layer.scaling["default"]

    patch.setattr(LoraLinear, "forward", forward)
    after_attach(patch, rename)


def after_attach(patch, change):
    real = training.put_adapter_on

    def put_adapter_on(*given):
        model = real(*given)
        change(model)
        return model

    patch.setattr(training, "put_adapter_on", put_adapter_on)


def lora_layers(model):
    return [module for module in model.modules() if isinstance(module, LoraLinear)]


BROKEN = {
    "cheap dropout is not there": (is_not_there(CHEAP), {CHEAP}),
    "folded LoRA is not there": (is_not_there(FOLDED), {FOLDED}),
    "layers without padding are not there": (is_not_there(UNPADDED), {UNPADDED}),
    "attention by row is not there": (is_not_there(BY_ROW), {BY_ROW}),
    "a class is not there": (has_no_class(UNPADDED), {UNPADDED}),
    "dropout drops too much": (drops_too_much, {CHEAP, BY_ROW}),
    "dropout raises": (raises(dropout.CheapDropout, "forward", ValueError("no bits")), {CHEAP, BY_ROW}),
    "folding raises": (raises(folded_lora, "_thin", RuntimeError("no kernel")), {FOLDED}),
    "attention raises": (raises(padding_free, "attend_rows", IndexError("out of range")), {UNPADDED}),
    "folded LoRA: gradient of B": (wrong_gradient(folded_lora._Folded, 4, checked=True), {FOLDED}),
    "folded LoRA: gradient of A": (wrong_gradient(folded_lora._Folded, 3, checked=False), {FOLDED}),
    "attention by row: gradient": (wrong_gradient(varlen_attention.DroppingAttention, 1, checked=True), {BY_ROW}),
    "layers without padding: gradient": (wrong_gradient_of_lines, {UNPADDED}),
    "attention has another option": (attention_has_another_option, {UNPADDED}),
    "attention is another": (attention_is_another, {UNPADDED}),
    "the model is unknown": (model_is_unknown, {UNPADDED}),
    "layers are elsewhere": (layers_are_elsewhere, {UNPADDED}),
    "PEFT's layer has more": (peft_layer_has_more, {FOLDED}),
    "PEFT's layer is renamed": (peft_layer_is_renamed, {FOLDED}),
}
"""What is broken -> the shortcuts that are refused for it."""


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_shortcut_is_left_out_and_the_trial_trains_as_without_it(what, made, monkeypatch):
    expected = losses(made(refused=ALL)[0])
    breaks, names = BROKEN[what]
    breaks(monkeypatch)
    trainer, base = made()
    assert set(base.refused_shortcuts) == names
    needs = {BY_ROW} if UNPADDED in names else set()
    assert set(trainer.shortcuts.used) == set(SHORTCUTS) - names - needs
    assert losses(trainer) == pytest.approx(expected, rel=1e-4)


def test_the_log_and_a_note_say_which_and_why(make_spec, inspection, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "trainers.fast.folded_lora", None)
    spec = make_spec("encoder")
    base = load_base(spec.workload, inspection("encoder").labels)
    next(train(base, spec, Path(inspection("encoder").tokens_dir)))
    why = f"{FOLDED} (ModuleNotFoundError: import of trainers.fast.folded_lora halted; None in sys.modules)"
    assert f"shortcut not used: {why}; the plain way gives the same numbers" in capfd.readouterr().err
    assert notes(base.refused_shortcuts) == [
        f"shortcut not used: {why}; trials train the plain way: slower, with the same numbers"
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_no_fault_of_a_shortcut_is_not_swallowed(error, made, monkeypatch):
    trainer, _ = made(refused=ALL)
    raises(padding_free, "attend_rows", error())(monkeypatch)
    with pytest.raises(error):
        made()
    raises(padding_free.LayersWithoutPadding, "apply", error())(monkeypatch)
    with pytest.raises(error):
        make_fast(trainer.model, {})


# --- where nothing is broken -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["encoder", "chat"])
def test_a_trial_after_a_try_out_equals_one_without(kind, make_spec, inspection):
    """To the bit, with dropout in base and adapter."""
    outcomes = []
    for refused in (None, {}):
        spec = make_spec(kind, lora_dropout=0.1)
        base = load_base(spec.workload, inspection(kind).labels)
        base.refused_shortcuts = refused
        trainer = Trainer(base, spec, Path(inspection(kind).tokens_dir))
        assert trainer.shortcuts.used == list(SHORTCUTS)
        taken = losses(trainer)
        outcomes.append((taken, torch.cat([p.detach().flatten() for p in trainer.parameters]), torch.get_rng_state()))
    (one, parameters, state), (other, others, other_state) = outcomes
    assert one == other
    assert torch.equal(parameters, others)
    assert torch.equal(state, other_state)


@pytest.mark.parametrize("breaks", [None, wrong_gradient_of_lines])
def test_a_try_out_leaves_everything_as_it_was(breaks, made, monkeypatch):
    trainer, _ = made(refused=ALL)
    model = trainer.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [(type(module), module.training) for module in model.modules()]
    rng = torch.get_rng_state()
    if breaks:
        breaks(monkeypatch)
    rows = {"input_ids": torch.tensor([[3, 4, 5], [6, 7, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}

    def loss(tried):
        return tried(**rows).logits.logsumexp(-1).sum()

    refused = refused_by(model, loss, loss)
    assert set(refused) == ({UNPADDED} if breaks else set())
    after = model.state_dict()
    assert all(torch.equal(after[name].view(torch.uint8), value.view(torch.uint8)) for name, value in before.items())
    assert [(type(module), module.training) for module in model.modules()] == kinds
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), rng)


def test_a_loss_without_a_gradient_proves_nothing(made):
    trainer, _ = made(refused=ALL)

    def nothing(model):
        return 0 * model(input_ids=torch.tensor([[3, 4]])).logits.sum()

    assert set(refused_by(trainer.model, nothing, nothing)) == set(SHORTCUTS)
