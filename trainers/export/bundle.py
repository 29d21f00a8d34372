"""Writes a bundle: one base as ONNX whose adapters are inputs, and the adapters beside it, each with its card."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from trainers.data.sources import DataProblem
from trainers.export.bundle_parity import Reference, compare_bundle, reference_of
from trainers.export.by_row import ByRow
from trainers.export.cached import TOKENS, WithCache, axes_of
from trainers.export.encoder import Embedding, attention_for, sample_inputs, sample_tokens
from trainers.export.release import GRAPH, ExportError, ModelInterface, ModelParts, write_last, write_release
from trainers.export.tidy import tidy
from trainers.export.tracing import DYNAMIC, first_line, trace
from trainers.export.variants import interface_of
from trainers.model.base import Base
from trainers.model.beside import Beside, full_parts
from trainers.model.load import load_base, merge_apart, part_head
from trainers.model.source import load_tokenizer
from trainers.prepare.release_routes import adapter_route, why_no_adapter
from trainers.protocol.codec import to_json
from trainers.protocol.events import Finding
from trainers.protocol.exported import BundledAdapter, BundleExported
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import BundledTrial, ExportBundle
from trainers.runtime.adapters import COLUMNS, FULL, LORA, ROWS, WEIGHTS
from trainers.runtime.bundle import ADAPTERS
from trainers.runtime.card import GENERATIVE, SIMILARITY, Card

_ADAPTERS, _RANK = 3, 5
"""Sizes to trace with: an axis of the size of another one would be taken for it."""


@dataclass(frozen=True)
class _Learned:
    """One trial's part of a bundle."""

    name: str
    beside: Beside
    interface: ModelInterface
    reference: Reference
    """What its merged model says."""


def export_bundle(request: ExportBundle) -> BundleExported:
    """Write the bundle, and compare each adapter's answers with those of its merged model: alone, padded and mixed.

    Raises `DataProblem` with everything that no shared graph can hold, and `ExportError` where the base cannot be
    exported.
    """
    began = time.monotonic()
    out_dir = Path(request.dir)
    out_dir.mkdir(parents=True)
    learned, base = _learned(request.trials), _loaded(request.trials[0])
    for trial in request.trials:
        part_head(base, trial.spec)
    full = sorted({name for one in learned for name in one.beside.full})
    own = full_parts(base.model, full)
    first = request.trials[0]
    tokenizer = load_tokenizer(Path(first.inspection.model_dir), first.spec.workload.model.trust_remote_code)
    parts = ModelParts(tokenizer, base.model.config, getattr(base.model, "generation_config", None))
    try:
        _write_graph(base, tokenizer, [one.beside for one in learned], own, out_dir / GRAPH)
    except Exception as error:  # the tracer raises whatever the model's own code raises
        raise ExportError(f"{type(base.model).__name__} could not be exported: {first_line(error)}") from error
    longest = max((one.interface for one in learned), key=lambda interface: interface.max_length)
    names = tuple(one.name for one in learned)
    labels = longest.labels if request.champion else ()  # trials of one sweep have the same
    shown = replace(longest, labels=labels, adapters=names, champion=request.champion)
    card = write_release(out_dir, "fp32", shown, parts)
    for one in learned:
        _write_adapter(out_dir / ADAPTERS / one.name, one, own, card)
    differences, failures = compare_bundle(out_dir, {one.name: one.reference for one in learned})
    adapters = [_described(out_dir / ADAPTERS / name, name, differences[name]) for name in names]
    return BundleExported(adapters, failures, time.monotonic() - began)


def _learned(trials: Sequence[BundledTrial]) -> list[_Learned]:
    """What each trial holds beside the base. Raises `DataProblem` with the problems of all of them."""
    found, problems = [], []
    for trial in trials:
        try:
            found.append(_learned_of(trial))
        except DataProblem as problem:
            problems += [replace(finding, where=f"{trial.name}: {finding.where}") for finding in problem.findings]
    if problems:
        raise DataProblem(problems)
    return found


def _learned_of(trial: BundledTrial) -> _Learned:
    spec = trial.spec
    base = _loaded(trial)
    architecture, task = type(base.model).__name__, spec.workload.task
    route = adapter_route(task, architecture, spec.method)
    if route is None:
        found = str(why_no_adapter(task, architecture, spec.method))
        raise DataProblem([Finding("model", found, "a model and a method of which a graph takes adapters")])
    interface = replace(interface_of(base, spec.workload, trial.inspection.max_length), route=route.name)
    beside, merged = merge_apart(base, spec, TrialPaths(Path(spec.dir)).adapter)
    reference = reference_of(merged, task, Path(trial.inspection.tokens_dir), base.pad_id)
    return _Learned(trial.name, beside, replace(interface, cache="appended"), reference)


