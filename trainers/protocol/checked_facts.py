"""What `Check` says of valid rows: each split as a trial will see it, a few rows as the model does, the clean copy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SplitFacts:
    """One split as a trial will see it."""

    rows: int
    duplicates: int
    """Rows whose input came before in the same split."""
    shared: dict[str, int]
    """Other split -> rows that are in both."""
    labels: dict[str, int]
    """Label -> rows (or words) that have it; empty without labels."""
    token_percentiles: dict[str, int]
    """`p50`, `p90`, `p99`, `max` of the tokens of a row, uncut."""
    too_long: int
    """Rows longer than `max_length`."""
    tokens_cut: int


@dataclass(frozen=True)
class Piece:
    """A part of a rendered row: whether its tokens count in the loss."""

    text: str
    is_learned: bool


@dataclass(frozen=True)
class Rendered:
    """One training row as the model sees it."""

    pieces: list[Piece]
    target: str = ""
    """What is to be answered, where that is no part of the text."""


@dataclass(frozen=True)
class Dropped:
    """A row that the clean copy does not have."""

    split: str
    where: str
    why: str


@dataclass(frozen=True)
class CleanCopy:
    """What was written, and in what it differs from the sources."""

    dir: str
    rows: dict[str, int]
    """Of each split that the data names."""
    dropped: list[Dropped]
    marked_files: list[str]
    """Files whose byte order mark the copy does not have."""
