"""What promotion measured and released: torch's own numbers, every variant with its verdict, the registered version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hpo.results.outcome import Comparison
from trainers.protocol.measured import Measurement


@dataclass(frozen=True)
class TorchNumbers:
    """The merged champion in torch: what every ONNX variant is compared with."""

    metrics: dict[str, float]
    latency_p50_ms: float


@dataclass(frozen=True)
class VariantVerdict:
    """Whether one ONNX variant passed the gate, with its numbers and the reason."""

    variant: str
    measurement: Measurement | None
    """None for one that could not be written or run."""
    drop: float | None
    """How much worse its metric is than torch's, as a share of torch's; negative when better."""
    passed: bool
    reason: str
    count: int | None = None
    """Validation rows, where not all of them were measured; the measurement has the number of those that were."""
    slower_than: str | None = None
    """The variant that passed before and is surely preferred, where that made a verdict unnecessary."""
    is_close: bool = False
    """Whether all rows together do not tell on which side of `max_drop` it is; its own number decided then."""
    failed_gates: tuple[str, ...] = ()
    """Keys of `promote:` that it does not keep."""

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        if self.measurement is None:
            return "failed"
        word = "passed" if self.passed else "not needed" if self.slower_than else "refused"
        return f"{word}, close" if self.is_close else word

    @property
    def why(self) -> str:
        """The reason, and the gates that it fails."""
        named = "gates" if len(self.failed_gates) > 1 else "gate"
        return f"{self.reason}; {named}: {', '.join(self.failed_gates)}" if self.failed_gates else self.reason

    @property
    def rows(self) -> str:
        """On how many rows it was measured: `all`, or `128 of 885`."""
        measured = self.measurement.rows if self.measurement else None
        return "all" if measured is None or self.count is None else f"{measured} of {self.count}"


Decision = Literal["champion", "waits", "refused", "night"]
"""What becomes of a registered version: it has the alias `champion`, waits for a person, has shown too little, or its
night decides after the sweep."""


@dataclass(frozen=True)
class Rivalry:
    """A challenger and the champion of its name, both released, on the same validation rows."""

    metric: str
    champion: float
    challenger: float
    rows: int
    lead: Comparison
    """Challenger against champion in the metric's unit; positive where the challenger is better."""


@dataclass(frozen=True)
class Release:
    """A registered version of a model, which serving loads."""

    name: str
    version: str
    uri: str
    variant: str
    trial: int
    run_id: str
    example: str = ""
    """An example of an input, as text."""
    max_drop: float | None = None
    """The gate that its variant passed: another one means that it is judged anew."""
    terms: str = ""
    """What else it was asked for, as `Promote.terms`; the same holds."""
    card: str | None = None
    """What the author says in its model card, as `Promote.said`; None where an earlier hpo did not write it down."""
    decision: Decision = "champion"
    """As the sweep ended, or as its night or `hpo approve` has decided since. Of aliases that were moved in MLflow, the
    registry knows."""
    why: str = ""
    """The numbers behind the decision, in a sentence; empty where the name had no other champion."""
    rivalry: Rivalry | None = None
    """None where it had no rival, or the two could not be compared."""


@dataclass(frozen=True)
class ListedVersion:
    """One version as `hpo releases` shows it; None for what older versions did not record."""

    name: str
    version: str
    alias: str | None
    """champion, previous or challenger."""
    waits: bool
    """Whether it waits for a person."""
    sweep: str | None
    trial: int | None
    variant: str | None
    metric: str | None
    """That of the gate which its variant passed."""
    metrics: dict[str, float]
    """As measured in onnxruntime when it was released, on that sweep's validation rows."""
    size_mb: float | None
    """None where its files are gone."""
    latency_p50_ms: float | None
    created: str
    """ISO time, UTC."""
    about: str
    """The gate's verdict, and the comparison with the champion it challenged."""
    is_served: bool = False
    """Whether a running server on this machine has it loaded."""
    served_by: list[int] = field(default_factory=list)
    """Ids of the processes that have it loaded; empty where the kernel does not tell."""
    run: str | None = None
    """What `hpo reproduce` trains again."""
    other_aliases: list[str] = field(default_factory=list)
    """Those that people gave it in MLflow."""
