"""How the champion of a sweep is released: what `promote:` of the YAML says"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from trainers.protocol.requests import Prefer
from trainers.protocol.variants import Target

ReleasedAs = Literal["merged", "adapters"]
"""The adapter becomes part of the weights, or stays a file beside the base model."""
Require = Literal["better", "not_worse", "always"]
"""What a challenger must show against the champion of its name."""
Approve = Literal["auto", "ask", "when_close"]
"""Who gives the alias `champion` to a challenger: the rule, a person, or a person only where the rows do not tell."""


@dataclass(frozen=True)
class AuthorSays:
    """What only a person knows of a release, for its model card; None where the file does not say it."""

    intended_use: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Promote:
    """How the champion is released."""

    name: str
    max_drop: float
    """Largest worsening of the metric a variant may show, as a share of torch's own value."""
    replace: bool = False
    """The earlier spelling of `require: always`."""
    allow_useless: bool = False
    """Release a champion that is no better than always answering with the mean or the most frequent label."""
    require: Require = "better"
    approve: Approve = "auto"
    card: AuthorSays = AuthorSays()
    min_agreement: float | None = None
    """Smallest share of answers that must be torch's."""
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    prefer: Prefer = "latency"
    target: Target = "cpu"
    released_as: ReleasedAs = "merged"
    """The key `as`, which Python keeps for itself."""
    top: int = 0
    """How many other trials become adapters beside the champion's."""

    @classmethod
    def of(cls, name: str, card: AuthorSays, given: Mapping[str, Any]) -> Self:
        """From the keys of the YAML."""
        fields = {"released_as" if key == "as" else key: value for key, value in given.items()}
        return cls(name, card=card, **fields)

    def resolved(self) -> dict[str, Any]:
        """As the YAML has it, with defaults."""
        return {"as" if field == "released_as" else field: value for field, value in asdict(self).items()}

    @property
    def is_adapters(self) -> bool:
        """Whether the champion stays an adapter beside its base."""
        return self.released_as == "adapters"

    @property
    def terms(self) -> str:
        """What a release was asked for besides `max_drop`; empty where nothing was."""
        limits = {name: getattr(self, name) for name in ("min_agreement", "max_latency_ms", "max_size_mb")}
        given = [f"{name} {limit:g}" for name, limit in limits.items() if limit is not None]
        chosen = [] if self.prefer == "latency" else [f"prefer {self.prefer}"]
        form = ["as adapters"] * self.is_adapters + [f"top {self.top}"] * bool(self.top)
        return ", ".join([*given, *chosen, *([] if self.target == "cpu" else [f"target {self.target}"]), *form])

    @property
    def said(self) -> str:
        """What the author says in the model card; empty where that is nothing."""
        return "\n".join(text for text in (self.card.intended_use, self.card.licence) if text)

    @property
    def requirement(self) -> Require:
        """What the champion of that name is asked to yield to."""
        return "always" if self.replace else self.require
