"""Attention of rows whose tokens stand in one line: each row sees itself alone.

Rows of one length that stand side by side are attended together, without a mask; evaluation batches, sorted by length,
have many of those. With dropout, torch attends in a dozen small operations for every row, and again as many backwards:
`DroppingAttention` does the same in four and six, with one draw of random bits for all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any, cast

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from trainers.fast.dropout import check_draws, dropout_factors
from trainers.fast.shortcut import Unknown, body_of

ROW_BY_ROW = "row_by_row"
DROPPING = "row_by_row_dropping"
"""What transformers knows this attention by, without `DroppingAttention` and with it."""
KNOWN_OPTIONS = {
    "dropout", "scaling", "is_causal", "sliding_window",
    "position_ids", "use_cache", "deterministic",  # nothing that attention computes with
}  # fmt: skip
"""What layers may say to attention besides. One that says anything else may mean another attention."""


class AttentionByRow:
    """The shortcut: attention with dropout of rows in a line is one function of autograd."""

    def fits(self, model: Any) -> str | None:
        """Of a model whose layers have no padding already."""
        used = body_of(model).config._attn_implementation
        return None if used == ROW_BY_ROW else "it needs layers without padding"

    def check(self) -> None:
        """Draws, and values and gradients against autograd's. Raises `Unknown` where one is off."""
        check_draws()
        lengths, heads, width, probability, scaling = [2, 4, 3], 2, 4, 0.3, 0.5
        shape = (1, heads, sum(lengths), width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            lines = [torch.randn(shape).requires_grad_() for _ in range(3)]
            cotangent = torch.randn(shape)
            outcomes = []
            ways: list[Callable[..., torch.Tensor]] = [DroppingAttention.apply, _drop_plainly]
            for attend in ways:
                torch.manual_seed(1)
                attended = attend(*lines, lengths, probability, scaling)
                outcomes.append([attended, *torch.autograd.grad(attended, lines, cotangent)])
        if not all(torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) for ours, theirs in zip(*outcomes, strict=True)):
            raise Unknown("attention with dropout, or its gradient, is not autograd's")

    def apply(self, model: Any, undo: ExitStack) -> None:
        """Let attention drop here."""
        body = body_of(model)
        undo.callback(body.set_attn_implementation, ROW_BY_ROW)
        body.set_attn_implementation(DROPPING)


def attend_rows(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int],
    masks: torch.Tensor | None, drops: bool = True, **options: Any,
) -> torch.Tensor:  # fmt: skip
    """Attention as in transformers, over rows of `lengths`: [1, heads, tokens, width] to [1, tokens, heads, width].

    `masks`, [rows, 1, longest, longest], say what a token sees of its own row, where that is not all (a window);
    `drops`: whether dropout may be `DroppingAttention`'s. Raises `Unknown` for an option that is not known.
    """
    known_options(options)
    if drops and masks is None and _can_drop(module, query, key, options):
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        attended = DroppingAttention.apply(query, key, value, lengths, options["dropout"], scaling)
        return cast("torch.Tensor", attended).transpose(1, 2)
    parts, row, start = [], 0, 0
    for rows, length in runs(lengths):
        end = start + rows * length
        # [1, heads, rows * length, width] to [rows, heads, length, width], as views
        q, k, v = (part[0, :, start:end].unflatten(1, (rows, length)).transpose(0, 1) for part in (query, key, value))
        mask = None if masks is None else masks[row : row + rows, :, :length, :length]
        parts.append(sdpa_attention_forward(module, q, k, v, mask, **options)[0].flatten(0, 1))
        row, start = row + rows, end
    return torch.cat(parts)[None]


def known_options(options: dict[str, Any]) -> dict[str, Any]:
    """What layers say to attention besides. Raises `Unknown` for an option that is not known."""
    if unknown := [name for name in sorted(options.keys() - KNOWN_OPTIONS) if options[name] is not None]:
        raise Unknown(f"attention is given an option that is not known: {min(unknown)}")
    return options


