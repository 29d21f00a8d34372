"""The methods by their names in `trainers/protocol/catalog.py`."""

from __future__ import annotations

from collections.abc import Mapping

from trainers.model.methods.base import Method
from trainers.model.methods.own import Adapters, Full
from trainers.model.methods.peft_methods import (
    EVA,
    DataDrivenLora,
    Peft,
    ResidualLora,
    ia3,
    lora,
    prefix,
    prompt,
)
from trainers.model.methods.quantized import LoftQ, QuantizedLora

METHODS: Mapping[str, Method] = {
    "lora": Peft(lora()),
    "rslora": Peft(lora(use_rslora=True)),
    "dora": Peft(lora(use_dora=True)),
    "pissa": ResidualLora(lora(is_fitted=True, init_lora_weights="pissa_niter_4")),
    "olora": ResidualLora(lora(is_fitted=True, init_lora_weights="olora")),
    "eva": DataDrivenLora(lora(is_fitted=True, init_lora_weights="eva", eva_config=EVA)),
    "loftq": LoftQ(lora(is_fitted=True)),
    "qlora": QuantizedLora(lora()),
    "ia3": Peft(ia3),
    "adapter": Adapters(),
    "prompt": Peft(prompt),
    "prefix": Peft(prefix),
    "full": Full(),
}
