"""Finds the layers of a model that a method changes, by type and by name, in every family."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import torch

from trainers.data.sources import DataProblem
from trainers.protocol.events import Finding
from trainers.protocol.settings import mapping_of

_ATTENTION = ("attn", "attention")
# Names in the families for the layers that compute keys and values, and for the last layer of each block.
_KEY_VALUE = re.compile(
    r"(^|\.)(key|value|k_proj|v_proj|k_lin|v_lin|k|v|kv_proj|key_proj|value_proj|c_attn|Wqkv|qkv_proj)$"
)
_FEED_FORWARD_OUT = re.compile(r"(^|\.)(down_proj|fc2|lin2|wo|mlp\.c_proj|mlp\.Wo|(?<!attention\.)output\.dense)$")
_MOST_NAMES, _MOST_LETTERS = 20, 100
"""Limits of what one message repeats."""
_TIED = {"embed_tokens", "lm_head"}
_ATTENTION_OUT = re.compile(
    r"(^|\.)(o_proj|out_proj|out_lin|attention\.output\.dense|attn\.c_proj|attn\.Wo|o|self_attn\.dense)$"
)


def linear_layers(model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """Full names of the linear layers, without those of a new head and the output embedding."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [
        name
        for name, module in model.named_modules()
        if is_linear(module) and module is not output and not _is_inside(name, new_modules)
    ]


def new_modules_of(model: torch.nn.Module, new_parameters: Collection[str]) -> list[str]:
    """Full names of the outermost modules that contain only new parameters: a head, which is trained in full.

    Full names, because PEFT matches the end of a name: `dense` would match half of RoBERTa.
    """
    new, known = set(new_parameters), {name for name, _ in model.named_parameters()}

    def outermost(name: str) -> str:
        parent = name.rpartition(".")[0]
        inside = {other for other in known if other.startswith(f"{parent}.")} if parent else known
        return outermost(parent) if inside <= new else name

    return sorted({outermost(name.rpartition(".")[0]) for name in new})


def is_linear(module: torch.nn.Module) -> bool:
    """Whether a module is a linear layer, including GPT-2's transposed one."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def width_of(layer: Any) -> int:
    """The most directions that a linear layer's weight can have; 4-bit weights do not have its shape."""
    return int(min(layer.weight.shape if type(layer).__name__ == "Conv1D" else (layer.in_features, layer.out_features)))


def is_norm(layer: torch.nn.Module) -> bool:
    """Whether a layer scales what it has normed by its weight. Gemma's scales by 1 more."""
    kind = type(layer).__name__
    return isinstance(layer, torch.nn.LayerNorm) or (kind.endswith("RMSNorm") and not kind.startswith("Gemma"))


def not_by_row(model: torch.nn.Module, modules: Collection[str]) -> list[Finding]:
    """A finding for each layer in these modules that no graph can choose by row, being neither linear nor a norm."""
    layers = {
        f"{name}.{inner}".rstrip("."): layer
        for name in modules
        for inner, layer in model.get_submodule(name).named_modules()
    }
    return [
        Finding("training.modules_to_save", f"{name} is a {type(layer).__name__}", "linear layers and norms")
        for name, layer in layers.items()
        if next(layer.parameters(recurse=False), None) is not None and not (is_linear(layer) or is_norm(layer))
    ]


