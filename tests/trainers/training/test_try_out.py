"""The rows that shortcuts are tried on: short, and each with something to learn."""

from __future__ import annotations

from types import SimpleNamespace

from trainers.data.tokens import Encoded, Tokens, write_tokens
from trainers.training.try_out import LONGEST, few_rows


def test_rows_with_late_targets_keep_one_where_their_last_token_is_none(tmp_path):
    """As in a chat whose template closes a turn with a newline: the last token takes the place of the last one kept."""
    asked = [LONGEST + 6, LONGEST + 6, LONGEST + 6]
    rows = [Encoded(list(range(1, 41)), [int(place in (at, at + 1)) for place in range(40)]) for at in asked]
    write_tokens(tmp_path / "t", {"train": rows}, {"train": [{} for _ in rows]})
    tokens = Tokens(tmp_path / "t", "train", "token")
    task = SimpleNamespace(targets="token", unit_count=lambda given, row: int(given.targets(row)[1:].sum()))
    batch = few_rows(task, tokens, pad_id=0)
    assert all(row.sum() >= 1 for row in batch.targets)
    assert (batch.input_ids == 40).sum() == len(rows)  # each one's last token
    assert batch.input_ids.shape[1] < 40
