"""A benchmark's lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    what: str
    measured: str
    at_most: str = ""


def show(rows: Iterable[Row]) -> None:
    """Print each row as soon as it is there."""
    print(f"{'what':<62} {'measured':>17} {'bound':>13}")
    for row in rows:
        print(f"{row.what:<62} {row.measured:>17} {row.at_most:>13}", flush=True)
