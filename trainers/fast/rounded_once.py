"""Frozen weights in the type that autocast computes in, rounded once: for GPUs, whose trials compute under autocast.

Autocast rounds each weight anew in every pass, and keeps the rounded copy until the gradient has come back: 6 bytes in
memory and 12 moved for a weight that needs 2. A weight that is never trained can be rounded once. The numbers stay the
same, bit for bit; what autocast leaves in float32 (embeddings, norms, heads, everything that is trained) stays so.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from peft.tuners.lora import LoraLayer

from trainers.tasks.full_precision import computes_in_float32


def round_once(model: torch.nn.Module, dtype: torch.dtype) -> int:
    """Round the weights of frozen plain linear layers, in place; how many numbers those are.

    Layers in 4 bits give their weights in that type then, not in float32 for autocast to round. From then on the model
    computes under autocast to `dtype` alone.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":  # of bitsandbytes, which is not imported for this
            module.compute_dtype = module.weight.quant_state.dtype = dtype
    layers = {id(layer): layer for layer in _linear_under_autocast(model)}
    others = (module for module in model.modules() if id(module) not in layers)
    read_elsewhere = {id(parameter) for module in others for parameter in module.parameters(recurse=False)}
    rounded = 0
    for layer in layers.values():
        if not layer.weight.requires_grad and id(layer.weight) not in read_elsewhere:  # an embedding may share it
            layer.weight.data = layer.weight.data.to(dtype)
            rounded += layer.weight.numel()
    return rounded


def _linear_under_autocast(module: torch.nn.Module) -> Iterator[torch.nn.Linear]:
    """Plain linear layers whose weight nothing else reads: DoRA takes the length of those below it."""
    if computes_in_float32(module) or (isinstance(module, LoraLayer) and module.lora_variant):
        return
    if type(module) is torch.nn.Linear:
        yield module
    for child in module.children():
        yield from _linear_under_autocast(child)
