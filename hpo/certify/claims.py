"""The ledger of a model's name as people read it: how many claims, what they needed, how often the test was read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpo.certify.ledger import Ledger
from hpo.nights.story import odds, times


@dataclass(frozen=True)
class Claims:
    """What a ledger holds."""

    model: str
    claims: int
    certified: int
    last_needed: float | None
    """The evidence that the last claim needed; None before there is one."""
    test_readings: int

    def in_words(self) -> str:
        """One sentence."""
        if not self.claims:
            return f"ledger of {self.model}: no claim yet"
        needed = f"; the last one needed evidence {odds(self.last_needed)}" if self.last_needed else ""
        readings = f"; the sealed test was read {times(self.test_readings)}" if self.test_readings else ""
        claims = f"{self.claims:,} claim{'s' * (self.claims != 1)}, {self.certified:,} certified"
        return f"ledger of {self.model}: {claims}{needed}{readings}"


def claims_of(model: str, path: Path) -> Claims:
    """The claims of a model's name; none where no night has made one. Raises `SweepError` for a damaged ledger."""
    ledger = Ledger(path)
    claims, readings = ledger.claims(), ledger.readings()
    certified = sum(claim.is_certified for claim in claims)
    return Claims(model, len(claims), certified, 1 / claims[-1].level if claims else None, len(readings))
