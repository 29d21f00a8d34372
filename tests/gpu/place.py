"""Where a check runs: the device, a folder for its files, and whether it is only rehearsed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Given to every check."""

    device: str
    """`cuda:0`; `cpu` where it is rehearsed."""
    folder: Path
    """Empty, and its own."""

    @property
    def rehearses(self) -> bool:
        """Whether all code runs, on a CPU and with the smallest sizes: its figures say nothing."""
        return self.device == "cpu"

    def size(self, real: T, rehearsed: T) -> T:
        """A size, a count or a choice: as it is measured, or as it is rehearsed."""
        return rehearsed if self.rehearses else real