def _loaded(trial: BundledTrial) -> Base:
    inspection = trial.inspection
    return load_base(trial.spec.workload, inspection.labels, inspection.model_dir, inspection.scale)


def _write_graph(base: Base, tokenizer: Any, adapters: Sequence[Beside], own: Any, path: Path) -> None:
    """Trace the base with the weights of adapters among its inputs."""
    model: Any = base.model.eval()
    widths = {name: (part["a"].shape[0], part["b"].shape[1]) for one in adapters for name, part in one.thin.items()}
    widths = {name: sizes for name, sizes in widths.items() if name not in own}
    lora = {
        key: torch.randn(shape) * 0.01
        for name, (inner, outer) in widths.items()
        for key, shape in ((f"{name}.a", (inner, _RANK)), (f"{name}.b", (_RANK, outer)))
    }
    full = {
        f"{name}.{leaf}": torch.randn(_ADAPTERS, *tensor.shape) * 0.01
        for name, part in own.items()
        for leaf, tensor in part.items()
    }
    given: dict[str, Any] = {ROWS: torch.tensor([2, 0]), COLUMNS: torch.ones(2, 1, _RANK), "lora": lora}
    given |= {"full": full} if full else {}
    every = {ROWS: {0: DYNAMIC}, COLUMNS: {0: DYNAMIC, 2: DYNAMIC}, "lora": _axes(lora), "full": _axes(full)}
    model.set_attn_implementation(attention_for(model))
    if base.workload.task in GENERATIVE:
        inner: Any = WithCache(model)
        inputs = inner.sample()
        axes = {"input_ids": TOKENS, "attention_mask": TOKENS, "past_key_values": axes_of(inputs["past_key_values"])}
    else:
        is_embedding = base.workload.task == SIMILARITY
        inner = Embedding(model) if is_embedding else model
        inputs = sample_tokens(model) if is_embedding else sample_inputs(model, tokenizer)
        axes = dict.fromkeys(inputs, TOKENS)
    module = ByRow(model, inner, widths.keys(), own.keys()).eval()
    trace(module, {**inputs, **given}, {**axes, **{name: every[name] for name in given}}, path)
    if base.workload.task in GENERATIVE:
        tidy(path)
    _part_rows(path)


def _axes(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[int, Any]]:
    return {name: dict.fromkeys(range(tensor.dim()), DYNAMIC) for name, tensor in tensors.items()}


def _part_rows(path: Path) -> None:
    """Let a batch of one adapter name it once: its number's axis is then 1, and not the one of the rows.

    Layers that were trained in full are then one product of two matrices, and not one for each row.
    """
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] == ROWS:  # the tracer takes the number of rows from there
            del node.attribute[:]
            node.attribute.extend([onnx.helper.make_attribute("start", 0), onnx.helper.make_attribute("end", 1)])
            node.input[0] = "input_ids"
    for value in model.graph.input:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param.isdigit():  # the tracer names it by its digits, and a runtime would take any size
                size.dim_value = int(size.dim_param)
        if value.name == ROWS:
            value.type.tensor_type.shape.dim[0].dim_param = "rows_or_1"
    del model.graph.value_info[:]  # shapes of what lies between say that they are equal
    onnx.save(model, path)


def _write_adapter(folder: Path, one: _Learned, own: Any, base: Card) -> None:
    """Write an adapter's weights, and its card, which holds their hash."""
    folder.mkdir(parents=True)
    weights = {
        f"{LORA}{name}.{leaf}": tensor.numpy()
        for name, part in one.beside.thin.items()
        if name not in own
        for leaf, tensor in part.items()
    }
    for name, part in own.items():
        held = dict(one.beside.full.get(name, part))
        if name in one.beside.thin:  # another adapter has trained in full what this one has beside it
            held["weight"] = held["weight"] + one.beside.thin[name]["a"] @ one.beside.thin[name]["b"]
        weights |= {f"{FULL}{name}.{leaf}": tensor.numpy() for leaf, tensor in held.items()}
    file = io.BytesIO()
    np.savez(file, **weights)
    (folder / WEIGHTS).write_bytes(file.getvalue())
    shown = one.interface
    card = replace(
        base, labels=tuple(shown.labels), max_length=shown.max_length, columns=tuple(shown.columns),
        prompt_template=shown.prompt_template, after_answer=shown.after_answer, is_followed=shown.is_followed,
        adapters=(), champion="", adapter_hash=hashlib.sha256(file.getvalue()).hexdigest(),
        files={WEIGHTS: len(file.getvalue())},
    )  # fmt: skip
    write_last(folder / "release.json", to_json(card))


def _described(folder: Path, name: str, difference: float) -> BundledAdapter:
    card = Card.read(folder)
    return BundledAdapter(name, card.adapter_hash, card.files[WEIGHTS] / 1e6, difference)
