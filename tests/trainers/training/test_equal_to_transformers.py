"""Twenty steps of ours and of transformers' Trainer on the same rows: the same losses."""

from __future__ import annotations

import pytest

from tests.bench.steps import compare, plain_spec


@pytest.mark.parametrize("kind", ["encoder", "chat"])
@pytest.mark.parametrize("grouping", [{"micro_batch_size": 8}, {"micro_batch_size": 3}, {"packing": True}])
def test_losses_are_those_of_transformers_trainer(workload, inspection, tmp_path, kind, grouping):
    if kind == "encoder" and "packing" in grouping:
        grouping = {"micro_batch_size": 1}  # rows of a classifier are not packed
    spec = plain_spec(workload(kind), tmp_path, batch_size=8, learning_rate=5e-3, **grouping)
    compared = compare(spec, inspection(kind), steps=20, folder=tmp_path, timed=False)
    assert len(compared.our_losses) == 20
    assert compared.largest_difference < 1e-5
    assert compared.our_losses[-1] < compared.our_losses[0] - 0.01
