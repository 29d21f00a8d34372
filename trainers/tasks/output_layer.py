"""Loads a model with an output layer for the data's labels: rows of the checkpoint's head, or a new layer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from trainers.data.formats.base import names as first_names
from trainers.data.sources import DataProblem
from trainers.protocol.events import Finding
from trainers.tasks.label_names import HeadRows, head_names, rows_of_head


def own_head(config: Any, kind: str) -> bool:
    """Whether a checkpoint with this config has a head of `kind` (`ForSequenceClassification`, ...).

    True where the config names no architecture: then the weights decide.
    """
    names: Sequence[str] = getattr(config, "architectures", None) or ()
    return not names or any(name.endswith(kind) for name in names)


def kept_rows(config: Any, labels: Sequence[str], kind: str) -> HeadRows | None:
    """The rows of the checkpoint's head for these labels (one row without labels); None where it lacks one."""
    if not own_head(config, kind):
        return None
    if labels:
        return rows_of_head(config, labels)
    return HeadRows((0,), 1) if len(head_names(config)) == 1 else None


def head_notes(config: Any, labels: Sequence[str], kind: str) -> list[str]:
    """Notes on what happens to the head of a checkpoint with this config; empty where it has none."""
    if not getattr(config, "architectures", None) or not own_head(config, kind):
        return []
    kept = kept_rows(config, labels, kind)
    if kept is not None:
        return kept.notes() if labels else ["the model has a head for one number: training starts from it"]
    names = head_names(config)
    found = f"{len(names)} labels: {first_names(names)}" if len(names) > 1 else "one number"
    asked = "the data's labels" if labels else "one number"
    return [f"the model has a head for {found}; training starts with a new head for {asked}"]


def load_with_head(
    auto_class: Any, source: str, labels: Sequence[str], kind: str, **options: Any
) -> tuple[torch.nn.Module, list[str]]:
    """A model with one output per label (one without labels), in the labels' order, and its new parameters' names.

    Rows of the checkpoint's head are kept where it has all labels by name, in any order; else the output layer is
    initialized at random. Raises `DataProblem` for other weights that do not fit the config.
    """
    from transformers import AutoConfig

    trust = options.get("trust_remote_code", False)
    config = AutoConfig.from_pretrained(source, trust_remote_code=trust)
    kept, names = kept_rows(config, labels, kind), list(labels) or ["value"]
    config.num_labels = kept.count if kept else len(names)
    with _without_reports():
        model, info = auto_class.from_pretrained(
            source, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    layer = output_layer(model, config.num_labels)
    parameters = [f"{layer}.{name}" for name, _ in model.get_submodule(layer).named_parameters(recurse=False)]
    misfits = {str(key[0]) for key in info["mismatched_keys"]}
    if others := sorted(misfits - set(parameters)):
        found = f"the weights {first_names(others)} have other shapes than config.json says"
        raise DataProblem([Finding("model", found, "weights and a config that belong together")])
    missing = set(info["missing_keys"]) | misfits
    if kept and not missing & set(parameters):
        _pick(model.get_submodule(layer), kept.rows)
    else:
        _draw(model.get_submodule(layer), len(names), getattr(config, "initializer_range", None) or 0.02)
        missing |= set(parameters)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: row for row, name in enumerate(names)}
    model.num_labels = len(names)
    return model, sorted(missing)


def output_layer(model: Any, outputs: int) -> str:
    """The full name of the layer that computes the logits: the last one outside of the backbone with `outputs` outputs.

    Raises `DataProblem` where there is none.
    """
    for name, module in reversed(list(beside_backbone(model))):
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() == 2 and len(weight) == outputs:
            return str(name)
    found = f"{type(model).__name__} has no output layer of {outputs} outputs"
    raise DataProblem([Finding("model", found, "a model with a linear layer for its labels")])


def beside_backbone(model: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the full name and module of everything in a head: all that is outside of the model's backbone."""
    backbone = getattr(model, "base_model", model)
    inside = set() if backbone is model else set(backbone.modules())
    for name, module in model.named_modules():
        if name and module not in inside:
            yield name, module


def head_parameters(model: Any) -> list[str]:
    """Full names of the parameters of a head."""
    return [
        f"{name}.{parameter}"
        for name, module in beside_backbone(model)
        for parameter, _ in module.named_parameters(recurse=False)
    ]


def _pick(layer: torch.nn.Module, rows: Sequence[int]) -> None:
    """Keep these rows of a layer, in this order."""
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, torch.nn.Parameter(parameter.data[list(rows)].clone()))
    _resized(layer, len(rows))


def _draw(layer: torch.nn.Module, outputs: int, spread: float) -> None:
    """Initialize a layer at random for `outputs` outputs: weights from N(0, spread), biases 0."""
    for name, parameter in list(layer.named_parameters(recurse=False)):
        value = torch.zeros(outputs, *parameter.shape[1:], dtype=parameter.dtype)
        if parameter.dim() > 1:
            value.normal_(std=spread)
        setattr(layer, name, torch.nn.Parameter(value))
    _resized(layer, outputs)


def _resized(layer: torch.nn.Module, outputs: int) -> None:
    if hasattr(layer, "out_features"):
        layer.out_features = outputs


@contextmanager
def _without_reports() -> Iterator[None]:
    """Silence transformers' report of each new parameter of a head: `head_notes` says it more clearly."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
