"""Sharding: frozen layers are spread over a trial's devices, and each is whole only while it computes (FSDP2)"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainers.protocol.memory_model import MOST_WHOLE
from trainers.training.ranks import Ranks


def is_to_be_sharded(shard: str, model: torch.nn.Module, device: torch.device, ranks: Ranks) -> bool:
    """What the setting `shard` means for a model that is about to move to its device; the same in all ranks.

    `auto` shards weights that do not fit. Quantized ones are never sharded: what unpacks them lies beside them.
    """
    if ranks.count == 1 or shard == "off":
        return False
    return any(wanted for [wanted] in ranks.gather([shard == "full" or not _fits(model, device)]))


def _fits(model: torch.nn.Module, device: torch.device) -> bool:
    if device.type == "cpu" or not all(p.is_floating_point() for p in model.parameters()):
        return True  # processes share the base in this machine's memory already
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    return bool(size <= MOST_WHOLE * torch.cuda.get_device_properties(device).total_memory)


def shard_frozen(model: torch.nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Move a model to its device, in place: of the frozen weights of its layers only a share, all else as a whole.

    What is trained stays whole in every rank, so whatever saves or steps it knows nothing of shards. From then on
    every forward and backward pass is one of all ranks.
    """
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard  # late: few trials need it, and every host would import it

    mesh = DeviceMesh(device.type, list(range(ranks.count)))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    model.to(device)


def _layers(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The members of the outermost lists of modules: what families of models repeat."""
    for child in module.children():
        if isinstance(child, torch.nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)
