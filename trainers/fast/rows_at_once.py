"""Attention of rows in a line on a GPU: one kernel for all rows, whatever their lengths.

torch's own attention kernels take rows of different lengths with the places where they begin and end: FlashAttention's
for 16-bit numbers, the memory-efficient one for all others. No padding, no mask, and no kernel for each row. torch
hands them down for its nested tensors alone, which activation checkpointing cannot keep, so they are called here.
"""

from __future__ import annotations

from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv

from trainers.fast.shortcut import Unknown

_WIDEST = 128
"""Numbers of a head, for which FlashAttention trains on every GPU that it knows."""
_OLDEST = (8, 0)
"""Compute capability that FlashAttention needs."""
_TOLERANCE = 2e-2
"""Largest difference of values and gradients on the small tensors of `check_at_once`, computed in bf16."""


def attend_at_once(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, longest: int,
    **options: Any,
) -> torch.Tensor:  # fmt: skip
    """Attention as in transformers, of rows in a line: [1, heads, tokens, width] to [1, tokens, heads, width].

    `ends`, int32 [rows + 1], says on the same device where rows begin and end; the longest has so many tokens.
    """
    if torch.is_autocast_enabled("cuda"):  # it does not know these kernels
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    given = options.get("is_causal")
    is_causal = bool(getattr(module, "is_causal", True) if given is None else given)
    dropout, scale = options.get("dropout", 0.0), options.get("scaling")
    attend = _flash if _has_flash(query) else _efficient
    return attend(module, query, key, value, ends, longest, dropout, is_causal, scale)[None]


def _has_flash(query: torch.Tensor) -> bool:
    width = query.shape[-1]
    return (
        query.dtype in (torch.bfloat16, torch.float16)
        and width % 8 == 0
        and width <= _WIDEST
        and (query.device.type != "cuda" or torch.cuda.get_device_capability(query.device) >= _OLDEST)
    )


def _flash(
    _module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, longest: int,
    dropout: float, is_causal: bool, scale: float | None,
) -> torch.Tensor:  # fmt: skip
    """[tokens, heads, width]; it shares heads of keys and values between those of queries by itself."""
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    attended: torch.Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, ends, ends, longest, longest, dropout, is_causal, False, scale=scale
    )[0]
    return attended


def _efficient(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, longest: int,
    dropout: float, is_causal: bool, scale: float | None,
) -> torch.Tensor:  # fmt: skip
    """[tokens, heads, width]"""
    groups = getattr(module, "num_key_value_groups", 1)
    q, k, v = (part.transpose(1, 2) for part in (query, repeat_kv(key, groups), repeat_kv(value, groups)))
    has_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    attended: torch.Tensor = torch.ops.aten._efficient_attention_forward(
        q, k, v, None, ends, ends, longest, longest, dropout, int(is_causal), has_gradient, scale=scale
    )[0]
    return attended[0]


def check_at_once(device: torch.device) -> None:
    """Values and gradients on small tensors in bf16, against each row alone in float32. Raises `Unknown` where they
    differ."""
    lengths, groups, generator = [5, 9, 2], 2, torch.Generator().manual_seed(0)
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    drawn = [torch.randn(1, heads, sum(lengths), 16, generator=generator).to(device) for heads in (4, 2, 2, 4)]
    module = SimpleNamespace(num_key_value_groups=groups)
    for is_causal in (True, False):
        ours = [part.bfloat16().requires_grad_() for part in drawn[:3]]
        theirs = [part.clone().requires_grad_() for part in drawn[:3]]
        query, key, value = ours
        one = attend_at_once(module, query, key, value, ends, max(lengths), is_causal=is_causal).transpose(1, 2)
        rows = (theirs[0], repeat_kv(theirs[1], groups), repeat_kv(theirs[2], groups))
        each = [
            scaled_dot_product_attention(q, k, v, is_causal=is_causal)
            for q, k, v in zip(*(part.split(lengths, dim=2) for part in rows), strict=True)
        ]
        other = torch.cat(each, dim=2)
        gradients = torch.autograd.grad(one, ours, drawn[3].bfloat16())
        expected = torch.autograd.grad(other, theirs, drawn[3])
        pairs = zip((one.detach(), *gradients), (other.detach(), *expected), strict=True)
        if not all(_are_near(a, b) for a, b in pairs):
            raise Unknown("attention of rows in one kernel, or its gradient, is not that of each row alone")


def _are_near(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return float((ours - theirs).norm()) <= _TOLERANCE * float(theirs.norm())
