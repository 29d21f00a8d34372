"""What GPUs alone compute differently, as far as a CPU can show it."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv

from tests.trainers.fast.test_padding_free import IDS, MASK, hidden, model_of
from trainers.fast import padding_free, rows_at_once
from trainers.fast.enter import SHORTCUTS, make_fast, names_for
from trainers.fast.rounded_once import round_once
from trainers.fast.rows_at_once import attend_at_once
from trainers.fast.shortcut import Unknown
from trainers.model.load import load_base
from trainers.training.batches import collate
from trainers.training.evaluation import autocast
from trainers.training.trainer import Trainer

CPU, META = torch.device("cpu"), torch.device("meta")
LENGTHS = [5, 9, 2]


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {"dropout": 0.1}),  # without content the gradient of this kernel takes no scale
        (torch.bfloat16, {"dropout": 0.1, "scaling": 0.3}),
        (torch.bfloat16, {}),
    ],
)
def test_the_kernels_take_what_they_are_given_and_have_gradients(dtype, is_causal, options):
    """On tensors without content: a CPU has not these kernels, but torch knows what they would take and give."""
    shapes = [(1, heads, sum(LENGTHS), 16) for heads in (4, 2, 2)]
    query, key, value = (torch.empty(shape, dtype=dtype, device=META, requires_grad=True) for shape in shapes)
    ends = torch.empty(len(LENGTHS) + 1, dtype=torch.int32, device=META)
    module = SimpleNamespace(num_key_value_groups=2)
    attended = attend_at_once(module, query, key, value, ends, max(LENGTHS), is_causal=is_causal, **options)
    assert (attended.shape, attended.dtype) == ((1, sum(LENGTHS), 4, 16), dtype)
    gradients = torch.autograd.grad(attended.sum(), (query, key, value))
    assert [gradient.shape for gradient in gradients] == [torch.Size(shape) for shape in shapes]


def one_row_after_the_other(module, query, key, value, ends, longest, **options):
    """What `attend_at_once` computes, on any device."""
    lengths = ends.diff().tolist()
    assert longest == max(lengths)
    groups = getattr(module, "num_key_value_groups", 1)
    lines = (query, repeat_kv(key, groups), repeat_kv(value, groups))
    rows = zip(*(line.split(lengths, dim=2) for line in lines), strict=True)
    is_causal = options.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    each = [scaled_dot_product_attention(*row, is_causal=is_causal, scale=options.get("scaling")) for row in rows]
    return torch.cat(each, dim=2).transpose(1, 2)


def rows_that_see_each_other(module, query, key, value, ends, longest, **options):
    line = torch.tensor([0, int(ends[-1])])
    return one_row_after_the_other(module, query, key, value, line, int(ends[-1]), **options)


def test_attention_of_a_gpu_is_compared_before_it_is_used(monkeypatch):
    monkeypatch.setattr(rows_at_once, "attend_at_once", one_row_after_the_other)
    rows_at_once.check_at_once(CPU)
    monkeypatch.setattr(rows_at_once, "attend_at_once", rows_that_see_each_other)
    with pytest.raises(Unknown, match="is not that of each row alone"):
        rows_at_once.check_at_once(CPU)


@pytest.mark.parametrize("family", ["bert", "llama", "qwen"])
def test_a_model_tells_the_kernel_where_its_rows_are(family, tmp_path_factory, monkeypatch):
    model = model_of(family, tmp_path_factory)
    expected = hidden(model)[MASK.bool()]
    assert make_fast(model, {}, device="cuda").used == ["layers without padding"]
    asked = []

    def attend(module, query, key, value, lengths, masks, drops, **options):
        asked.append(lengths)
        ends = padding_free.RowLayout(lengths).ends
        return one_row_after_the_other(module, query, key, value, ends, max(lengths), **options)

    monkeypatch.setattr(padding_free, "attend_rows", attend)
    torch.testing.assert_close(hidden(model)[MASK.bool()], expected, atol=1e-5, rtol=1e-4)
    assert asked == [[6, 3, 4]] * 2


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
