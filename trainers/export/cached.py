"""The graph of a decoder-only language model by tracing, with a cache that it gives back longer, in fp32.

It takes any architecture whose forward pass takes transformers' cache, and what a method keeps beside the weights:
bottlenecks are layers like any others. Learned prompts and prefixes are keys and values before those of the text. They
are constants of the graph: a prompt's are what the model makes of its vectors, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from trainers.export.tidy import tidy
from trainers.export.tracing import DYNAMIC, trace
from trainers.tasks.next_token import has_learned_prompt

Tensors = Mapping[str, Mapping[str, torch.Tensor]]
"""`key` and `value` of each layer by its number, each float32 [batch, heads, tokens, size of a head]."""


class WithCache(torch.nn.Module):
    """A language model that takes and gives its cache as tensors; positions follow from the mask."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.get_base_model() if has_learned_prompt(model) else model
        self.config = self.model.config
        self.learned = learned_cache(model)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, past_key_values: Tensors
    ) -> dict[str, Any]:
        """`logits`, float32 [batch, tokens, vocabulary], and `present`, what `past_key_values` is for later tokens."""
        learned = next((layer["key"].shape[2] for layer in self.learned.values()), 0)
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :] + learned
        mask = torch.nn.functional.pad(attention_mask, (learned, 0), value=1)
        known = {
            number: {name: _before(self.learned, number, name, past) for name, past in layer.items()}
            for number, layer in past_key_values.items()
        }
        cache = cache_of(known)
        given = {"input_ids": input_ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        out = self.model(**given, position_ids=positions)
        return {"logits": out.logits, "present": tensors_of(cache, learned)}

    def sample(self) -> dict[str, Any]:
        """Inputs to trace with: two rows of different lengths, in the middle of a text. An axis of size 1, or a mask of
        only ones, would be traced as a constant."""
        ids = torch.arange(16).reshape(2, 8) % self.config.vocab_size
        mask = torch.ones_like(ids)
        mask[1, :2] = 0
        with torch.no_grad():
            cache = self.model(input_ids=ids[:, :5], attention_mask=mask[:, :5], use_cache=True).past_key_values
        return {"input_ids": ids[:, 5:].clone(), "attention_mask": mask, "past_key_values": tensors_of(cache)}


def _before(learned: Tensors, number: str, name: str, past: torch.Tensor) -> torch.Tensor:
    if not learned:
        return past
    return torch.cat([learned[number][name].expand(past.shape[0], -1, -1, -1), past], dim=2)


def cache_of(tensors: Tensors) -> DynamicCache:
    """A cache of transformers with these keys and values."""
    cache = DynamicCache()
    for number, layer in tensors.items():
        cache.update(layer["key"], layer["value"], int(number))
    return cache


def tensors_of(cache: Any, skipped: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    """Keys and values of a cache without those of the first `skipped` tokens."""
    return {
        str(number): {"key": layer.keys[:, :, skipped:], "value": layer.values[:, :, skipped:]}
        for number, layer in enumerate(cache.layers)
    }


def learned_cache(model: Any) -> Tensors:
    """Keys and values of a learned prompt or prefix, for a batch of one; empty for a model without one."""
    if not has_learned_prompt(model):
        return {}
    with torch.no_grad():
        learned = model.get_prompt(1)
        if isinstance(learned, torch.Tensor):  # a prompt's vectors, which the model reads like those of tokens
            learned = model.get_base_model()(inputs_embeds=learned, use_cache=True).past_key_values
    if not hasattr(learned, "layers"):  # keys and values of each layer together
        return {
            str(number): {"key": key.clone(), "value": value.clone()} for number, (key, value) in enumerate(learned)
        }
    return {n: {name: tensor.clone() for name, tensor in layer.items()} for n, layer in tensors_of(learned).items()}


def axes_of(tensors: Tensors) -> dict[str, dict[str, dict[int, Any]]]:
    """The dynamic axes of a cache: rows and tokens."""
    return {number: {name: {0: DYNAMIC, 2: DYNAMIC} for name in layer} for number, layer in tensors.items()}


TOKENS = {0: DYNAMIC, 1: DYNAMIC}
"""The dynamic axes of tokens and masks: rows and tokens."""


def export_with_cache(model: Any, path: Path) -> None:
    """Write the graph of a language model in float32, or of PEFT's with a learned prompt, to `path`."""
    module = WithCache(model).eval()
    inputs = module.sample()
    axes = {"input_ids": TOKENS, "attention_mask": TOKENS, "past_key_values": axes_of(inputs["past_key_values"])}
    trace(module, inputs, axes, path)
    tidy(path)
