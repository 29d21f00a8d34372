"""Methods: from a trial's settings to what PEFT needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from peft import LoraConfig

from trainers.catalog import Setting

_TASK_TYPES = {"text-classification": "SEQ_CLS", "chat": "CAUSAL_LM"}
_ATTENTION = ("attn", "attention")


def adapter_config(
    method: str, task: str, settings: Mapping[str, Setting], model: torch.nn.Module, new_modules: Sequence[str]
) -> LoraConfig:
    """PEFT's config; `new_modules` (a fresh head) are trained in full beside the adapter.

    `settings` in the catalog's canonical form."""
    return LoraConfig(
        task_type=_TASK_TYPES[task],
        r=int(settings["lora_r"] or 0),
        lora_alpha=float(settings["lora_alpha"] or 0),
        lora_dropout=float(settings["lora_dropout"] or 0),
        target_modules=_targets(str(settings["target_modules"]), model, new_modules),
        modules_to_save=list(new_modules) or None,
        use_rslora=method == "rslora",
        use_dora=method == "dora",
    )


def _targets(choice: str, model: torch.nn.Module, new_modules: Sequence[str]) -> list[str] | str:
    """Full names of the linear layers that get an adapter, never those of a fresh head or the output embedding."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    conv1d = ("Conv1D",)  # GPT-2's transposed linear layer
    names = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, torch.nn.Linear) or type(module).__name__ in conv1d)
        and module is not output
        and name not in new_modules
    ]
    in_attention = [name for name in names if any(word in name.lower() for word in _ATTENTION)]
    if choice == "attention":
        names = in_attention
    elif choice == "mlp":
        names = [name for name in names if name not in in_attention]
    if not names:
        raise ValueError(f"{type(model).__name__} has no linear layer for target_modules: {choice}")
    return names
