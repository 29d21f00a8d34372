"""The seam between methods and everything else: how a base model becomes trainable, and how that is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch

from trainers.model.base import Base
from trainers.protocol.messages import TrialSpec

Batches = Iterable[Mapping[str, torch.Tensor]]
"""Inputs of the model, without targets."""


class Method(Protocol):
    """What is different about a method. Every model that comes back has its trainable parameters marked, in float32."""

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        """The base made trainable: the same one for the same spec and `batches` of training rows."""
        ...

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Write what was learned into a new folder (safetensors and JSON)."""
        ...

    def load(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        """The base with what `save` wrote."""
        ...

    def merge(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        """A plain transformers model with what was learned folded into its weights, in float32.

        Called only for methods that the catalog says can merge.
        """
        ...
