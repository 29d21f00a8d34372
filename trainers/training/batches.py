"""Batches: which rows a step sees, and how they are laid out so that little padding is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from trainers.data.tokens import Tokens
from trainers.tasks.base import Batch

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


def evaluation_tokens(device: torch.device, micro_batch_halvings: int = 0) -> int:
    """Most padded tokens in one evaluation batch on a device, halved as often as memory ran out."""
    return _EVALUATION_TOKENS[device.type] >> micro_batch_halvings


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
    """Rows as tensors, padded on the right; targets with 0."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = [torch.from_numpy(tokens.ids(row).astype(np.int64)) for row in rows]
    targets = [torch.from_numpy(np.array(tokens.targets(row))) for row in rows]
    types = [tokens.types(row) for row in rows]
    return Batch(
        pad(ids, batch_first=True, padding_value=pad_id).to(device),
        pad([torch.ones_like(row) for row in ids], batch_first=True).to(device),
        pad(targets, batch_first=True).to(device),
        None
        if types[0] is None
        else pad([torch.from_numpy(np.array(t, dtype=np.int64)) for t in types], batch_first=True).to(device),
        torch.from_numpy(np.array(tokens.target_bytes[list(rows)])),
    )
