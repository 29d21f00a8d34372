"""Layers without padding: between a model's embeddings and its head, the tokens of all rows stand in one line.

    embeddings [rows, longest, width] ─► first layer [1, tokens, width] … last layer ─► head [rows, longest, width]

Everything in a layer but attention looks at one token at a time, so only attention has to know where rows end; it is
computed for each row alone, without a mask. A batch of 16 sentences is padded to almost twice its tokens, so this
saves up to half of a step. Packed rows stand in one line from the beginning. For models whose layers take
transformers' attention functions; on a CPU, where many small products are no loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from trainers.fast.varlen_attention import attend_rows
from trainers.tasks.next_token import has_learned_prompt

NAME = "row_by_row"
TOLERANCE = 1e-4
"""Of a probe's hidden states, with padding and without."""


@dataclass(frozen=True)
class RowLayout:
    """Where the tokens of a batch are."""

    lengths: list[int]
    longest: int = 0
    places: torch.Tensor | None = None
    """Of each token in [rows * longest]; None where they stand in one line already."""

    def in_line(self, padded: torch.Tensor) -> torch.Tensor:
        """[rows or 1, longest, width] to [1, tokens, width]."""
        if self.places is None:
            return padded
        every = padded.expand(len(self.lengths), -1, -1)
        return every.reshape(-1, padded.shape[-1]).index_select(0, self.places)[None]

    def apart(self, line: torch.Tensor) -> torch.Tensor:
        """[1, tokens, width] to [rows, longest, width], zeros where there is no token."""
        if self.places is None:
            return line
        padded = line.new_zeros(len(self.lengths) * self.longest, line.shape[-1])
        return padded.index_copy(0, self.places, line[0]).view(len(self.lengths), self.longest, -1)


def padded_layout(attention_mask: torch.Tensor) -> RowLayout | None:
    """None where nothing is padded, or not on the right alone."""
    counts = attention_mask.sum(1)
    longest = attention_mask.shape[1]
    on_the_right = torch.arange(longest, device=counts.device) < counts[:, None]
    if attention_mask.all() or not torch.equal(attention_mask.bool(), on_the_right):
        return None
    return RowLayout(counts.tolist(), longest, on_the_right.flatten().nonzero().flatten())


def packed_layout(positions: torch.Tensor) -> RowLayout | None:
    """Rows begin where positions do, [1, tokens]; None where that is once."""
    starts = (positions[0] == 0).nonzero().flatten().tolist()
    if len(positions) > 1 or len(starts) < 2:
        return None
    ends = [*starts[1:], positions.shape[1]]
    return RowLayout([end - start for start, end in zip(starts, ends, strict=True)])


def attend_row_by_row(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, row_layout: RowLayout | None = None, **options: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """transformers' attention, of the rows in a line: [1, heads, tokens, width] to [1, tokens, heads, width]."""
    # A window's mask tells more than where rows end.
    masks = attention_mask if options.get("sliding_window") is not None else None
    if row_layout is None or (masks is not None and row_layout.places is None):
        plain = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return cast("tuple[torch.Tensor, None]", plain)
    return attend_rows(module, query, key, value, row_layout.lengths, masks, **options), None


AttentionInterface.register(NAME, attend_row_by_row)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def leave_padding_out(model: Any) -> bool:
    """Make a model of transformers (or one in PEFT) compute no padding, in place; whether it can: tried on a batch."""
    if has_learned_prompt(model):
        return False
    body = (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model
    layers = _layers(body)
    if layers is None or body.config._attn_implementation != "sdpa":
        return False
    before = _hidden_states(body)
    body.set_attn_implementation(NAME)
    hooks = [
        body.register_forward_pre_hook(_tell_rows, with_kwargs=True),
        *(layer.register_forward_pre_hook(_prepare, with_kwargs=True) for layer in layers),
        layers[0].register_forward_pre_hook(_enter, with_kwargs=True),
        layers[-1].register_forward_hook(_leave, with_kwargs=True),
    ]
    if _is_equal(body, before):
        return True
    for hook in hooks:
        hook.remove()
    body.set_attn_implementation("sdpa")
    return False


def _layers(body: Any) -> torch.nn.ModuleList | None:
    """The stack of layers: the one list of modules that has as many as the config says."""
    count = getattr(body.config, "num_hidden_layers", 0)
    lists = [module for module in body.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count]
    return lists[0] if len(lists) == 1 and not body.config.is_encoder_decoder else None


# --- hooks: the rows travel with the keyword arguments that transformers hands down to attention --------


def _tell_rows(_body: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mask, positions = given.get("attention_mask"), given.get("position_ids")
    layout = None
    if given.get("past_key_values") is None:
        if mask is not None and mask.dim() == 2:
            layout = padded_layout(mask)
        elif mask is None and positions is not None:
            layout = packed_layout(positions)
    return args, given if layout is None else {**given, "row_layout": layout}


def _prepare(_layer: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    layout, turned = given.get("row_layout"), given.get("position_embeddings")
    if layout is None or turned is None:
        return args, given
    return args, {**given, "position_embeddings": tuple(layout.in_line(part) for part in turned)}


def _enter(_layer: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    layout = given.get("row_layout")
    if layout is None:
        return args, given
    if args:
        return (layout.in_line(args[0]), *args[1:]), given
    return args, {**given, "hidden_states": layout.in_line(given["hidden_states"])}


def _leave(_layer: Any, _args: Any, given: Mapping[str, Any], output: Any) -> Any:
    layout = given.get("row_layout")
    if layout is None:
        return output
    return (layout.apart(output[0]), *output[1:]) if isinstance(output, tuple) else layout.apart(output)


def _hidden_states(body: Any) -> torch.Tensor:
    """Of the tokens of a row of three and a row of two, [5, width]."""
    ids = torch.arange(3, 9).view(2, 3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    was_training = body.training
    body.eval()
    with torch.no_grad():
        hidden: torch.Tensor = body(input_ids=ids, attention_mask=mask)[0]
    body.train(was_training)
    return hidden[mask.bool()]


def _is_equal(body: Any, before: torch.Tensor) -> bool:
    try:
        return bool(torch.allclose(_hidden_states(body), before, atol=TOLERANCE))
    except (TypeError, ValueError, RuntimeError, IndexError):  # layers of another kind: with padding, as before
        return False
