"""QLoRA: frozen layers in 4 or 8 bits, with LoRA beside them (Dettmers et al. 2023).

Layers are quantized in the trial's process: the host keeps the unchanged base, and never imports bitsandbytes.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from trainers.lazy_bitsandbytes import bitsandbytes
from trainers.model.base import Base
from trainers.model.methods.base import Batches
from trainers.model.methods.peft_methods import Peft, merged_into_base, modules_to_save
from trainers.model.methods.targets import linear_layers, straighten
from trainers.protocol.files import ADAPTER_CONFIG
from trainers.protocol.trial_spec import TrialSpec


class QuantizedLora(Peft):
    """LoRA that is trained and evaluated on the quantized base, and merged into the base in full precision."""

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        quantize(base, spec)
        return super().attach(base, spec, batches)

    def load(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        quantize(base, spec)
        return super().load(base, spec, folder)

    def merge(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        return merged_into_base(super().load(base, spec, folder))


class LoftQ(QuantizedLora):
    """LoRA initialized with the best low-rank approximation of the 4-bit quantization error (Li et al. 2023, once).

    PEFT implements it for GPUs only.
    """

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        straighten(base.model)
        before = {name: base.model.get_submodule(name).weight.data.clone() for name in _layers(base, spec)}
        model = super().attach(base, spec, batches)
        for name, layer in model.named_modules():
            weight = before.get(name.removeprefix("base_model.model."))
            if isinstance(layer, LoraLayer) and weight is not None:
                kept = dequantized(layer.get_base_layer())
                _begin_as(layer, weight.to(kept.device) - kept)
        return model

    def save(self, model: Any, folder: Path) -> None:
        """Save the adapter, and write into PEFT's config that it belongs on quantized weights."""
        super().save(model, folder)
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        (folder / ADAPTER_CONFIG).write_text(json.dumps({**config, "loftq_config": {"loftq_bits": 4}}, indent=2))

    def merge(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        """Merge into the dequantized weights, because the adapter corrects their quantization error."""
        for name in _layers(base, spec):
            layer: Any = base.model.get_submodule(name)
            as_kept = dequantized(quantized_layer(layer, "nf4", torch.device("cpu")))
            layer.weight.data = (as_kept.T if type(layer).__name__ == "Conv1D" else as_kept).contiguous()
        return super().merge(base, spec, folder)


def quantize(base: Base, spec: TrialSpec) -> None:
    """Replace the base's linear layers by quantized ones, in place: NF4 with quantized scales, or int8."""
    # bitsandbytes warns at each call of a layer and prints about kernels at import; a user cannot change either.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="bitsandbytes")
    kind = str(spec.settings.get("quantization", "nf4"))
    for name in _layers(base, spec):
        parent, _, leaf = name.rpartition(".")
        old = base.model.get_submodule(name)
        setattr(base.model.get_submodule(parent), leaf, quantized_layer(old, kind, torch.device(spec.device)))
    setattr(base.model, "is_loaded_in_8bit" if kind == "int8" else "is_loaded_in_4bit", True)


def _layers(base: Base, spec: TrialSpec) -> list[str]:
    """Layers that can be quantized: without those trained in full and those that a family keeps in float32."""
    kept = getattr(base.model, "_keep_in_fp32_modules", None) or ()
    names = linear_layers(base.model, modules_to_save(spec, base))
    return [name for name in names if not set(name.split(".")) & set(kept)]


def _begin_as(layer: Any, lost: torch.Tensor) -> None:
    """Initialize a LoRA layer as the best approximation of `lost`, [out, in], of its rank."""
    rank, scale = layer.r["default"], layer.scaling["default"]
    u, s, v = torch.linalg.svd(lost.float(), full_matrices=False)
    root = (s[:rank] / scale).sqrt()
    layer.lora_B["default"].weight.data = (u[:, :rank] * root).contiguous()
    layer.lora_A["default"].weight.data = (root[:, None] * v[:rank]).contiguous()


def dequantized(layer: Any) -> torch.Tensor:
    """The weights that a 4-bit layer computes with, float32 [out, in]."""
    kept = layer.weight
    weight: torch.Tensor = bitsandbytes().functional.dequantize_4bit(kept.data, kept.quant_state).float()
    return weight


def quantized_layer(old: Any, kind: str, device: torch.device) -> torch.nn.Module:
    """A frozen bitsandbytes layer on `device` with the weights of `old`; `kind` is nf4, fp4 or int8."""
    bnb = bitsandbytes()
    weight, bias = old.weight.data, old.bias
    if type(old).__name__ == "Conv1D":
        weight = weight.T
    weight = weight.clone(memory_format=torch.contiguous_format)
    shape = (weight.shape[1], weight.shape[0], bias is not None)
    if kind == "int8":
        new: Any = bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False)
        new.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        new = bnb.nn.Linear4bit(*shape, compute_dtype=torch.float32, compress_statistics=True, quant_type=kind)
        new.weight = bnb.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type=kind)
        # On CPUs with AVX512-BF16 the first evaluation would repack the weights, with scales in bfloat16, for a kernel
        # that is not installed: results would change from then on, and widths that are not multiples of 64 would fail.
        new.support_avx512bf16_for_cpu = False
    if bias is not None:
        new.bias = torch.nn.Parameter(bias.data, requires_grad=False)
    quantized: torch.nn.Module = new.to(device)
    return quantized
