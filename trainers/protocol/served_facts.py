"""What `Check` says of the prediction logs of a server: how they differ from the training rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ShiftKind = Literal["length", "label", "word", "rare tokens"]


@dataclass(frozen=True)
class Shift:
    """One thing that served texts have otherwise than training rows, beyond chance."""

    kind: ShiftKind
    name: str
    """Of the label or the word; what is counted otherwise."""
    trained: float
    served: float
    """Medians of lengths and of the share of rare tokens; shares of the texts that have the label or the word."""
    effect: float
    """Of lengths and rare tokens how often the served text has more of a pair; of labels the difference of the shares;
    of words the log of the ratio of their odds."""
    p_value: float
    """Corrected for everything that was compared."""


@dataclass(frozen=True)
class ServedFacts:
    """What a server was asked, compared with the training rows."""

    rows: int
    texts: int
    """Rows whose text is in the log."""
    others: int
    """Rows of other tasks, which were left out."""
    shifts: list[Shift]
    notes: list[str]
    """The same in sentences."""
    refused: int = 0
    """Prompts of the task that filters refused: no model has seen them, so they are not compared."""
    refused_by: dict[str, dict[str, int]] = field(default_factory=dict)
    """Filter -> category -> prompts; one prompt may have several categories."""
