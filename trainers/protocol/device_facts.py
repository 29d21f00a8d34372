"""What a machine has of GPUs, as the process says it that asked torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    memory_mb: float
    free_mb: float
    capability: str
    """CUDA's compute capability; from 8.0 on it computes bf16."""


@dataclass(frozen=True)
class DeviceFacts:
    """Torch, and the GPUs that it can use."""

    torch: str
    """Its version."""
    built_for: str
    """The version of CUDA (or ROCm) that it was built for; empty for CPUs alone."""
    gpus: list[Gpu] = field(default_factory=list)
    problem: str = ""
    """Why GPUs that are there cannot be used."""
