"""The ledger of a model's name as people read it: how many claims, what they needed, how often the test was read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import SweepError
from hpo.nights.story import odds, threshold_of, times

_CERTIFIED = ("promote", "certified")
"""Decisions of a claim that held."""


@dataclass(frozen=True)
class Claims:
    """What a ledger holds."""

    model: str
    claims: int
    certified: int
    next_to_prove: float | None
    """The evidence that the last claim needed; None before there is one."""
    test_readings: int

    def in_words(self) -> str:
        """One sentence."""
        if not self.claims:
            return f"ledger of {self.model}: no claim yet"
        needed = f"; the last one needed evidence {odds(self.next_to_prove)}" if self.next_to_prove else ""
        readings = f"; the sealed test was read {times(self.test_readings)}" if self.test_readings else ""
        return f"ledger of {self.model}: {self.claims:,} claims, {self.certified:,} certified{needed}{readings}"


def claims_of(model: str, path: Path) -> Claims:
    """The claims of a model's name; none where no night has made one. Raises `SweepError` for a damaged ledger."""
    lines = _lines(path)
    claims = [line for line in lines if "e_value" in line]
    certified = [c for c in claims if c.get("is_certified", c.get("decision") in _CERTIFIED)]
    readings = [line for line in lines if line.get("kind") == "test" or line.get("test_reading")]
    needed = threshold_of(claims[-1]) if claims else None
    return Claims(model, len(claims), len(certified), needed, len(readings))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line; one that is being written, or that a kill cut short, does not count."""
    try:
        *whole, _ = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        found = [json.loads(line) for line in whole]
    except (OSError, ValueError) as error:
        raise SweepError(f"{path} cannot be read: {error}") from error
    return [line for line in found if isinstance(line, dict)]
