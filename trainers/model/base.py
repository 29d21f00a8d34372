"""A base model as trials are given it: frozen, with the names of what every method trains in full"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainers.model.methods.targets import new_modules_of
from trainers.protocol.messages import Workload


@dataclass
class Base:
    """A frozen base model, and which of its parameters are trained in full with every method."""

    workload: Workload
    labels: list[str]
    model: torch.nn.Module
    new_parameters: list[str]
    """Those of a head on labels or numbers, and all others that the checkpoint did not hold."""
    drawn_parameters: list[str]
    """Those of them that neither checkpoint nor earlier adapter has brought: drawn anew from each trial's seed."""
    pad_id: int = 0
    folder: str = ""
    """Where its files lie, the tokenizer's among them."""
    refused_shortcuts: dict[str, str] | None = None
    """Shortcuts that trials on it do not use, each with the reason; None until they are tried."""

    @property
    def new_modules(self) -> list[str]:
        """Full names of the modules that every method trains in full: a head, and whatever else is new."""
        return new_modules_of(self.model, self.new_parameters)