def runs(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Of rows side by side that have one length: (how many, the length)."""
    return ((len(list(equal)), length) for length, equal in groupby(lengths))


def _can_drop(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, options: dict[str, Any]) -> bool:
    return (
        options.get("dropout", 0.0) > 0
        and not (options.get("is_causal") or getattr(module, "is_causal", True))
        and options.get("position_bias") is None
        and query.shape == key.shape
        and query.dtype == torch.float32
        and not torch.is_autocast_enabled(query.device.type)
    )


class DroppingAttention(torch.autograd.Function):  # type: ignore[misc]  # torch leaves it untyped
    """Computes dropout(softmax(scaling q k^T)) v of every row, [1, heads, tokens, width] to the same."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int],
        probability: float, scaling: float,
    ) -> torch.Tensor:  # fmt: skip
        """Attend row by row; keeps the softmax and the dropped weights of each row for the gradient."""
        heads = query.shape[1]
        sizes = [heads * length * length for length in lengths]
        factors = dropout_factors(torch.Size([sum(sizes)]), probability).split_with_sizes(sizes)
        softmaxes, dropped, attended = [], [], []
        scaled = query * scaling
        for (q, k, v), row_factors in zip(_rows(lengths, scaled, key, value), factors, strict=True):
            softmax = torch.softmax(torch.bmm(q, k.transpose(1, 2)), dim=-1)
            softmaxes.append(softmax)
            dropped.append(softmax * row_factors.view_as(softmax))
            attended.append(torch.bmm(dropped[-1], v))
        out = torch.cat(attended, dim=1)[None]
        ctx.save_for_backward(scaled, key, value, out, *softmaxes, *dropped)
        ctx.lengths, ctx.scaling = lengths, scaling
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Gradients for query, key and value, from that of the result; the other inputs have none."""
        scaled, key, value, out, *saved = ctx.saved_tensors
        softmaxes, dropped = saved[: len(ctx.lengths)], saved[len(ctx.lengths) :]
        # The softmax's own sum over a row of weights is that of gradient times result (Dao et al. 2022, appendix B).
        sums = (gradients[0] * out).sum(-1, keepdim=True)
        for_query, for_key, for_value = [], [], []
        rows = _rows(ctx.lengths, scaled, key, value, gradients[0], sums)
        for (q, k, v, gradient, row_sums), softmax, weights in zip(rows, softmaxes, dropped, strict=True):
            for_value.append(torch.bmm(weights.transpose(1, 2), gradient))
            for_scores = torch.bmm(gradient, v.transpose(1, 2)).mul_(weights).addcmul_(softmax, row_sums, value=-1)
            for_query.append(torch.bmm(for_scores, k))
            for_key.append(torch.bmm(for_scores.transpose(1, 2), q))
        for_q, for_k, for_v = (torch.cat(parts, dim=1)[None] for parts in (for_query, for_key, for_value))
        return for_q.mul_(ctx.scaling), for_k, for_v, None, None, None


def _drop_plainly(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], probability: float,
    scaling: float,
) -> torch.Tensor:  # fmt: skip
    """What `DroppingAttention` computes, left to autograd."""
    sizes = [query.shape[1] * length * length for length in lengths]
    factors = dropout_factors(torch.Size([sum(sizes)]), probability).split_with_sizes(sizes)
    attended = []
    for (q, k, v), row_factors in zip(_rows(lengths, query, key, value), factors, strict=True):
        softmax = torch.softmax(scaling * q @ k.transpose(1, 2), dim=-1)
        attended.append(softmax * row_factors.view_as(softmax) @ v)
    return torch.cat(attended, dim=1)[None]


def _rows(lengths: Sequence[int], *lines: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Each row's part of [1, heads, tokens, ...], as [heads, length, ...]."""
    return zip(*(line[0].split_with_sizes(lengths, dim=1) for line in lines), strict=True)