def straighten(model: torch.nn.Module) -> None:
    """Replace GPT-2's transposed linear layers with ordinary ones that compute the same, in place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "Conv1D":
                weight: torch.Tensor = child.weight.data
                straight = torch.nn.Linear(weight.shape[0], weight.shape[1])
                straight.weight.data, straight.bias.data = weight.T.contiguous(), child.bias.data
                setattr(parent, name, straight.requires_grad_(False))


def target_modules(choice: str, model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """Full names of the layers that the setting `target_modules` selects.

    `choice` is `all-linear`, `attention`, `mlp`, or ends of names separated by commas. Raises `DataProblem` where no
    layer matches.
    """
    names = linear_layers(model, new_modules)
    in_attention = [name for name in names if any(word in name.lower() for word in _ATTENTION)]
    if choice == "attention":
        names = in_attention
    elif choice == "mlp":
        names = [name for name in names if name not in in_attention]
    elif choice != "all-linear":
        ends = choice.split(",")
        if unknown := [end for end in ends if not any(_ends_with(name, end) for name in names)]:
            if heads := [end for end in unknown if any(_ends_with(name, end) for name in new_modules)]:
                found, expected = f"{_few(heads)} is the head", "leave it out: a head is trained in full"
                raise _refusal("target_modules", found, expected)
            raise _refusal("target_modules", f"no linear layer is called {_few(unknown)}", _there_are(names))
        names = [name for name in names if any(_ends_with(name, end) for end in ends)]
    if not names:
        raise _refusal("target_modules", f"{type(model).__name__} has no linear layer for {choice}", "other names")
    return names


def modules_in_full(choice: str | None, model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """Full names of the modules that are trained in full: a new head, and those that `modules_to_save` selects.

    `choice` is ends of names separated by commas. Raises `DataProblem` for a name that does not exist, and for a shared
    weight that PEFT cannot keep shared.
    """
    names = _savable(model)
    ends = choice.split(",") if choice else []
    if unknown := [end for end in ends if not any(_ends_with(name, end) for name in names)]:
        raise _refusal("modules_to_save", f"no module is called {_few(unknown)}", _there_are(names))
    named = [*new_modules, *(name for name in names if any(_ends_with(name, end) for end in ends))]
    outermost = [name for name in dict.fromkeys(named) if not _is_inside(name, [n for n in named if n != name])]
    head = shared_head(choice, model)
    for name in [name for name in outermost if name not in new_modules and name != head]:
        others = [other for other in shared_with(model, name) if other != head]
        if others and not {n.rpartition(".")[2] for n in (name, *others)} <= _TIED:
            found = f"{name} shares its weight with {', '.join(others)}"
            raise _refusal("modules_to_save", found, _way_out(model, others))
    return outermost


def shared_head(choice: str | None, model: torch.nn.Module) -> str | None:
    """Full name of the output embedding where it must be untied from the input embedding; else None.

    That is where `choice` names it, and PEFT cannot keep its weight shared with the input embedding.
    """
    if not choice or model.config.is_encoder_decoder:  # T5 scales its output only when the two are tied
        return None
    output = model.get_output_embeddings()
    name = next((name for name, module in model.named_modules() if module is output), "")
    if not name or not any(_ends_with(name, end) for end in choice.split(",")):
        return None
    others = shared_with(model, name)
    return name if others and not {n.rpartition(".")[2] for n in (name, *others)} <= _TIED else None


def untie(model: Any, choice: str | None) -> None:
    """Give the output embedding its own weight where `modules_to_save` requires that, in place.

    The model's config then says that they are untied, for saving and loading.
    """
    if (name := shared_head(choice, model)) is None:
        return
    head = model.get_submodule(name)
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _way_out(model: Any, others: Collection[str]) -> str:
    output = model.get_output_embeddings()
    head = next((name for name, module in model.named_modules() if module is output), "")
    if not model.config.is_encoder_decoder and list(others) == [head]:
        return f"name {head} too: then each gets its own weight"
    return f"PEFT keeps only {' and '.join(sorted(_TIED))} tied"


def _savable(model: torch.nn.Module) -> list[str]:
    """Full names of the modules that have parameters and a forward pass, which a list of layers does not have."""
    lists = (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.ParameterList, torch.nn.ParameterDict)
    return [
        name
        for name, module in model.named_modules()
        if name and not isinstance(module, lists) and any(True for _ in module.parameters())
    ]


def shared_with(model: torch.nn.Module, name: str) -> list[str]:
    """Full names of the modules outside of module `name` that share a weight with it."""
    weights = {id(weight) for weight in model.get_submodule(name).parameters()}
    return [
        other
        for other, module in model.named_modules(remove_duplicate=False)
        if not _is_inside(other, [name]) and any(id(weight) in weights for weight in module.parameters(recurse=False))
    ]


def ranks_of(choice: str | None, layers: Collection[str]) -> dict[str, int]:
    """Full names of the layers to which the setting `rank_pattern` gives a rank, with that rank.

    A name in `choice` matches the end of a layer's name, or any part of it where it ends in a dot; the first match
    decides. Raises `DataProblem` for a name that matches no layer.
    """
    pattern = mapping_of(choice) if choice else {}
    if unknown := [part for part in pattern if not any(_fits(name, part) for name in layers)]:
        raise _refusal("rank_pattern", f"no layer with an adapter is called {_few(unknown)}", _there_are(layers))
    fitting = {name: [rank for part, rank in pattern.items() if _fits(name, part)] for name in layers}
    return {name: ranks[0] for name, ranks in fitting.items() if ranks}


def key_value_layers(model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """Full names of the layers that compute keys and values. Raises `DataProblem` where no name is known."""
    return _found(_KEY_VALUE, "computes keys or values", model, new_modules)


def feed_forward_outputs(model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """Full names of the last layer of each feed-forward block. Raises `DataProblem` where no name is known."""
    return _found(_FEED_FORWARD_OUT, "ends a feed-forward block", model, new_modules)


def attention_outputs(model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """Full names of the last layer of each attention block. Raises `DataProblem` where no name is known."""
    return _found(_ATTENTION_OUT, "ends an attention block", model, new_modules)


def _found(pattern: re.Pattern[str], what: str, model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    names = [name for name in linear_layers(model, new_modules) if pattern.search(name)]
    if not names:
        found = f"{type(model).__name__} has no layer with a known name for one that {what}"
        raise DataProblem([Finding("method", found, "choose lora, which uses all linear layers")])
    return names


def _refusal(setting: str, found: str, expected: str) -> DataProblem:
    return DataProblem([Finding(f"training.{setting}", found, expected)])


def _there_are(names: Collection[str]) -> str:
    """A hint with the last parts of full names."""
    return f"there are: {_few(sorted({leaf for name in names if not (leaf := name.rpartition('.')[2]).isdigit()}))}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(name[:_MOST_LETTERS] for name in names[:_MOST_NAMES]) + more


def _fits(name: str, part: str) -> bool:
    return f".{part}" in f".{name}" if part.endswith(".") else _ends_with(name, part)


def _ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _is_inside(name: str, modules: Collection[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
