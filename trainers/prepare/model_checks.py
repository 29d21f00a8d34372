"""Checks the base model without its weights, with the same functions that trials use.

It finds in milliseconds what one of the sweep's plans cannot do, before anything is trained or written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from trainers.data.sources import DataProblem
from trainers.lazy_bitsandbytes import is_installed
from trainers.model.methods.targets import (
    attention_outputs,
    feed_forward_outputs,
    key_value_layers,
    modules_in_full,
    new_modules_of,
    not_by_row,
    ranks_of,
    shared_head,
    shared_with,
    target_modules,
)
from trainers.model.source import BaseFiles, first_line, positions_of
from trainers.prepare.release_routes import why_no_adapter, why_unreleasable
from trainers.protocol.catalog import METHODS
from trainers.protocol.counted import counted
from trainers.protocol.events import Finding
from trainers.protocol.model_folder import named
from trainers.protocol.requests import Intent, MethodPlan
from trainers.protocol.settings import LORA_METHODS, QUANTIZING_METHODS
from trainers.protocol.trial_spec import Workload
from trainers.runtime.card import SIMILARITY
from trainers.runtime.options import providers
from trainers.tasks.table import TASKS
from trainers.training.optimizer import OF_BITSANDBYTES

T = TypeVar("T")
SHORTEST = 8
"""The minimum of `max_length`, in tokens."""


@dataclass(frozen=True)
class Skeleton:
    """A model without weights, on the `meta` device."""

    model: Any
    new_parameters: list[str]
    new_modules: list[str]
    """Modules that every method trains in full: the head, and all others that are new."""
    drawn_modules: list[str]
    """The outermost modules that the checkpoint does not contain."""


def look_at_model(
    workload: Workload, intent: Intent, base: BaseFiles, labels: Sequence[str], findings: list[Finding]
) -> BaseFiles:
    """The base with facts from its structure; all that a trial or the release would refuse goes to `findings`."""
    refused = {plan.method: METHODS[plan.method].refuse(workload.task, base.family) for plan in intent.plans}
    able = [name for name, method in METHODS.items() if not method.refuse(workload.task, base.family)]
    unfit = [Finding("method", why, f"expected one of {', '.join(able)}") for why in refused.values() if why]
    findings += in_their_place(intent, [*machine_findings(intent), *unfit])
    skeleton = build_skeleton(workload, base, labels, findings)
    if skeleton is None:
        return base
    positions = positions_of(skeleton.model)
    plans = [plan for plan in intent.plans if not refused[plan.method]]
    max_length, too_long = _max_length(workload, plans, positions)
    findings += in_their_place(intent, [*too_long, *module_findings(skeleton, plans, intent)])
    architecture = type(skeleton.model).__name__
    methods = dict.fromkeys(plan.method for plan in plans)
    why = why_no_adapter if intent.as_adapters else why_unreleasable
    reasons = {method: why(workload.task, architecture, method) for method in methods}
    unreleasable = {method: reason for method, reason in reasons.items() if reason}
    refusal, notes = _release(intent, unreleasable, sorted(set(methods) - set(unreleasable)))
    findings += [*refusal, *_target_findings(intent)]
    per_text = max_length // texts_apart(workload)
    looked_at = dataclasses.replace(
        base,
        max_length=max_length,
        notes=[*base.notes, *_length_notes(base, per_text, positions), *untying_notes(skeleton, plans), *notes],
        embeddings=int(skeleton.model.get_input_embeddings().weight.shape[0]),
        unreleasable=unreleasable,
    )
    findings += adapter_findings(workload, labels, skeleton)  # last, for it changes the skeleton
    return looked_at


def build_skeleton(
    workload: Workload, base: BaseFiles, labels: Sequence[str], findings: list[Finding]
) -> Skeleton | None:
    """The model with the task's head, without weights; None where it cannot be built from its files.

    Adds to `findings` why it cannot be built, and which weights the checkpoint lacks.
    """
    if findings and any(finding.where == "model" for finding in findings):
        return None  # for example the wrong kind of model: further problems do not matter
    try:
        model, drawn = TASKS[workload.task].load_model(
            str(base.folder), list(labels) or ["a", "b"], trust_remote_code=workload.model.trust_remote_code,
            dtype=torch.float32, use_safetensors=True, device_map="meta",
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001  # transformers and safetensors raise many kinds of errors
        findings.append(_unbuildable(workload, base, error))
        return None
    new = sorted({*drawn, *TASKS[workload.task].head_parameters(model)})  # as in `load_base`
    skeleton = Skeleton(model, new, new_modules_of(model, new), new_modules_of(model, drawn))
    if lacking := _lacking(skeleton):
        found = f"{base.folder} lacks weights that its config.json describes: {named(lacking)}"
        findings.append(Finding("model", found, "a complete model: these would be random"))
    return skeleton


def _lacking(skeleton: Skeleton) -> list[str]:
    """Modules without weights that are not a new head: any of a language model, else layers and embeddings."""
    model = skeleton.model
    embeddings, prefix = model.get_input_embeddings(), f"{model.base_model_prefix}."
    inside = [name for name in skeleton.drawn_modules if model.base_model is model or name.startswith(prefix)]
    layers = [name for name in inside if any(part.isdigit() for part in name.split("."))]
    lacking = [
        name
        for name in skeleton.drawn_modules
        if model.get_output_embeddings() is not None or name in layers or model.get_submodule(name) is embeddings
    ]
    return [name.removeprefix(prefix) for name in lacking]


def _unbuildable(workload: Workload, base: BaseFiles, error: Exception) -> Finding:
    from transformers.models.auto import modeling_auto as auto

    kind = base.config.model_type
    for names, what in ((auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "images"),
                        (auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES, "sound")):  # fmt: skip
        if kind in names:
            return Finding("model", f"{kind} is a model for {what}", f"{workload.task} needs a language model")
    return Finding("model", f"{base.folder} cannot be loaded: {first_line(error)}", "a complete safetensors model")


# --- what a machine can do --------------------------------------------------------------------------------


def machine_findings(intent: Intent) -> list[Finding]:
    """Findings for settings that this machine cannot run."""
    findings = []
    optimizers = {str(plan.settings["optim"]) for plan in intent.plans}
    for name in sorted(optimizers):
        if name.startswith("paged") and not torch.cuda.is_available():
            findings.append(Finding("training.optim", f"{name} needs a GPU", "without a GPU use adamw_bnb_8bit"))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and (most := max(int(plan.settings.get("devices") or 1) for plan in intent.plans)) > gpus:
        found = f"{most}, and this machine has {counted(gpus, 'GPU')}"
        findings.append(Finding("training.devices", found, f"at most {gpus}"))
    findings += _shard_findings(intent)
    if not is_installed():
        methods = {plan.method for plan in intent.plans} & QUANTIZING_METHODS
        found = "needs the package bitsandbytes"
        findings += [Finding("method", f"{name} {found}", "install it") for name in sorted(methods)]
        findings += [
            Finding("training.optim", f"{name} {found}", "install it")
            for name in sorted(optimizers & {*OF_BITSANDBYTES})
        ]
    return findings


def _shard_findings(intent: Intent) -> list[Finding]:
    """Findings for `shard: full` where there is nothing that could be spread over devices."""
    asked = [plan for plan in intent.plans if plan.settings.get("shard") == "full"]
    findings = []
    if asked and max(int(plan.settings.get("devices") or 1) for plan in asked) == 1:
        findings.append(Finding("training.shard", "full, and a trial has one device", "devices: 2 or more"))
    for method in sorted({plan.method for plan in asked} & QUANTIZING_METHODS):
        findings.append(Finding("training.shard", f"full, and {method} quantizes the frozen layers", "auto or off"))
    if any(plan.method == "full" for plan in asked):
        findings.append(Finding("training.shard", "full, and method full has no frozen layers", "auto or off"))
    return findings


# --- names of modules -------------------------------------------------------------------------------------


def module_findings(skeleton: Skeleton, plans: Iterable[MethodPlan], intent: Intent) -> list[Finding]:
    """Findings for modules that the plans name and the model does not have, or that no release can hold, each once."""
    findings: list[Finding] = []
    model, new = skeleton.model, skeleton.new_modules

    def looked(look: Callable[[], T]) -> T | None:
        try:
            return look()
        except DataProblem as problem:
            findings.extend(problem.findings)
            return None

    for plan in plans:
        if plan.method in LORA_METHODS:
            full, target, ranks = (_text(plan, n) for n in ("modules_to_save", "target_modules", "rank_pattern"))
            in_full = looked(partial(modules_in_full, full, model, new)) or new
            findings += not_by_row(model, in_full) if intent.as_adapters else []
            if layers := looked(partial(target_modules, str(target), model, in_full)):
                looked(partial(ranks_of, ranks, layers))
        for find in LAYER_FINDERS.get(plan.method, ()):
            looked(partial(find, model, new))
    return list(dict.fromkeys(findings))


LAYER_FINDERS: dict[str, tuple[Callable[[torch.nn.Module, Collection[str]], list[str]], ...]] = {
    "ia3": (key_value_layers, feed_forward_outputs),
    "adapter": (attention_outputs, feed_forward_outputs),
}
"""How methods that need no names of layers find their layers."""


def _text(plan: MethodPlan, name: str) -> str | None:
    return cast("str | None", plan.settings.get(name))


def in_their_place(intent: Intent, findings: Iterable[Finding]) -> list[Finding]:
    """Findings with the YAML key of a searched setting: `search_space.NAME` instead of `training.NAME`."""

    def place(where: str) -> str:
        section, _, name = where.partition(".")
        if section == "training" and name in intent.searched:
            return f"search_space.{name}"
        return "search_space.method" if where == "method" and "method" in intent.searched else where

    return [dataclasses.replace(finding, where=place(finding.where)) for finding in findings]


def untying_notes(skeleton: Skeleton, plans: Iterable[MethodPlan]) -> list[str]:
    """Notes on output embeddings that share their weight and are trained in full, so that they are untied."""
    choices = {_text(plan, "modules_to_save") for plan in plans}
    heads = {head for choice in choices if (head := shared_head(choice, skeleton.model))}
    return [
        f"modules_to_save: {head} shares its weight with {', '.join(shared_with(skeleton.model, head))}; "
        "trials and the release give it its own weight"
        for head in sorted(heads)
    ]


# --- an earlier training ----------------------------------------------------------------------------------


def adapter_findings(workload: Workload, labels: Sequence[str], skeleton: Skeleton) -> list[Finding]:
    """Findings on an earlier training that does not fit the model; afterwards the skeleton has its layers."""
    if workload.model.adapter is None:
        return []
    from trainers.model.base import Base
    from trainers.model.initial_adapter import earlier_training  # late: PEFT takes seconds

    base = Base(workload, list(labels), skeleton.model, skeleton.new_parameters, skeleton.new_parameters)
    try:
        earlier_training(base, Path(workload.model.adapter))
    except DataProblem as problem:
        return problem.findings
    return []


# --- positions --------------------------------------------------------------------------------------------


def _max_length(workload: Workload, plans: Iterable[MethodPlan], positions: int | None) -> tuple[int, list[Finding]]:
    """The longest row in tokens, and a finding where the sweep's `max_length` is too large."""
    if positions is None:
        return workload.max_length, []
    learned = max((int(plan.settings.get("num_virtual_tokens") or 0) for plan in plans), default=0)
    room = (positions - learned) * texts_apart(workload)
    before = f", and num_virtual_tokens takes {learned} of them" if learned else ""
    if room < SHORTEST:
        found = f"got {learned}, but the model has {positions} positions"
        where = "training.num_virtual_tokens" if learned else "model"
        return workload.max_length, [Finding(where, found, f"space for {SHORTEST} more tokens")]
    if workload.max_length <= room:
        return workload.max_length, []
    if not workload.max_length_is_given:
        return room, []
    found = f"got {workload.max_length}, but the model has {positions} positions{before}"
    each = ", half of it for each text" if texts_apart(workload) > 1 else ""
    return room, [Finding("training.max_length", found, f"at most {room}{each}")]


