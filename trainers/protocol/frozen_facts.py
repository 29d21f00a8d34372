"""What `Freeze` wrote, and what `Check` says of frozen rows against those of an earlier night"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trainers.protocol.trial_spec import SourceRef

Moved = Literal["added", "gone"]
"""Rows that only the later night has, or only the earlier one: either may differ from the rows of the earlier night."""
What = Literal["length", "label", "word", "classifier", "labelling"]
"""The last two are classifiers that tell rows of one night from those of another: by their words, and by their words
with the labels that these have."""


def frozen_sources(folder: Path, validation: Sequence[str] = ("validation",)) -> dict[str, SourceRef]:
    """The sources of a sweep on the frozen rows in a folder; `validation` names the sides that it validates on."""
    held = [str(folder / f"{side}.jsonl") for side in validation]
    return {
        "train": SourceRef(str(folder / "train.jsonl")),
        "validation": SourceRef(held[0]) if len(held) == 1 else SourceRef(str(folder), files=held),
        "test": SourceRef(str(folder / "test.jsonl")),
    }


@dataclass(frozen=True)
class FrozenRows:
    """Rows as they are from now on, in a folder that is named by their hash.

    Rows of running text are counted in passages of a few thousand characters.
    """

    sha256: str
    dir: str
    rows: dict[str, int]
    """Side -> rows: train, validation, certify, test; likewise below."""
    labels: dict[str, dict[str, int]]
    """Side -> label -> rows that have it; empty without labels."""
    added: dict[str, int]
    """Rows whose input the earlier night did not have; all of them without an earlier night."""
    gone: dict[str, int]
    """By the side that they had."""
    relabelled: dict[str, int]
    """Rows of the same input with another label or answer."""
    is_running_text: bool
    """As in `DataRef`."""
    notes: list[str]


@dataclass(frozen=True)
class RowShift:
    """One thing that differs beyond chance between rows of one night and those of an earlier one."""

    rows: Moved
    what: What
    name: str
    """Of the label or word."""
    before: float
    """Medians of lengths, shares of rows with the label or word, of the earlier night's rows; 0.5 for `classifier`, and
    the area of that one for `labelling`."""
    after: float
    """Of the rows that are added or gone; for a classifier the area under the curve."""
    p_value: float
    """Corrected for everything that was compared."""
    low: float | None = None
    """Of a classifier: bounds of the area (95 %)."""
    high: float | None = None


@dataclass(frozen=True)
class NightShift:
    """How rows differ from those of an earlier night."""

    compared: dict[Moved, int]
    """Rows that were compared; too few say nothing."""
    shifts: list[RowShift] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """The same in sentences."""
