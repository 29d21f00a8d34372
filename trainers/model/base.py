"""A base model as trials are given it: frozen, with the names of the parameters that every method trains in full."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainers.model.methods.targets import new_modules_of
from trainers.protocol.trial_spec import Workload


@dataclass
class Base:
    """A frozen base model, with the names of the parameters that every method trains in full."""

    workload: Workload
    labels: list[str]
    model: torch.nn.Module
    new_parameters: list[str]
    """Parameters of a head for labels or numbers, and all others that the checkpoint did not contain."""
    drawn_parameters: list[str]
    """Those of them that no checkpoint or earlier adapter contains: initialized at random from each trial's seed."""
    pad_id: int = 0
    folder: str = ""
    """The folder of its files, including the tokenizer's."""
    refused_shortcuts: dict[str, str] | None = None
    """Shortcuts that trials on it do not use, each with the reason; None until they are tried."""

    @property
    def new_modules(self) -> list[str]:
        """Full names of the modules that every method trains in full: the head, and all others that are new."""
        return new_modules_of(self.model, self.new_parameters)
