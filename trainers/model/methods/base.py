"""The interface of methods: how a base model becomes trainable, and how the result is saved, loaded and merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch

from trainers.model.base import Base
from trainers.protocol.trial_spec import TrialSpec

Batches = Iterable[Mapping[str, torch.Tensor]]
"""Inputs of the model, int64 [rows, tokens], without targets."""


class Method(Protocol):
    """The part of training that depends on the method; trainable parameters of its models are in float32."""

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        """Make the base trainable; the result depends only on the spec and on `batches` of training rows."""
        ...

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Write the trained parameters into a new folder (safetensors and JSON)."""
        ...

    def load(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        """Load the parameters that `save` wrote onto the base."""
        ...

    def merge(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        """Load them and merge them into the weights: a plain transformers model in float32.

        Called only for methods that can merge, as the catalog says.
        """
        ...
