"""Evaluation holds one batch at a time, however many rows there are."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch

from trainers.model.load import load_base
from trainers.training import evaluation
from trainers.training.evaluation import Evaluator
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


@pytest.mark.parametrize("method", ["lora", "prompt"])
@pytest.mark.parametrize("kind", ["encoder", "chat"])
def test_a_trainer_s_model_trains_from_the_start_and_after_an_evaluation(make_spec, inspection, kind, method):
    spec, found = make_spec(kind, method), inspection(kind)
    trainer = Trainer(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir))
    assert all(module.training for module in trainer.model.modules())
    trainer.evaluate()
    assert all(module.training for module in trainer.model.modules())
