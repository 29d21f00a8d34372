"""A benchmark's lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    what: str
    measured: str
    at_most: str = ""


def show(rows: Sequence[Row]) -> None:
    print(f"{'what':<62}{'measured':>18}{'bound':>12}")
    for row in rows:
        print(f"{row.what:<62}{row.measured:>18}{row.at_most:>12}", flush=True)
