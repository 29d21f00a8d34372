"""Batches: which rows a step sees, and how they are laid out so that little padding is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from trainers.tasks.base import Batch
from trainers.tokens import Tokens

_EVALUATION_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Most padded tokens in one evaluation batch. On a CPU the activations should stay in its caches: MiniLM's 500 rows
of 27 tokens take 7.5 s at 4096, 5.4 s at 1024, 5.1 s at 512 (AVX2, one thread)."""


def effective_batches(rows: int, batch_size: int, max_examples: int, seed: int) -> Iterator[list[int]]:
    """Row numbers of every optimizer step: each pass in a new order, `max_examples` in all, the last step smaller."""
    generator = np.random.default_rng(seed)
    pool: list[int] = []
    left = max_examples
    while left > 0:
        size = min(batch_size, left)
        while len(pool) < size:
            pool += generator.permutation(rows).tolist()
        yield pool[:size]
        pool = pool[size:]
        left -= size


def micro_batches(tokens: Tokens, rows: Sequence[int], micro_batch_size: int) -> list[list[int]]:
    """The rows of one step in groups of like length, at most `micro_batch_size` each."""
    lengths = tokens.lengths
    ordered = sorted(rows, key=lambda row: (int(lengths[row]), row))
    return [ordered[i : i + micro_batch_size] for i in range(0, len(ordered), micro_batch_size)]


def evaluation_tokens(device: torch.device, halvings: int = 0) -> int:
    """Most padded tokens in one evaluation batch on a device, halved as often as memory ran out."""
    return _EVALUATION_TOKENS[device.type] >> halvings


def evaluation_batches(
    tokens: Tokens, pad_id: int, device: torch.device, most_tokens: int
) -> Iterator[tuple[list[int], Batch]]:
    """All rows once, sorted by length, in batches of at most `most_tokens` padded tokens: (row numbers, batch)."""
    lengths = tokens.lengths
    group: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if group and (len(group) + 1) * int(lengths[row]) > most_tokens:
            yield group, collate(tokens, group, pad_id, device)
            group = []
        group.append(row)
    if group:
        yield group, collate(tokens, group, pad_id, device)


def collate(tokens: Tokens, rows: Sequence[int], pad_id: int, device: torch.device) -> Batch:
    """Rows as padded tensors. One target a row stays [rows]; a mask is padded to [rows, tokens]."""
    ids = [torch.from_numpy(tokens.ids(row).astype(np.int64)) for row in rows]
    targets = [torch.from_numpy(tokens.targets(row).astype(np.int64)) for row in rows]
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    is_per_row = all(len(target) == 1 for target in targets) and any(len(row) > 1 for row in ids)
    return Batch(
        torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad_id).to(device),
        mask.to(device),
        (torch.cat(targets) if is_per_row else torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)).to(device),
    )
