"""A sweep that goes on from an earlier training: what a PEFT adapter learned becomes part of the base model's weights,
what the method `full` learned takes their place."""

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
from trainers.protocol.files import ADAPTER_WEIGHTS, OWN_WEIGHTS, adapter_files
from trainers.protocol.messages import Finding

_PREFIX = "base_model.model."
"""What PEFT puts before the names of the base's modules."""
_EXPECTED = "a PEFT adapter of this base model, or what the method full made of it"


def go_on_from(base: Base, folder: Path) -> set[str]:
    """Put what `folder` holds into the base model, in float32 and in place: the names of the parameters that it brings
    whole. A head among them is no longer drawn.

    Raises `DataProblem` where it does not fit the model or the number of labels.
    """
    brought = earlier_training(base, folder)()
    base.drawn_parameters = [name for name in base.drawn_parameters if name not in brought]
    return brought


def earlier_training(base: Base, folder: Path) -> Callable[[], set[str]]:
    """What `folder` holds, compared with the base model, which may have no weights; the answer puts it in and names the
    parameters that it brings. Raises `DataProblem` as `go_on_from` does."""
    return _all_weights(base, folder) if adapter_files(folder) == [folder / OWN_WEIGHTS] else _adapter(base, folder)


def _all_weights(base: Base, folder: Path) -> Callable[[], set[str]]:
    """All weights anew."""
    try:
        given = load_file(str(folder / OWN_WEIGHTS))
    except SafetensorError as error:
        raise DataProblem([_torn(folder, error)]) from error
    if any(".down." in name and name.replace(".down.", ".up.") in given for name in given):
        found = "bottlenecks between layers are no part of weights"
        raise DataProblem([Finding("model.adapter", found, _EXPECTED)])
    own = base.model.state_dict()
    one = {name: id(weight) for name, weight in base.model.named_parameters(remove_duplicate=False)}
    shared = {one[name] for name in given if name in one}  # of tied weights a file has one
    asked = {name: value for name, value in own.items() if name in given or one.get(name) not in shared}
    if findings := _misfits(base, asked, given):
        raise DataProblem(findings)

    def put_in() -> set[str]:
        base.model.load_state_dict(given, strict=False)
        return set(given)

    return put_in


def _adapter(base: Base, folder: Path) -> Callable[[], set[str]]:
    """The adapter, put on and to be merged."""
    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.task_type = None  # or PEFT would look for the head of the task that it was made for
        untie(base.model, ",".join(getattr(config, "modules_to_save", None) or ()))
        model = wrapped(base, config)
        given = load_file(str(folder / ADAPTER_WEIGHTS))
    except (ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:  # layers not found, files torn
        raise DataProblem([_torn(folder, error)]) from error
    if findings := _misfits(base, get_peft_model_state_dict(model, save_embedding_layers=False), given):
        raise DataProblem(findings)

    def put_in() -> set[str]:
        set_peft_model_state_dict(model, given)
        base.model = merged_into_base(model)
        return {name.removeprefix(_PREFIX) for name in given}

    return put_in


def _torn(folder: Path, error: Exception) -> Finding:
    found = f"{folder} cannot be taken: {str(error).splitlines()[0]}"
    return Finding("model.adapter", found, _EXPECTED)


def _misfits(base: Base, own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[Finding]:
    """Where the adapter's tensors are others than those that the model has a place for."""

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
        *finding(sorted(set(given) - set(own)), "has weights that the model has no place for:"),
        *finding(sorted(set(own) - set(given)), "lacks"),
        *finding([shape for shape in shapes if shape not in heads], "has"),
        *finding(heads, "has a head of other labels:", f"data with as many labels; here are {len(base.labels)}"),
    ]
