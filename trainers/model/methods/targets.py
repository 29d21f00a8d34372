"""Which layers of a model a method changes: found by what they are and by their names, in every family."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import torch

from trainers.data.sources import DataProblem
from trainers.protocol.messages import Finding
from trainers.protocol.settings import mapping_of

_ATTENTION = ("attn", "attention")
# What the families call the products that give keys and values, and the last product of each block.
_KEY_VALUE = re.compile(
    r"(^|\.)(key|value|k_proj|v_proj|k_lin|v_lin|k|v|kv_proj|key_proj|value_proj|c_attn|Wqkv|qkv_proj)$"
)
_FEED_FORWARD_OUT = re.compile(r"(^|\.)(down_proj|fc2|lin2|wo|mlp\.c_proj|mlp\.Wo|(?<!attention\.)output\.dense)$")
_MOST_NAMES, _MOST_LETTERS = 20, 100
"""What one message repeats."""
_TIED = {"embed_tokens", "lm_head"}
_ATTENTION_OUT = re.compile(
    r"(^|\.)(o_proj|out_proj|out_lin|attention\.output\.dense|attn\.c_proj|attn\.Wo|o|self_attn\.dense)$"
)


def linear_layers(model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """Full names of the linear layers, without those of a fresh head and the output embedding."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [
        name
        for name, module in model.named_modules()
        if is_linear(module) and module is not output and not _is_inside(name, new_modules)
    ]


def new_modules_of(model: torch.nn.Module, new_parameters: Collection[str]) -> list[str]:
    """Full names of the outermost modules that hold nothing but new parameters: a head, trained in full.

    Full, because PEFT matches by the end of a name: `dense` would be half of RoBERTa.
    """
    new, known = set(new_parameters), {name for name, _ in model.named_parameters()}

    def outermost(name: str) -> str:
        parent = name.rpartition(".")[0]
        inside = {other for other in known if other.startswith(f"{parent}.")} if parent else known
        return outermost(parent) if inside <= new else name

    return sorted({outermost(name.rpartition(".")[0]) for name in new})


def is_linear(module: torch.nn.Module) -> bool:
    """Whether a module is a linear layer, GPT-2's transposed one included."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def straighten(model: torch.nn.Module) -> None:
    """Replace GPT-2's transposed linear layers by ordinary ones of the same function, in place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "Conv1D":
                weight: torch.Tensor = child.weight.data
                straight = torch.nn.Linear(weight.shape[0], weight.shape[1])
                straight.weight.data, straight.bias.data = weight.T.contiguous(), child.bias.data
                setattr(parent, name, straight.requires_grad_(False))


def target_modules(choice: str, model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """The layers that `all-linear`, `attention`, `mlp` or names between commas (ends of names) mean.

    Raises `DataProblem` where there is none.
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
    """Full names of the modules that are trained in full: a fresh head, and those that names between commas (ends of
    names) mean. Raises `DataProblem` for a name that there is not, and for a weight that cannot be kept shared."""
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
    """Full name of the output embedding where `choice` names it and PEFT cannot keep the weight that it shares with the
    input embedding one: it gets a weight of its own then. None otherwise."""
    if not choice or model.config.is_encoder_decoder:  # T5 scales by whether the two are one
        return None
    output = model.get_output_embeddings()
    name = next((name for name, module in model.named_modules() if module is output), "")
    if not name or not any(_ends_with(name, end) for end in choice.split(",")):
        return None
    others = shared_with(model, name)
    return name if others and not {n.rpartition(".")[2] for n in (name, *others)} <= _TIED else None


def untie(model: Any, choice: str | None) -> None:
    """Give the output embedding a weight of its own where `modules_to_save` asks for that, in place.

    The model then says so itself, for whoever saves or loads it.
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
        return f"name {head} too: then each has a weight of its own"
    return f"PEFT keeps only {' and '.join(sorted(_TIED))} together"


def _savable(model: torch.nn.Module) -> list[str]:
    """Full names of the modules that have parameters and a forward pass of their own: a list of layers has none."""
    lists = (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.ParameterList, torch.nn.ParameterDict)
    return [
        name
        for name, module in model.named_modules()
        if name and not isinstance(module, lists) and any(True for _ in module.parameters())
    ]


def shared_with(model: torch.nn.Module, name: str) -> list[str]:
    """Full names of the modules that have a weight of the module `name` and are neither in it nor it."""
    weights = {id(weight) for weight in model.get_submodule(name).parameters()}
    return [
        other
        for other, module in model.named_modules(remove_duplicate=False)
        if not _is_inside(other, [name]) and any(id(weight) in weights for weight in module.parameters(recurse=False))
    ]


def ranks_of(choice: str | None, layers: Collection[str]) -> dict[str, int]:
    """Full names of the layers that have a rank of their own, and the rank; the first name that fits a layer decides.

    A name is the end of a layer's, or, where it ends in a dot, a part of it. Raises `DataProblem` where none fits.
    """
    pattern = mapping_of(choice) if choice else {}
    if unknown := [part for part in pattern if not any(_fits(name, part) for name in layers)]:
        raise _refusal("rank_pattern", f"no layer with an adapter is called {_few(unknown)}", _there_are(layers))
    fitting = {name: [rank for part, rank in pattern.items() if _fits(name, part)] for name in layers}
    return {name: ranks[0] for name, ranks in fitting.items() if ranks}


def key_value_layers(model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """The layers that give keys and values. Raises `DataProblem` where none is known by its name."""
    return _found(_KEY_VALUE, "one of keys and values", model, new_modules)


def feed_forward_outputs(model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """The last layer of each feed-forward block."""
    return _found(_FEED_FORWARD_OUT, "the end of a feed-forward block", model, new_modules)


def attention_outputs(model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    """The last layer of each attention block."""
    return _found(_ATTENTION_OUT, "the end of an attention block", model, new_modules)


def _found(pattern: re.Pattern[str], what: str, model: torch.nn.Module, new_modules: Collection[str]) -> list[str]:
    names = [name for name in linear_layers(model, new_modules) if pattern.search(name)]
    if not names:
        found = f"{type(model).__name__} has no layer whose name says that it is {what}"
        raise DataProblem([Finding("method", found, "choose lora, which takes all linear layers")])
    return names


def _refusal(setting: str, found: str, expected: str) -> DataProblem:
    return DataProblem([Finding(f"training.{setting}", found, expected)])


def _there_are(names: Collection[str]) -> str:
    """The last parts of full names."""
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
