"""Batches: which rows a step sees, and how they are laid out so that little padding is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from trainers.data.tokens import Tokens
from trainers.tasks.base import Batch
from trainers.training.ranks import ALONE, Ranks

_EVALUATION_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Most padded tokens in one evaluation batch, of inputs and of answers. On a CPU the activations should stay in its
caches: MiniLM's 500 rows of 27 tokens take 7.5 s at 4096, 5.4 s at 1024, 5.1 s at 512 (AVX2, one thread)."""


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
    ordered = _by_length(tokens, rows)
    return [ordered[i : i + micro_batch_size] for i in range(0, len(ordered), micro_batch_size)]


def dealt(tokens: Tokens, rows: Sequence[int], devices: int) -> list[list[int]]:
    """The rows of one step in a group for each device, dealt from the longest on: to the last device, then back."""
    ordered, turn = _by_length(tokens, rows)[::-1], 2 * devices
    places = [sorted([*range(i, len(rows), turn), *range(turn - 1 - i, len(rows), turn)]) for i in range(devices)]
    return [[ordered[place] for place in mine] for mine in places if mine]


def _by_length(tokens: Tokens, rows: Sequence[int]) -> list[int]:
    lengths = tokens.lengths
    return sorted(rows, key=lambda row: (int(lengths[row]), row))


def owners(tokens: Tokens, groups: Sequence[Sequence[int]], devices: int) -> list[int]:
    """The device of each group: the longest first, each to the device that has least to do."""
    if devices == 1:
        return [0] * len(groups)
    lengths = tokens.lengths
    work = [int(lengths[list(group)].sum()) for group in groups]
    loads, owner = [0] * devices, [0] * len(groups)
    for index in sorted(range(len(groups)), key=lambda index: -work[index]):
        owner[index] = min(range(devices), key=lambda device: loads[device])
        loads[owner[index]] += work[index]
    return owner


def seed_of(trial_seed: int, step: int, group: int) -> int:
    """The seed of what is drawn for one group of a step (dropout, noise).

    It follows from the place in the data alone: not from the device that computes the group, nor from what came before.
    """
    return int(np.random.SeedSequence((trial_seed, step, group)).generate_state(1)[0])


def draw_from(seed: int, device: torch.device) -> None:
    """Let torch draw from a seed, in what is computed on a device.

    Without a GPU, `torch.manual_seed` prints the stack three times, for GPUs that may come: half a millisecond.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def evaluation_tokens(device: torch.device, micro_batch_halvings: int = 0) -> int:
    """Most padded tokens in one evaluation batch on a device, halved as often as memory ran out."""
    return _EVALUATION_TOKENS[device.type] >> micro_batch_halvings


def evaluation_batches(
    tokens: Tokens, pad_id: int, device: torch.device, most_tokens: int, ranks: Ranks = ALONE
) -> Iterator[tuple[list[int], Batch]]:
    """All rows once, sorted by length, in batches of at most `most_tokens` padded tokens: (row numbers, batch).

    Of several ranks each has a share of the batches.
    """
    for group in ranks.share(_evaluation_groups(tokens, most_tokens)):
        yield group, collate(tokens, group, pad_id, device)


def _evaluation_groups(tokens: Tokens, most_tokens: int) -> Iterator[list[int]]:
    widths = tokens.widths
    group: list[int] = []
    for row in np.argsort(widths, kind="stable").tolist():
        if group and (len(group) + 1) * int(widths[row]) > most_tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


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
