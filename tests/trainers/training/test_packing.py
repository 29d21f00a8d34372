"""Packed rows: the same loss and the same update as apart, on every decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainers.families import CONFIGS
from trainers.data.sources import DataProblem
from trainers.model.load import load_base
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import canonical_settings, default_settings
from trainers.protocol.requests import Inspect
from trainers.protocol.trial_spec import TrialSpec
from trainers.training.batches import collate
from trainers.training.packing import check_rows_apart
from trainers.training.trainer import Trainer

DECODERS = [name for name, (kind, *_) in CONFIGS.items() if kind == "decoder"]


def trainer(family_workload, family, task, folder, **settings):
    workload = family_workload(family, task)
    found = inspect(Inspect(workload))
    chosen = {**default_settings(task, "lora"), "lora_dropout": 0.0, "batch_size": 8, "micro_batch_size": 8, **settings}
    spec = TrialSpec(
        0, workload, "lora", canonical_settings("lora", chosen), "loss", "minimize", 64, 64, 0, "i", 1, ("cpu",), folder
    )
    base = load_base(workload, found.labels)
    for module in base.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # GPT-2's: it draws other elements where there is no padding
    return Trainer(base, spec, Path(found.tokens_dir))


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("task", ["chat", "instruct"])
def test_packed_rows_give_the_same_losses_and_updates(family_workload, tmp_path, family, task):
    apart = trainer(family_workload, family, task, str(tmp_path))
    in_line = trainer(family_workload, family, task, str(tmp_path), packing=True, micro_batch_size=3)
    steps = list(zip(apart.batches, in_line.batches, strict=True))[:4]
    for rows, same_rows in steps:
        assert rows == same_rows
        loss, tokens = apart.step(rows)
        packed_loss, packed_tokens = in_line.step(rows)
        assert packed_loss == pytest.approx(loss, rel=1e-5)
        assert packed_tokens == tokens
    for one, other in zip(apart.parameters, in_line.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_pack_has_no_padding_and_as_many_targets(family_workload, tmp_path):
    made = trainer(family_workload, "llama", "chat", str(tmp_path), packing=True)
    rows = next(made.batches)
    batch = made._batch(rows)
    lengths = made.train_tokens.lengths[rows]
    assert len(set(lengths.tolist())) > 1
    assert batch.input_ids.shape == (1, lengths.sum())
    assert int((batch.positions == 0).sum()) == len(rows)
    apart = collate(made.train_tokens, rows, made.pad_id, torch.device("cpu"))
    assert int(batch.targets.sum()) == int(apart.targets[:, 1:].sum())


def test_a_model_whose_rows_see_each_other_is_refused(family_workload, tmp_path):
    made = trainer(family_workload, "llama", "chat", str(tmp_path), packing=True)

    class Blind(torch.nn.Module):
        """Attends to all that came before, whatever the positions say."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask=None, position_ids=None):
            return self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))

        def get_base_model(self):
            return self.model.get_base_model()

    check_rows_apart(made.model)
    with pytest.raises(DataProblem, match="rows see each other in a LlamaForCausalLM"):
        check_rows_apart(Blind(made.model))
