"""Evaluation holds one batch at a time, however many rows there are."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.fast.shortcut import body_of
from trainers.model.load import load_base, put_adapter_on
from trainers.training import evaluation
from trainers.training.evaluation import Evaluator, score_model
from trainers.training.trainer import Trainer


@pytest.mark.parametrize("kind", ["encoder", "chat"])
def test_no_batch_outlives_the_next_but_one(workload, inspection, kind, monkeypatch):
    found = inspection(kind)
    base = load_base(workload(kind), found.labels)
    batches, alive = [], []
    real = evaluation.evaluation_batches

    def watched(*given):
        for numbers, batch in real(*given):
            batches.append(weakref.ref(batch.input_ids))
            alive.append(sum(ref() is not None for ref in batches))
            yield numbers, batch

    logits, logits_alive = [], []

    def watch(_model, _inputs, output):
        logits.append(weakref.ref(output[0]))
        logits_alive.append(sum(ref() is not None for ref in logits))

    monkeypatch.setattr(evaluation, "evaluation_batches", watched)
    base.model.base_model.register_forward_hook(watch)
    evaluator = Evaluator(base, Path(found.tokens_dir), "validation", torch.device("cpu"), None, micro_batch_halvings=5)
    _metrics, rows = evaluator(base.model)
    assert len(rows) == len(evaluator.tokens)
    assert len(batches) > 10
    assert max(alive) <= 2
    assert max(logits_alive) <= 2


@pytest.mark.parametrize("kind", ["encoder", "chat"])
@pytest.mark.parametrize("adapted", [False, True])
def test_shortcuts_change_no_score(make_spec, inspection, kind, adapted):
    """Of the untouched base and of one with an adapter on; only what the host has tried is put on."""
    spec, found = make_spec(kind), inspection(kind)
    scores = []
    for refused in (None, {}):
        torch.manual_seed(0)
        base = load_base(spec.workload, found.labels)
        if adapted:
            base.model = put_adapter_on(base, spec)
            with torch.no_grad():
                for parameter in base.model.parameters():
                    parameter += 0.02 * torch.randn_like(parameter) * parameter.requires_grad
        base.refused_shortcuts = refused
        attention = body_of(base.model).config._attn_implementation
        _metrics, rows = score_model(base, Path(found.tokens_dir), "cpu", precision="fp32")
        assert (body_of(base.model).config._attn_implementation == attention) is (refused is None)
        scores.append(rows)
    plain, fast = scores
    assert np.abs(plain - fast).max() < 1e-5 * np.abs(plain).max()


@pytest.mark.parametrize("method", ["lora", "prompt"])
@pytest.mark.parametrize("kind", ["encoder", "chat"])
def test_a_trainer_s_model_trains_from_the_start_and_after_an_evaluation(make_spec, inspection, kind, method):
    spec, found = make_spec(kind, method), inspection(kind)
    trainer = Trainer(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir))
    assert all(module.training for module in trainer.model.modules())
    trainer.evaluate()
    assert all(module.training for module in trainer.model.modules())
