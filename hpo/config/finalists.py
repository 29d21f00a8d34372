"""Which trials are trained again with fresh seeds, and what is claimed of the best one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Claim = Literal["recipe", "adapter"]
"""What is said to be better: settings, whatever the seed, or the one adapter that they made."""


@dataclass(frozen=True)
class Finalists:
    """Repeats with fresh seeds: the best `top` trials and the baseline, at most `seeds` times each."""

    top: int
    seeds: int
    claim: Claim = "recipe"
    """`recipe`: a file that asks for seeds asks what they can say, and settings are used again when data has grown."""

    def resolved(self) -> dict[str, Any]:
        """As plain values, without the claim where it is what earlier files could ask for."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("claim", "recipe")}
