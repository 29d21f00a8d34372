"""Layers without padding: between a model's embeddings and its head, the tokens of all rows stand in one line.

    embeddings [rows, longest, width] ─► first layer [1, tokens, width] … last layer ─► head [rows, longest, width]

Everything in a layer but attention looks at one token at a time, so only attention has to know where rows end; it is
computed for each row alone, without a mask. A batch of 16 sentences is padded to almost twice its tokens, so this
saves up to half of a step. Packed rows stand in one line from the beginning. For models whose layers take
transformers' attention functions. A CPU attends to one row after the other (`varlen_attention.py`), for there many
small products are no loss; a GPU to all of them in one kernel (`rows_at_once.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any, cast

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from trainers.fast.rows_at_once import attend_at_once, check_at_once
from trainers.fast.shortcut import Unknown, body_of
from trainers.fast.varlen_attention import DROPPING, ROW_BY_ROW, attend_rows, known_options
from trainers.tasks.next_token import has_learned_prompt

KNOWN_MODELS = {
    "apertus", "arcee", "bert", "biogpt", "bitnet", "camembert", "cohere", "cohere2", "data2vec-text", "distilbert",
    "electra", "ernie", "ernie4_5", "eurobert", "exaone4", "gemma", "gemma3_text", "glm", "glm4", "gpt2", "gpt_neox",
    "granite", "helium", "hunyuan_v1_dense", "llama", "ministral", "mistral", "modernbert", "modernbert-decoder",
    "nomic_bert", "olmo", "olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen3", "roberta",
    "roberta-prelayernorm", "seed_oss", "smollm3", "starcoder2", "xlm-roberta", "xlm-roberta-xl",
}  # fmt: skip
"""By transformers' `model_type`: in their layers nothing but attention looks from one token to another."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class RowLayout:
    """Where the tokens of a batch are."""

    lengths: list[int]
    longest: int = 0
    places: torch.Tensor | None = None
    """Of each token in [rows * longest]; None where they stand in one line already."""
    device: torch.device = _CPU

    @cached_property
    def ends(self) -> torch.Tensor:
        """Where rows end in the line, after the 0 where the first one begins; int32 [rows + 1], for all layers."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=self.device)

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
    lengths, longest = counts.tolist(), attention_mask.shape[1]  # on a GPU each question to a tensor is a wait
    if min(lengths) == longest:
        return None
    on_the_right = torch.arange(longest, device=counts.device) < counts[:, None]
    if not torch.equal(attention_mask.bool(), on_the_right):
        return None
    return RowLayout(lengths, longest, on_the_right.flatten().nonzero().flatten(), counts.device)


def packed_layout(positions: torch.Tensor) -> RowLayout | None:
    """Rows begin where positions do, [1, tokens]; None where that is once."""
    starts = (positions[0] == 0).nonzero().flatten().tolist()
    if len(positions) > 1 or len(starts) < 2:
        return None
    ends = [*starts[1:], positions.shape[1]]
    return RowLayout([end - start for start, end in zip(starts, ends, strict=True)], device=positions.device)


def attend_row_by_row(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, row_layout: RowLayout | None = None, drops: bool = False, **options: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention as in transformers, of the rows in a line: [1, heads, tokens, width] to [1, tokens, heads, width]."""
    # A window's mask tells more than where rows end.
    masks = attention_mask if options.get("sliding_window") is not None else None
    if row_layout is None or (masks is not None and row_layout.places is None):
        plain = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return cast("tuple[torch.Tensor, None]", plain)
    if query.device.type == "cuda" and masks is None:
        ends, longest = row_layout.ends, max(row_layout.lengths)
        return attend_at_once(module, query, key, value, ends, longest, **known_options(options)), None
    return attend_rows(module, query, key, value, row_layout.lengths, masks, drops, **options), None


for _name, _drops in ((ROW_BY_ROW, False), (DROPPING, True)):
    AttentionInterface.register(_name, partial(attend_row_by_row, drops=_drops))
    ALL_MASK_ATTENTION_FUNCTIONS.register(_name, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


class LayersWithoutPadding:
    """The shortcut: a model of transformers (or one in PEFT) computes no padding between embeddings and head."""

    def fits(self, model: Any) -> str | None:
        """Of one stack of layers with transformers' own attention. Raises `Unknown` for a model that is not known."""
        config = body_of(model).config
        if has_learned_prompt(model):
            return "a learned prompt stands before the tokens"
        if config.is_encoder_decoder:
            return "an encoder-decoder has two stacks of layers"
        if config._attn_implementation == "eager":
            return f"the attention of {config.model_type} is its own"
        if config._attn_implementation != "sdpa":
            raise Unknown(f"attention is {config._attn_implementation!r}, which is not known")
        if config.model_type not in KNOWN_MODELS:
            raise Unknown(f"{config.model_type} is not among the models that it knows")
        if _layers(body_of(model)) is None:
            raise Unknown(f"{type(body_of(model)).__name__} has no single list of layers")
        return None

    def check(self) -> None:
        """On a GPU, attention in the type that trials compute in; else nothing that a model's own outcome does not
        show. Raises `Unknown` where it differs."""
        if torch.cuda.is_initialized():
            check_at_once(torch.device("cuda", torch.cuda.current_device()))

    def apply(self, model: Any, undo: ExitStack) -> None:
        """Hooks on body and layers, and another attention."""
        body = body_of(model)
        layers = _layers(body)
        undo.callback(body.set_attn_implementation, "sdpa")
        body.set_attn_implementation(ROW_BY_ROW)
        undo.callback(body.register_forward_pre_hook(_tell_rows, with_kwargs=True).remove)
        for layer in layers:
            undo.callback(layer.register_forward_pre_hook(_prepare, with_kwargs=True).remove)
        undo.callback(layers[0].register_forward_pre_hook(_enter, with_kwargs=True).remove)
        undo.callback(layers[-1].register_forward_hook(_leave, with_kwargs=True).remove)


def _layers(body: Any) -> Any:
    """The stack of layers: the one list of modules that has as many as the config says."""
    count = getattr(body.config, "num_hidden_layers", 0)
    lists = [module for module in body.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count]
    return lists[0] if len(lists) == 1 else None


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