def texts_apart(workload: Workload) -> int:
    """How many texts of a row the model reads one at a time: `max_length` is for all of them together."""
    return 2 if workload.task == SIMILARITY else 1


def _length_notes(base: BaseFiles, max_length: int, positions: int | None) -> list[str]:
    said = base.tokenizer.model_max_length
    if said >= max_length:
        return []
    has = "no limit of positions" if positions is None else f"{positions:,} positions"
    return [f"the tokenizer's model_max_length is {said:,}, max_length is {max_length:,}; the model has {has}"]


# --- the release ------------------------------------------------------------------------------------------


def _release(intent: Intent, unreleasable: dict[str, str], able: list[str]) -> tuple[list[Finding], list[str]]:
    """A finding where the YAML asks for a release that no champion can have, else a note on methods without one."""
    if intent.release == "no" or not unreleasable:
        return [], []
    reasons = "; ".join(dict.fromkeys(unreleasable.values()))
    if intent.as_adapters:
        return [Finding("promote.as", reasons, "write as: merged, or choose another model or method")], []
    if able:
        return [], [f"only a champion of method {' or '.join(able)} can be released: {reasons}"]
    if intent.release == "asked":
        return [Finding("promote", reasons, "write promote: false, or choose another model or method")], []
    return [], [f"there will be no release; the champion stays an adapter: {reasons}"]


def _target_findings(intent: Intent) -> list[Finding]:
    """A finding where the release cannot be measured on what it is made for."""
    if intent.release == "no" or intent.target == "cpu" or "CUDAExecutionProvider" in providers(intent.target):
        return []
    found = "is cuda, but the installed onnxruntime has no CUDAExecutionProvider"
    return [Finding("promote.target", found, "install onnxruntime-gpu in its place, or write target: cpu")]
