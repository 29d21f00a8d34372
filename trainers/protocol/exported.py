"""What exporting a champion, or a bundle of adapters, has written as ONNX, and what it could not."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BundledAdapter:
    """One adapter of a bundle, compared with its merged model."""

    name: str
    hash: str
    """Of its weights, as its card has it."""
    size_mb: float
    difference: float
    """The largest one of its logits, as a share of their spread or of 1."""


@dataclass(frozen=True)
class Exported:
    """Variants that were written, and torch's numbers for the merged fp32 model on the same rows."""

    metrics: dict[str, float]
    variants: list[str]
    failures: dict[str, str]
    """Variant -> why it could not be written."""
    seconds: float
    latency_p50_ms: float
    adapters: list[BundledAdapter] = field(default_factory=list)
    """Those beside the base, where the adapter was not merged."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Adapter that should be among them -> why it cannot be."""


@dataclass(frozen=True)
class BundleExported:
    """The adapters of a bundle that was written, and why some of them may not be released."""

    adapters: list[BundledAdapter]
    failures: dict[str, str]
    """Adapter -> where its answers are not those of its merged model."""
    seconds: float
