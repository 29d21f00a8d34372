"""The tokens that all prompts begin with (a system prompt, the head of a template), computed once for all of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from trainers.tasks.next_token import has_learned_prompt

LEAST = 32
"""Tokens: below it the cache's copies cost what it saves."""


@dataclass(frozen=True)
class Head:
    """Token ids, and their keys and values in a cache of one row."""

    ids: list[int]
    cache: DynamicCache

    def before(self, rest: torch.Tensor) -> torch.Tensor:
        """The head before each row of `rest`, [rows, tokens]."""
        ids = torch.tensor([self.ids], device=rest.device).expand(len(rest), -1)
        return torch.cat([ids, rest], dim=1)

    def cache_of(self, rows: int) -> DynamicCache:
        """A copy of the cache for so many rows."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return cache


def shared_head(model: Any, prompts: Sequence[list[int]], device: torch.device) -> Head | None:
    """The head of a decoder's prompts; None where it is short, or the model's cache is more than keys and values of
    every token (a window of them, a state) and cannot be shared surely."""
    if len(prompts) < 2 or has_learned_prompt(model):
        return None
    ids = _common(prompts)
    if len(ids) < LEAST:
        return None
    cache = model(input_ids=torch.tensor([ids], device=device), use_cache=True).past_key_values
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    return Head(ids, cache)


def _common(prompts: Sequence[list[int]]) -> list[int]:
    """The longest common beginning that leaves each prompt a token of its own."""
    most = min(map(len, prompts)) - 1
    columns = itertools.islice(zip(*prompts, strict=False), max(0, most))
    return [column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns)]
