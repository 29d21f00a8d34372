"""Methods that PEFT does not have: bottleneck adapters, and training of all parameters."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, load_model, save_file, save_model

from trainers.model.base import Base
from trainers.model.methods.base import Batches, Method
from trainers.model.methods.targets import attention_outputs, feed_forward_outputs
from trainers.protocol.files import OWN_WEIGHTS
from trainers.protocol.trial_spec import TrialSpec


class Full(Method):
    """Trains every parameter."""

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        return base.model.requires_grad_(True)

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        folder.mkdir(parents=True)
        save_model(model, str(folder / OWN_WEIGHTS))

    def load(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        load_model(base.model, str(folder / OWN_WEIGHTS))
        return base.model.eval()

    def merge(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        return self.load(base, spec, folder)


class Bottleneck(torch.nn.Module):
    """A frozen layer with a small network after it, which starts as the identity (Houlsby et al. 2019)."""

    def __init__(self, layer: torch.nn.Module, width: int, size: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = torch.nn.Linear(width, size)
        self.up = torch.nn.Linear(size, width)
        torch.nn.init.normal_(self.down.weight, std=0.01)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            torch.nn.init.zeros_(zero)

    @property
    def weight(self) -> torch.Tensor:
        """The frozen layer's weight; T5 reads the dtype of its layers from it."""
        weight: torch.Tensor = self.layer.weight
        return weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output plus the bottleneck's, [..., width]."""
        y: torch.Tensor = self.layer(x)
        return y + self.up(F.gelu(self.down(y)))


class Adapters(Method):
    """Trains bottleneck adapters after each attention and feed-forward block, and a new head in full."""

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        names = [finder(base.model, base.new_modules) for finder in (attention_outputs, feed_forward_outputs)]
        for name in sorted({name for found in names for name in found}):
            parent, _, leaf = name.rpartition(".")
            layer = base.model.get_submodule(name)
            width = layer.nf if hasattr(layer, "nf") else layer.out_features  # GPT-2's transposed layer, or another one
            wrapped = Bottleneck(layer, int(width), int(spec.settings["adapter_size"] or 1))
            setattr(base.model.get_submodule(parent), leaf, wrapped)
        for name in base.new_modules:
            base.model.get_submodule(name).requires_grad_(True)
        return base.model

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        folder.mkdir(parents=True)
        learned = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}
        save_file(learned, str(folder / OWN_WEIGHTS))

    def load(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        model = self.attach(base, spec, ())
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in load_file(str(folder / OWN_WEIGHTS)).items():
                parameters[name].copy_(value)
        return model.eval()

    def merge(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        """Never called: the catalog says that this method cannot merge. Raises `NotImplementedError`."""
        raise NotImplementedError("bottleneck adapters cannot be merged into the weights")  # the interface asks for it
