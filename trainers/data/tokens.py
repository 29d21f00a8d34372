"""Tokenized data on disk: memory-mapped arrays that all trials share, in a folder named by a hash of their origin."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainers.protocol.files import sync_folder

TargetKind = Literal["row", "token", "sequence"]
"""The kind of a row's targets: numbers for the whole row; one per token, where 0 means nothing to learn; or the token
ids plus one of another text, so that 0 is padding there too."""


@dataclass(frozen=True)
class Encoded:
    """One row: token ids [tokens], and its targets (see `TargetKind`)."""

    ids: list[int]
    targets: Sequence[float]
    types: list[int] | None = None
    """Which of two texts a token belongs to, for models with this input."""
    target_bytes: int = 0
    """Length of the target text in UTF-8 bytes; 0 where targets are not text."""


class Tokens:
    """One split: rows of token ids with their targets, read from memory maps.

    `max_length` cuts rows shorter than the tokenization did, and the text of an answer too. Unless each token has a
    target, what is cut keeps its last token, which is the tokenizer's end token. `subset` makes a split of some of the
    rows.
    """

    def __init__(self, folder: Path, split: str, kind: TargetKind, max_length: int | None = None) -> None:
        def read(name: str) -> npt.NDArray[Any]:
            array: npt.NDArray[Any] = np.load(folder / f"{split}.{name}.npy", mmap_mode="r", allow_pickle=False)
            return array

        self.kind = kind
        self._ids = read("ids")
        self._offsets = read("offsets")
        self._targets = read("targets")
        self._target_offsets = read("target_offsets")
        self._types = read("types")
        self.target_bytes = read("target_bytes")
        """[rows]"""
        self._max_length = max_length
        self.numbers: npt.NDArray[np.int64] = np.arange(len(self._offsets) - 1)
        """Each row's number in the files, [rows]."""

    def subset(self, rows: npt.NDArray[np.int64]) -> Tokens:
        """These rows alone, in this order, on the same memory maps; row 0 is then the first of `rows`."""
        chosen = copy.copy(self)
        chosen.numbers = self.numbers[rows]
        chosen.target_bytes = self.target_bytes[rows]
        return chosen

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, shape [rows]."""
        lengths = np.diff(self._offsets)[self.numbers]
        return lengths if self._max_length is None else np.minimum(lengths, self._max_length)

    @property
    def widths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, or of its answer where that is a separate and longer text, shape [rows]."""
        if self.kind != "sequence":
            return self.lengths
        answers = np.diff(self._target_offsets)[self.numbers]
        return np.maximum(self.lengths, answers if self._max_length is None else np.minimum(answers, self._max_length))

    def ids(self, row: int) -> npt.NDArray[np.int64]:
        """The token ids of a row, [tokens]."""
        return self._cut(self._ids[self._tokens_of(row)])

    def types(self, row: int) -> npt.NDArray[np.int64] | None:
        """Which of two texts (0 or 1) each token of a row belongs to, [tokens]; None for a split without types."""
        return self._cut(self._types[self._tokens_of(row)]) if len(self._types) else None

    def targets(self, row: int) -> npt.NDArray[Any]:
        """The targets of a row, [tokens] or [targets] as `TargetKind` says."""
        number = self.numbers[row]
        targets = self._targets[self._target_offsets[number] : self._target_offsets[number + 1]]
        return targets if self.kind == "row" else self._cut(targets)

    def _tokens_of(self, row: int) -> slice:
        number = self.numbers[row]
        return slice(self._offsets[number], self._offsets[number + 1])

    def _cut(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._max_length is None or len(values) <= self._max_length:
            return values
        if self.kind == "token":
            return values[: self._max_length]
        return np.concatenate([values[: self._max_length - 1], values[-1:]])


def write_tokens(folder: Path, splits: dict[str, list[Encoded]], rows: dict[str, list[Any]]) -> None:
    """Write the tokens of all splits, and `rows` as JSONL to measure a release.

    A rename puts the folder in place when all of it is on the disk: after a power cut no part of it may be empty.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    for split, encoded in splits.items():
        _write_ragged(scratch, split, "ids", "offsets", [e.ids for e in encoded], np.int32)
        is_whole = all(isinstance(value, int) for e in encoded for value in e.targets)
        dtype = np.int32 if is_whole else np.float64  # float32 would merge neighbouring large numbers
        _write_ragged(scratch, split, "targets", "target_offsets", [e.targets for e in encoded], dtype)
        types = [t for e in encoded for t in e.types or []]
        np.save(scratch / f"{split}.types.npy", np.array(types, dtype=np.int8), allow_pickle=False)
        sizes = np.array([e.target_bytes for e in encoded], dtype=np.int64)
        np.save(scratch / f"{split}.target_bytes.npy", sizes, allow_pickle=False)
        with (scratch / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[split])
    for path in scratch.iterdir():
        with path.open("rb") as written:
            os.fsync(written.fileno())
    sync_folder(scratch)
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(scratch)  # another sweep wrote the same content first


def _write_ragged(
    folder: Path, split: str, name: str, offsets_name: str, rows: Sequence[Sequence[float]], dtype: type[np.number]
) -> None:
    flat = np.fromiter((value for row in rows for value in row), dtype=dtype)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    np.save(folder / f"{split}.{name}.npy", flat, allow_pickle=False)
    np.save(folder / f"{split}.{offsets_name}.npy", offsets, allow_pickle=False)
