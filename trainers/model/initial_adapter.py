"""An earlier training as the starting point of a sweep: a PEFT adapter is merged into the base model's weights, and a
model that method `full` saved replaces them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from peft import PeftConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from trainers.data.sources import DataProblem
from trainers.model.base import Base
from trainers.model.methods.peft_methods import merged_into_base, wrapped
from trainers.model.methods.targets import untie
from trainers.protocol.events import Finding
from trainers.protocol.files import ADAPTER_WEIGHTS, OWN_WEIGHTS, adapter_files

_PREFIX = "base_model.model."
"""PEFT's prefix for the names of the base model's modules."""
_EXPECTED = "a PEFT adapter of this base model, or this model as method full saved it"


def start_from(base: Base, folder: Path) -> set[str]:
    """Load an earlier training into the base model, in float32 and in place.

    Returns the names of the parameters that it replaces; a head among them is not initialized at random any more.
    Raises `DataProblem` where it does not fit the model or the number of labels.
    """
    replaced = earlier_training(base, folder)()
    base.drawn_parameters = [name for name in base.drawn_parameters if name not in replaced]
    return replaced


def earlier_training(base: Base, folder: Path) -> Callable[[], set[str]]:
    """Compare an earlier training with the base model, whose weights may be on the `meta` device.

    The function that it returns loads the training and returns the names of the parameters that it replaces. Raises
    `DataProblem` as `start_from` does.
    """
    return _all_weights(base, folder) if adapter_files(folder) == [folder / OWN_WEIGHTS] else _adapter(base, folder)


def _all_weights(base: Base, folder: Path) -> Callable[[], set[str]]:
    """All weights of the model, as method `full` saved them."""
    try:
        given = load_file(str(folder / OWN_WEIGHTS))
    except SafetensorError as error:
        raise DataProblem([_unreadable(folder, error)]) from error
    if any(".down." in name and name.replace(".down.", ".up.") in given for name in given):
        found = "bottleneck adapters of method adapter cannot be merged into the weights"
        raise DataProblem([Finding("model.adapter", found, _EXPECTED)])
    own = base.model.state_dict()
    one = {name: id(weight) for name, weight in base.model.named_parameters(remove_duplicate=False)}
    shared = {one[name] for name in given if name in one}  # a file has one of several tied weights
    asked = {name: value for name, value in own.items() if name in given or one.get(name) not in shared}
    if findings := _misfits(base, asked, given):
        raise DataProblem(findings)

    def load() -> set[str]:
        base.model.load_state_dict(given, strict=False)
        return set(given)

    return load


def _adapter(base: Base, folder: Path) -> Callable[[], set[str]]:
    """A PEFT adapter, which is attached to the base model here and merged later."""
    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.task_type = None  # else PEFT looks for the head of the adapter's own task
        untie(base.model, ",".join(getattr(config, "modules_to_save", None) or ()))
        model = wrapped(base, config)
        given = load_file(str(folder / ADAPTER_WEIGHTS))
    except (ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:  # missing layers, damaged files
        raise DataProblem([_unreadable(folder, error)]) from error
    if findings := _misfits(base, get_peft_model_state_dict(model, save_embedding_layers=False), given):
        raise DataProblem(findings)

    def load() -> set[str]:
        set_peft_model_state_dict(model, given)
        base.model = merged_into_base(model)
        return {name.removeprefix(_PREFIX) for name in given}

    return load


def _unreadable(folder: Path, error: Exception) -> Finding:
    found = f"{folder} cannot be loaded: {str(error).splitlines()[0]}"
    return Finding("model.adapter", found, _EXPECTED)


def _misfits(base: Base, own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[Finding]:
    """Differences between the names and shapes of the given tensors and those of the model."""

    def finding(names: list[str], what: str, expected: str = _EXPECTED) -> list[Finding]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return [Finding("model.adapter", f"{what} {names[0]}{more}", expected)] if names else []

    shapes = [
        f"{name.removeprefix(_PREFIX)} {list(given[name].shape)} where the model has {list(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    heads = [shape for shape in shapes if shape.split(" ")[0] in base.new_parameters]
    return [
        *finding(sorted(set(given) - set(own)), "has weights that the model does not have:"),
        *finding(sorted(set(own) - set(given)), "lacks"),
        *finding([shape for shape in shapes if shape not in heads], "has"),
        *finding(heads, "has a head for other labels:", f"data with as many labels; this data has {len(base.labels)}"),
    ]
