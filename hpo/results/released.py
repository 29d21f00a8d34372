"""What promotion measured and released: torch's own numbers, every variant with its verdict, the registered version."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.protocol.events import Measurement


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
