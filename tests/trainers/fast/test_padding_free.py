"""Layers without padding, and adapters folded into their weights: other ways to compute the same."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tests.trainers.families import CONFIGS, build
from trainers.fast import varlen_attention as row_attention
from trainers.fast.enter import make_fast
from trainers.fast.folded_lora import FoldedLora, fold_adapters
from trainers.fast.padding_free import KNOWN_MODELS, RowLayout, packed_layout, padded_layout

WITH_PADDING = {"deberta", "gemma", "t5", "bart"}
"""Families whose attention is their own (Gemma 2 caps its logits), or that have two stacks of layers."""
IDS = torch.tensor([[7, 8, 9, 10, 11, 12], [9, 8, 7, 0, 0, 0], [12, 11, 10, 9, 0, 0]])
MASK = (IDS != 0).long()
SMALL = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 2,
    "eos_token_id": 2, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "n_embd": 32, "n_layer": 2,
    "n_head": 4, "n_positions": 64, "ffn_dim": 64, "word_embed_proj_dim": 32, "embedding_size": 32,
}  # fmt: skip
"""By the names that one family or another has for them."""


def model_of(family, tmp_path_factory):
    kind = CONFIGS[family][0]
    auto = AutoModelForCausalLM if kind == "decoder" else AutoModel
    return auto.from_pretrained(build(family, tmp_path_factory.mktemp(family))).eval()


def leave_padding_out(model):
    """Whether the model has that shortcut now, among others."""
    return "layers without padding" in make_fast(model, {}).used


def hidden(model, ids=IDS, mask=MASK):
    return model.base_model(input_ids=ids, attention_mask=mask)[0]


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in WITH_PADDING])
def test_hidden_states_and_gradients_are_those_with_padding(family, tmp_path_factory):
    plain = model_of(family, tmp_path_factory)
    dense = copy.deepcopy(plain)
    assert leave_padding_out(dense)
    weights = torch.randn(*IDS.shape, 1) * MASK[..., None]
    for model in (plain, dense):
        (hidden(model) * weights).sum().backward()
    torch.testing.assert_close(hidden(dense)[MASK.bool()], hidden(plain)[MASK.bool()], atol=1e-5, rtol=1e-4)
    for one, other in zip(plain.parameters(), dense.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", sorted(WITH_PADDING))
def test_other_families_stay_as_they_are(family, tmp_path_factory):
    model = model_of(family, tmp_path_factory)
    before = model.config._attn_implementation
    assert not leave_padding_out(model)
    assert model.config._attn_implementation == before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", sorted(KNOWN_MODELS))
def test_every_known_model_gives_the_same_without_padding(family):
    known = set(AutoConfig.for_model(family).to_dict()) | set(type(AutoConfig.for_model(family)).attribute_map)
    config = AutoConfig.for_model(family, **{name: value for name, value in SMALL.items() if name in known})
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types)[:2]
    model = AutoModel.from_config(config).eval()
    expected = hidden(model)[MASK.bool()]
    assert leave_padding_out(model)
    torch.testing.assert_close(hidden(model)[MASK.bool()], expected, atol=1e-5, rtol=1e-4)


def test_layers_see_tokens_alone(tmp_path_factory):
    model = model_of("bert", tmp_path_factory)
    assert leave_padding_out(model)
    seen = []
    model.encoder.layer[1].intermediate.register_forward_hook(lambda *given: seen.append(given[2].shape[:2]))
    hidden(model)
    assert seen == [(1, int(MASK.sum()))]


def test_layout_of_other_models_see_only_themselves(tmp_path_factory):
    """A window that is shorter than a row is kept to."""
    model = model_of("modernbert", tmp_path_factory)
    model.config.local_attention = 2
    plain = copy.deepcopy(model)
    assert leave_padding_out(model)
    torch.testing.assert_close(hidden(model)[MASK.bool()], hidden(plain)[MASK.bool()], atol=1e-5, rtol=1e-4)


def test_generation_is_unchanged(tmp_path_factory):
    model = model_of("llama", tmp_path_factory)
    left = IDS.flip(1)  # padded on the left, as generation wants it
    expected = model.generate(left, attention_mask=(left != 0).long(), max_new_tokens=4, do_sample=False)
    assert leave_padding_out(model)
    assert torch.equal(
        model.generate(left, attention_mask=(left != 0).long(), max_new_tokens=4, do_sample=False), expected
    )


def test_rows_are_found_where_padding_is_on_the_right():
    layout = padded_layout(MASK)
    assert layout is not None
    assert layout.places is not None
    assert (layout.lengths, layout.longest) == ([6, 3, 4], 6)
    assert layout.places.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 14, 15]
    assert padded_layout(torch.ones_like(MASK)) is None
    assert padded_layout(MASK.flip(1)) is None
    padded = torch.randn(3, 6, 2) * MASK[..., None]
    assert torch.equal(layout.apart(layout.in_line(padded)), padded)


def test_rows_are_found_where_positions_begin_anew():
    layout = packed_layout(torch.tensor([[0, 1, 2, 0, 0, 1]]))
    assert layout is not None
    assert (layout.lengths, layout.places) == ([3, 1, 2], None)
    assert packed_layout(torch.arange(6)[None]) is None
    assert packed_layout(torch.arange(6).expand(3, 6)) is None


def test_what_is_the_same_for_each_row_is_repeated():
    layout = RowLayout([2, 1], 2, torch.tensor([0, 1, 2]))
    assert layout.in_line(torch.tensor([[[1.0], [2.0]]])).flatten().tolist() == [1.0, 2.0, 1.0]


def test_packed_rows_are_attended_one_by_one(tmp_path_factory, monkeypatch):
    model = model_of("llama", tmp_path_factory)
    model.config.use_cache = False  # as everywhere here; with a cache transformers does not look for packed rows
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    ids = IDS[:1, :5]
    expected = model(input_ids=ids, position_ids=positions).logits
    assert leave_padding_out(model)
    widths = []
    monkeypatch.setattr(
        row_attention, "sdpa_attention_forward",
        lambda module, query, *rest, **options: widths.append(query.shape[2])
        or sdpa_attention_forward(module, query, *rest, **options),
    )  # fmt: skip
    got = model(input_ids=ids, position_ids=positions).logits
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    assert widths == [3, 2, 3, 2]


# --- folding ------------------------------------------------------------------------------------------


def linear(**config):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.Tanh(), torch.nn.Linear(20, 6))
    model.requires_grad_(False)
    made = get_peft_model(model, LoraConfig(target_modules=["0", "2"], r=3, lora_alpha=6, **config))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return made


def folded_layers(model):
    return [module for module in model.modules() if isinstance(module, FoldedLora)]


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"lora_dropout": 0.0}])
@pytest.mark.parametrize("vectors", [1, 50])
@pytest.mark.parametrize("wide_first", [True, False])
def test_a_folded_adapter_is_the_same_function(config, vectors, wide_first, monkeypatch):
    """In doubles: where terms cancel, float32 tells no mistake from rounding."""
    monkeypatch.setattr("trainers.fast.folded_lora.WIDE_FIRST", wide_first)
    plain = linear(**config).double()
    folded = copy.deepcopy(plain)
    fold_adapters(folded)
    assert len(folded_layers(folded)) == 2
    x = torch.randn(2, vectors, 12, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    one, other = folded(ours), plain(theirs)
    torch.testing.assert_close(one, other)
    (one**2).sum().backward()
    (other**2).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    for mine, peft in zip(folded.parameters(), plain.parameters(), strict=True):
        if peft.requires_grad:
            torch.testing.assert_close(mine.grad, peft.grad)


def test_only_where_it_is_the_same_function():
    assert not folded_layers(_with_folding(linear(use_dora=True)))
    dropping = _with_folding(linear(lora_dropout=0.5)).train()
    x = torch.randn(50, 12)
    assert not torch.equal(dropping(x), dropping(x))
    dropping.eval()
    assert all(layer._folds(torch.ones(50, layer.in_features)) for layer in folded_layers(dropping))
    with dropping.disable_adapter():
        torch.testing.assert_close(dropping(x), dropping.get_base_model()(x))


def test_the_base_weight_is_never_written(tmp_path: Path):
    model = _with_folding(linear())
    weight = model.base_model.model[0].base_layer.weight
    before, version = weight.clone(), weight._version
    model(torch.randn(50, 12)).sum().backward()
    assert weight._version == version
    assert torch.equal(weight, before)


def _with_folding(model):
    fold_adapters(model)
    return model
