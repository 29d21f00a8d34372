"""What GPUs alone compute differently, as far as a CPU can show it."""

from __future__ import annotations

import copy
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.trainers.fast.test_padding_free import IDS, MASK, hidden, model_of
from trainers.fast import jagged_attention, padding_free
from trainers.fast.enter import SHORTCUTS, make_fast, names_for
from trainers.fast.jagged_attention import attend_jagged
from trainers.fast.rounded_once import round_once
from trainers.fast.shortcut import Unknown
from trainers.model.load import load_base
from trainers.training.batches import collate
from trainers.training.evaluation import autocast
from trainers.training.trainer import Trainer

CPU = torch.device("cpu")
prototype = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")


@prototype
def test_rows_in_one_jagged_tensor_are_attended_as_each_alone():
    """torch has a CPU's way for rows that see all of themselves; those that see what is before them need a GPU."""
    lengths, width = [5, 9, 2], 16
    lines = [torch.randn(1, 4, sum(lengths), width, requires_grad=True) for _ in range(3)]
    each = [
        scaled_dot_product_attention(*row) for row in zip(*(line.split(lengths, dim=2) for line in lines), strict=True)
    ]
    expected = torch.cat(each, dim=2).transpose(1, 2)
    attended = attend_jagged(None, *lines, lengths, torch.tensor([0, *accumulate(lengths)]), is_causal=False)
    torch.testing.assert_close(attended, expected)
    ours, theirs = (torch.autograd.grad((out**2).sum(), lines) for out in (attended, expected))
    torch.testing.assert_close(ours, theirs)


@prototype
def test_a_model_whose_rows_are_attended_so_gives_the_same(tmp_path_factory, monkeypatch):
    model = model_of("bert", tmp_path_factory)
    expected = hidden(model)[MASK.bool()]
    assert make_fast(model, {}, device="cuda").used == ["layers without padding"]
    asked = []

    def attend(module, query, key, value, lengths, masks, drops, **options):
        asked.append(lengths)
        return attend_jagged(module, query, key, value, lengths, torch.tensor([0, *accumulate(lengths)]), **options)

    monkeypatch.setattr(padding_free, "attend_rows", attend)
    torch.testing.assert_close(hidden(model)[MASK.bool()], expected, atol=1e-5, rtol=1e-4)
    assert asked == [[6, 3, 4]] * 2


def one_row_after_the_other(module, query, key, value, lengths, ends, is_causal):
    """What `attend_jagged` computes, on any device."""
    rows = zip(*(line.split(lengths, dim=2) for line in (query, key, value)), strict=True)
    each = [scaled_dot_product_attention(*row, is_causal=is_causal) for row in rows]
    return torch.cat(each, dim=2).transpose(1, 2)


def rows_that_see_each_other(module, query, key, value, lengths, ends, is_causal):
    return scaled_dot_product_attention(query, key, value, is_causal=is_causal).transpose(1, 2)


def test_attention_of_a_gpu_is_compared_before_it_is_used(monkeypatch):
    monkeypatch.setattr(jagged_attention, "attend_jagged", one_row_after_the_other)
    jagged_attention.check_jagged(CPU)
    monkeypatch.setattr(jagged_attention, "attend_jagged", rows_that_see_each_other)
    with pytest.raises(Unknown, match="is not that of each row alone"):
        jagged_attention.check_jagged(CPU)


def test_a_layout_knows_where_its_rows_end():
    assert padding_free.padded_layout(MASK).ends.tolist() == [0, 6, 9, 13]
    assert padding_free.packed_layout(torch.tensor([[0, 1, 0, 1, 2, 0]])).ends.tolist() == [0, 2, 5, 6]


def test_shortcuts_for_a_cpu_stay_there():
    assert names_for(in_bf16=True, device="cuda") == ["layers without padding"]
    assert names_for(in_bf16=False) == list(SHORTCUTS)


# --- frozen weights, rounded once ------------------------------------------------------------------------


@pytest.fixture
def trainer(make_spec, inspection):
    def make(kind, method):
        spec = make_spec(kind, method)
        base = load_base(spec.workload, inspection(kind).labels)
        base.refused_shortcuts = dict.fromkeys(SHORTCUTS, "not on a GPU")
        return Trainer(base, spec, Path(inspection(kind).tokens_dir))

    return make


def outcome(trainer, model):
    """Loss and gradients of a few rows, as a trial in bf16 computes them."""
    batch = collate(trainer.train_tokens, [0, 1, 2], trainer.pad_id, CPU)
    with autocast(CPU, torch.bfloat16):
        loss = trainer.task.sums(model, batch, trainer.loss).loss
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("method", ["lora", "dora", "pissa", "qlora", "ia3", "adapter", "prompt", "full"])
@pytest.mark.parametrize("kind", ["encoder", "chat"])
def test_what_autocast_rounds_in_every_pass_may_be_rounded_once(trainer, kind, method):
    """To the bit."""
    made = trainer(kind, method)
    made.model.eval()
    rounded = copy.deepcopy(made.model)
    numbers = round_once(rounded, torch.bfloat16)
    assert (numbers > 0) == (method not in ("full", "dora", "qlora"))
    for ours, theirs in zip(outcome(made, rounded), outcome(made, made.model), strict=True):
        assert torch.equal(ours, theirs)


def test_embeddings_norms_heads_and_what_is_trained_keep_all_their_bits(trainer):
    made = trainer("chat", "lora")  # its output embedding is the input embedding
    round_once(made.model, torch.bfloat16)
    kept = {name for name, parameter in made.model.named_parameters() if parameter.dtype == torch.float32}
    assert all("lora_" in name or "embed_tokens" in name or "norm" in name for name in kept), kept
    judge = trainer("encoder", "lora")
    judge.model.requires_grad_(False)  # as it is when it is only scored
    round_once(judge.model, torch.bfloat16)
    assert all(p.dtype == torch.float32 for name, p in judge.model.named_parameters() if "classifier" in name)
    assert torch.isfinite(outcome_of_head(judge)).all()


def outcome_of_head(made):
    with torch.no_grad(), autocast(CPU, torch.bfloat16):
        return made.model(input_ids=IDS, attention_mask=MASK).logits
