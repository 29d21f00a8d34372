"""Which rows a step sees."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainers.data.tokens import Encoded, Tokens, write_tokens
from trainers.training.batches import (
    collate,
    dealt,
    draw_from,
    effective_batches,
    evaluation_batches,
    micro_batches,
    owners,
    seed_of,
)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 200), st.integers(0, 3))
def test_every_trial_sees_the_same_number_of_examples_whatever_its_batch_size(rows, batch_size, examples, seed):
    batches = list(effective_batches(rows, batch_size, examples, seed))
    assert sum(map(len, batches)) == examples
    assert all(len(batch) == batch_size for batch in batches[:-1])
    seen = [row for batch in batches for row in batch]
    whole_passes = Counter(seen[: examples // rows * rows])
    assert set(whole_passes.values()) <= {examples // rows}


def test_the_order_of_rows_does_not_depend_on_the_batch_size():
    def seen(size):
        return [row for batch in effective_batches(30, size, 75, seed=4) for row in batch]

    assert seen(4) == seen(16)


def test_micro_batches_hold_rows_of_like_length_once_each(tmp_path):
    tokens = _tokens(tmp_path, [9, 2, 5, 2, 8, 3])
    groups = micro_batches(tokens, [0, 1, 2, 3, 4, 5], 2)
    assert groups == [[1, 3], [5, 2], [4, 0]]


@given(st.lists(st.integers(1, 90), min_size=1, max_size=40), st.integers(2, 5))
def test_rows_that_are_dealt_to_devices_are_as_many_and_as_long_on_each(tmp_path_factory, lengths, devices):
    tokens = _tokens(tmp_path_factory.mktemp("dealt"), lengths)
    groups = dealt(tokens, range(len(lengths)), devices)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    counts = [len(group) for group in groups] + [0] * (devices - len(groups))
    assert max(counts) - min(counts) <= 1
    sums = [sum(lengths[row] for row in group) for group in groups] + [0] * (devices - len(groups))
    assert max(sums) - min(sums) <= max(lengths)


def test_a_micro_batch_goes_to_the_device_that_has_least_to_do(tmp_path):
    tokens = _tokens(tmp_path, [1, 2, 3, 4, 5, 6, 7, 90])
    groups = micro_batches(tokens, range(8), 2)
    assert owners(tokens, groups, 2) == [1, 1, 1, 0]
    assert owners(tokens, groups, 1) == [0, 0, 0, 0]
    assert sorted(owners(tokens, groups, 5)) == [0, 1, 2, 3]


def test_every_group_of_every_step_of_every_trial_has_a_seed_of_its_own():
    assert len({seed_of(trial, step, group) for trial in range(3) for step in range(50) for group in range(4)}) == 600


def test_what_is_drawn_from_a_seed_is_what_torch_draws_from_it():
    torch.manual_seed(7)
    wanted = torch.rand(3)
    draw_from(7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), wanted)


def test_evaluation_sees_every_row_once_in_batches_of_bounded_size(tmp_path):
    lengths = [1, 700, 30, 4096, 5000, 12, 700, 30]
    found = list(evaluation_batches(_tokens(tmp_path, lengths), 0, torch.device("cpu"), 4096))
    batches = [batch for _, batch in found]
    assert sorted(row for rows, _ in found for row in rows) == list(range(len(lengths)))
    assert all([lengths[row] for row in rows] == batch.attention_mask.sum(dim=1).tolist() for rows, batch in found)
    assert sorted(int(n) for b in batches for n in b.attention_mask.sum(dim=1)) == sorted(lengths)
    assert all(b.input_ids.numel() <= max(4096, b.input_ids.shape[1]) for b in batches)


def test_an_evaluation_is_bounded_by_answers_that_are_longer_than_their_inputs(tmp_path):
    """The logits of a batch are as many as its answers have tokens, times the vocabulary."""
    rows = [Encoded([5] * 2, [6] * length) for length in (100, 1, 40, 100, 3) * 8]
    write_tokens(tmp_path / "t", {"validation": rows}, {"validation": []})
    tokens = Tokens(tmp_path / "t", "validation", "sequence")
    found = list(evaluation_batches(tokens, 0, torch.device("cpu"), 400))
    assert sorted(row for numbers, _ in found for row in numbers) == list(range(40))
    assert max(batch.targets.numel() for _, batch in found) == 400


def test_what_was_written_is_read_back(tmp_path):
    folder = tmp_path / "t"
    encoded = {"train": [Encoded([5, 6, 7], [0, 1, 1], [0, 0, 1], 9), Encoded([8], [1], [0])]}
    write_tokens(folder, encoded, {"train": [{"a": 1}, {"a": 2}]})
    tokens = Tokens(folder, "train", "token")
    assert [tokens.ids(i).tolist() for i in range(len(tokens))] == [[5, 6, 7], [8]]
    assert tokens.targets(0).tolist() == [0, 1, 1]
    assert list(tokens.lengths) == [3, 1]
    assert list(tokens.target_bytes) == [9, 0]
    batch = collate(tokens, [0, 1], 3, torch.device("cpu"))
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 3, 3]]
    assert batch.targets.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]


def test_tokens_are_on_the_disk_before_their_folder_is_in_its_place(tmp_path, monkeypatch):
    synced = {}

    def sync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced[path.name] = (tmp_path / "t").exists()

    monkeypatch.setattr(os, "fsync", sync)
    write_tokens(tmp_path / "t", {"train": [Encoded([5], [1])]}, {"train": [{}]})
    assert {synced.get(path.name) for path in (tmp_path / "t").iterdir()} == {False}


def test_a_shorter_max_length_cuts_texts_before_their_end_mark_and_conversations_at_the_end(tmp_path):
    encoded = {
        "answers": [Encoded([1, 5, 6, 2], [8, 9, 10, 3])],
        "labels": [Encoded([1, 5, 6, 7, 2], [3]), Encoded([1, 2], [0])],
        "masks": [Encoded([4, 5, 6], [0, 1, 1])],
    }
    write_tokens(tmp_path / "t", encoded, {name: [] for name in encoded})
    labels = Tokens(tmp_path / "t", "labels", "row", max_length=2)
    masks = Tokens(tmp_path / "t", "masks", "token", max_length=2)
    answers = Tokens(tmp_path / "t", "answers", "sequence", max_length=3)
    assert [answers.ids(0).tolist(), answers.targets(0).tolist()] == [[1, 5, 2], [8, 9, 3]]
    assert [labels.ids(0).tolist(), labels.ids(1).tolist(), masks.ids(0).tolist()] == [[1, 2], [1, 2], [4, 5]]
    assert [labels.targets(0).tolist(), masks.targets(0).tolist()] == [[3], [0, 1]]
    assert list(labels.lengths) == [2, 2]


def _tokens(tmp_path: Path, lengths: list[int]) -> Tokens:
    write_tokens(tmp_path / "t", {"train": [Encoded([1] * n, [0]) for n in lengths]}, {"train": []})
    return Tokens(tmp_path / "t", "train", "row")
