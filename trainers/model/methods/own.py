"""Methods that PEFT has not: bottleneck adapters, and training everything."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, load_model, save_file, save_model

from trainers.model.base import Base
from trainers.model.methods.base import Batches
from trainers.model.methods.targets import attention_outputs, feed_forward_outputs
from trainers.protocol.files import OWN_WEIGHTS
from trainers.protocol.messages import TrialSpec


class Full:
    """Every parameter is trained."""

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
    """A frozen layer with a small network after it, which begins as the identity (Houlsby et al. 2019)."""

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
        """T5 asks for the type of its layers' weights."""
        weight: torch.Tensor = self.layer.weight
        return weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y + self.up(F.gelu(self.down(y)))


class Adapters:
    """Bottleneck adapters after each attention and each feed-forward block; a fresh head is trained in full."""

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        names = [finder(base.model, base.new_modules) for finder in (attention_outputs, feed_forward_outputs)]
        for name in sorted({name for found in names for name in found}):
            parent, _, leaf = name.rpartition(".")
            layer = base.model.get_submodule(name)
            width = layer.nf if hasattr(layer, "nf") else layer.out_features  # GPT-2's transposed layer, or any other
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
        raise NotImplementedError("it is no part of a weight")  # never asked: the catalog says that it does not merge
