"""What a server filters and writes down: what `hpo serve --config FILE` hands to the serving process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FilterKind = Literal["block_list", "classifier", "function"]
Action = Literal["refuse", "redact"]
Hold = Literal["sentence", "answer"]


@dataclass(frozen=True)
class FilterSpec:
    """One filter of prompts and answers."""

    kind: FilterKind
    name: str
    """As `/metrics` and answers call it."""
    path: str
    """A block list's file, a classifier's release folder, or a Python file."""
    action: Action = "refuse"
    """What a block list does where it finds a phrase."""
    hold: Hold = "answer"
    """How much of an answer a classifier or a function judges at once. A block list needs no more than a phrase."""
    function: str = ""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Of a classifier: from which probability on a label refuses a text; the labels that are off are not in it."""


@dataclass(frozen=True)
class LogSpec:
    """Where and how predictions are written down."""

    dir: str
    share: float = 1.0
    """Of the predictions; which ones is drawn."""
    texts: bool = False
    max_mb: float = 64.0
    """Of one file."""
    files: int = 10
    """The most files; the oldest one is deleted."""


@dataclass(frozen=True)
class ServeConfig:
    """The sections of a serve configuration."""

    filters: tuple[FilterSpec, ...] = ()
    """In the order in which a text passes them."""
    log: LogSpec | None = None
