"""Packing: the rows of a micro-batch one after the other in a single sequence, so that no padding is computed.

Positions begin anew with each row. transformers reads from that where rows end and masks attention between them; a
model that does not is found out before it trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainers.data.sources import DataProblem
from trainers.data.tokens import Tokens
from trainers.protocol.events import Finding
from trainers.tasks.base import Batch

TOLERANCE = 1e-3
"""Of logits, between a row alone and in a pack; one that sees another row is off by tenths."""


def packed(tokens: Tokens, rows: Sequence[int], device: torch.device) -> Batch:
    """The rows as one sequence [1, tokens]; the first token of each is no target, for nothing comes before it."""
    ids = [torch.from_numpy(tokens.ids(row).astype(np.int64)) for row in rows]
    targets = [torch.from_numpy(np.array(tokens.targets(row))) for row in rows]
    for target in targets:
        target[0] = 0
    ids_in_line = torch.cat(ids)[None].to(device)
    return Batch(
        ids_in_line,
        torch.ones_like(ids_in_line),
        torch.cat(targets)[None].to(device),
        None,
        torch.from_numpy(np.array(tokens.target_bytes[list(rows)])),
        torch.cat([torch.arange(len(row)) for row in ids])[None].to(device),
    )


def check_rows_apart(model: Any) -> None:
    """Raises `DataProblem` for a model whose packed rows see each other: tried on two rows of three tokens."""
    device = next(model.parameters()).device
    rows = torch.tensor([[1, 2, 3], [2, 3, 1]], device=device)
    positions = torch.arange(3, device=device).repeat(2)[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        apart = model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits
        in_line = model(input_ids=rows.reshape(1, 6), position_ids=positions).logits.reshape(apart.shape)
    model.train(was_training)
    if not torch.allclose(apart, in_line, atol=TOLERANCE):
        found = f"rows see each other in a {type(model.get_base_model()).__name__}"
        raise DataProblem([Finding("training.packing", found, "packing: false")])
