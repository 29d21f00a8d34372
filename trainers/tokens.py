"""Tokenized data on disk: plain arrays, memory-mapped, shared by all trials, keyed by what they were made of."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Encoded:
    """One row: token ids [tokens], and targets: a loss mask [tokens] of 0 and 1, or one label."""

    ids: list[int]
    targets: list[int]


class Tokens:
    """One split: rows of token ids with their targets, read from memory maps.

    `max_length` cuts rows shorter than they were cut when they were tokenized. A label's row keeps its last token,
    which is the tokenizer's end mark.
    """

    def __init__(self, folder: Path, split: str, max_length: int | None = None) -> None:
        def read(name: str) -> npt.NDArray[np.int64]:
            array: npt.NDArray[np.int64] = np.load(folder / f"{split}.{name}.npy", mmap_mode="r", allow_pickle=False)
            return array

        self._ids = read("ids")
        self._offsets = read("offsets")
        self._targets = read("targets")
        self._target_offsets = read("target_offsets")
        self._max_length = max_length

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, shape [rows]."""
        lengths = np.diff(self._offsets)
        return lengths if self._max_length is None else np.minimum(lengths, self._max_length)

    def ids(self, row: int) -> npt.NDArray[np.int64]:
        ids = self._ids[self._offsets[row] : self._offsets[row + 1]]
        if self._max_length is None or len(ids) <= self._max_length:
            return ids
        if self._has_mask(row):
            return ids[: self._max_length]
        return np.concatenate([ids[: self._max_length - 1], ids[-1:]])

    def targets(self, row: int) -> npt.NDArray[np.int64]:
        targets = self._targets[self._target_offsets[row] : self._target_offsets[row + 1]]
        return targets[: self._max_length] if self._has_mask(row) else targets

    def _has_mask(self, row: int) -> bool:
        """Whether the row's target is a mask over its tokens, not one label."""
        return bool(self._target_offsets[row + 1] - self._target_offsets[row] > 1)


def write_tokens(folder: Path, splits: dict[str, list[Encoded]], rows: dict[str, list[Any]]) -> None:
    """Write all splits, and the rows themselves as JSONL for measuring; the folder appears whole, by rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    for split, encoded in splits.items():
        _write_ragged(scratch, split, "ids", "offsets", [e.ids for e in encoded], np.int32)
        _write_ragged(scratch, split, "targets", "target_offsets", [e.targets for e in encoded], np.int32)
        with (scratch / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[split])
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(scratch)  # another sweep wrote the same content first


def _write_ragged(
    folder: Path, split: str, name: str, offsets_name: str, rows: Sequence[Sequence[int]], dtype: type[np.integer]
) -> None:
    flat = np.fromiter((value for row in rows for value in row), dtype=dtype)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    np.save(folder / f"{split}.{name}.npy", flat, allow_pickle=False)
    np.save(folder / f"{split}.{offsets_name}.npy", offsets, allow_pickle=False)
