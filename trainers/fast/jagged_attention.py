"""Attention of rows in a line on a GPU: one kernel of torch's for all rows, whatever their lengths.

torch knows rows of different lengths as a jagged tensor, and takes FlashAttention's or the memory-efficient kernel for
them, with their gradients: no padding, no mask, and no kernel for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from transformers.integrations.sdpa_attention import repeat_kv

from trainers.fast.shortcut import Unknown

_TOLERANCE = 2e-2
"""Largest difference of values and gradients on the small tensors of `check_jagged`, computed in bf16."""


def attend_jagged(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int],
    ends: torch.Tensor, **options: Any,
) -> torch.Tensor:  # fmt: skip
    """Attention as in transformers, over rows of `lengths`: [1, heads, tokens, width] to [1, tokens, heads, width].

    `ends`, [rows + 1], says on the same device where they begin and end.
    """
    if hasattr(module, "num_key_value_groups"):
        key, value = (repeat_kv(part, module.num_key_value_groups) for part in (key, value))
    if torch.is_autocast_enabled("cuda"):  # torch looks at plain tensors alone there
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    is_causal = options.get("is_causal")
    lines = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
    jagged = torch.nested.nested_tensor_from_jagged
    most = {"min_seqlen": min(lengths), "max_seqlen": max(lengths)}  # else it waits for the GPU to know them
    q, k, v = (jagged(line, ends, **most).transpose(1, 2) for line in lines)
    attended = F.scaled_dot_product_attention(
        q, k, v,
        dropout_p=options.get("dropout", 0.0),
        is_causal=bool(getattr(module, "is_causal", True) if is_causal is None else is_causal),
        scale=options.get("scaling"),
    )  # fmt: skip
    line: torch.Tensor = attended.transpose(1, 2).values()
    return line[None]


def check_jagged(device: torch.device) -> None:
    """Values and gradients on small tensors in bf16, against each row alone in float32. Raises `Unknown` where they
    differ, and what torch raises where it cannot do that in an evaluation."""
    lengths, generator = [5, 9, 2], torch.Generator().manual_seed(0)
    ends = torch.tensor([0, *accumulate(lengths)], device=device)
    lines = [torch.randn(1, 4, sum(lengths), 16, generator=generator).to(device) for _ in range(4)]
    for is_causal in (True, False):
        ours = [line.bfloat16().requires_grad_() for line in lines[:3]]
        theirs = [line.clone().requires_grad_() for line in lines[:3]]
        query, key, value = ours
        one = attend_jagged(None, query, key, value, lengths, ends, is_causal=is_causal).transpose(1, 2)
        each = [
            F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
            for q, k, v in zip(*(line.split(lengths, dim=2) for line in theirs), strict=True)
        ]
        other = torch.cat(each, dim=2)
        pairs = [
            (one.detach(), other.detach()),
            *zip(
                torch.autograd.grad(one, ours, lines[3].bfloat16()),
                torch.autograd.grad(other, theirs, lines[3]),
                strict=True,
            ),
        ]
        with torch.inference_mode():
            attend_jagged(None, query.detach(), key.detach(), value.detach(), lengths, ends, is_causal=is_causal)
        if not all(float((a - b).norm()) <= _TOLERANCE * float(b.norm()) for a, b in pairs):
            raise Unknown("attention of rows in one kernel, or its gradient, is not that of each row alone")
