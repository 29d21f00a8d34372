"""Loads the base model, and attaches, saves, loads and merges adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch

from trainers.model.base import Base
from trainers.model.beside import Beside, full_modules, full_parts, thin_parts
from trainers.model.initial_adapter import start_from
from trainers.model.methods.base import Batches
from trainers.model.methods.peft_methods import merged_into_base, with_adapter
from trainers.model.methods.table import METHODS
from trainers.model.methods.targets import untie
from trainers.model.source import pad_token_of
from trainers.protocol.codec import to_json
from trainers.protocol.events import Scale
from trainers.protocol.files import TARGET_SCALE, replace_folder, write_atomically
from trainers.protocol.trial_spec import TrialSpec, Workload
from trainers.tasks.full_precision import in_float32
from trainers.tasks.output_layer import output_layer
from trainers.tasks.table import TASKS
from trainers.tasks.units import AS_GIVEN, scale_of, set_scale

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_base(
    workload: Workload, labels: list[str], folder: str | None = None, scale: Scale | None = None
) -> Base:  # fmt: skip
    """Load the weights (safetensors only) in float32; autocast casts them where a trial computes in lower precision.

    `scale` is the unit of a regression's values. Raises transformers' errors where the weights do not fit the config,
    and `DataProblem` for an earlier adapter that does not fit.
    """
    task = TASKS[workload.task]
    model, drawn = task.load_model(
        folder or workload.model.source,
        labels,
        trust_remote_code=workload.model.trust_remote_code,
        dtype=torch.float32,
        use_safetensors=True,
    )
    model.config.use_cache = False
    model.config.pad_token_id = pad_id = pad_token_of(model.config)
    new = sorted({*drawn, *task.head_parameters(model)})
    base = Base(workload, labels, model, new, drawn, pad_id, folder or workload.model.source)
    replaced = start_from(base, Path(workload.model.adapter)) if workload.model.adapter else set()
    if scale is not None:
        task.rescale(base.model, scale, _unit_of_head(base, replaced))
    if task.head_parameters(base.model):
        for name in base.new_modules:
            in_float32(base.model.get_submodule(name))
    base.model.requires_grad_(False)
    base.model.eval()
    return base


def _unit_of_head(base: Base, replaced: set[str]) -> Scale | None:
    """The unit that the head of a base model was trained in; None for a head that is initialized at random."""
    output = output_layer(base.model, 1)
    if f"{output}.weight" in base.drawn_parameters:
        return None
    return learned_scale(Path(str(base.workload.model.adapter))) if f"{output}.weight" in replaced else AS_GIVEN


def learned_scale(folder: Path) -> Scale:
    """The unit of the values that an adapter's head predicts; the data's own unit where the adapter names none."""
    file = folder / TARGET_SCALE
    return Scale(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else AS_GIVEN


def draw_new_parameters(base: Base, seed: int) -> None:
    """Initialize a new head at random from the trial's seed: the host did it once for all trials.

    Weights come from N(0, initializer_range), biases are 0 and scales of a norm are 1, as in transformers.
    """
    generator = torch.Generator().manual_seed(seed)
    spread = getattr(base.model.config, "initializer_range", 0.02)
    parameters = dict(base.model.named_parameters())
    with torch.no_grad():
        for name in base.drawn_parameters:
            parameter = parameters[name]
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def put_adapter_on(base: Base, spec: TrialSpec, batches: Batches = ()) -> torch.nn.Module:
    """The base made trainable by the spec's method and seed; `batches` are for methods that initialize from data."""
    draw_new_parameters(base, spec.seed)
    torch.manual_seed(spec.seed)
    part_head(base, spec)
    return METHODS[spec.method].attach(base, spec, batches)


def save_adapter(model: torch.nn.Module, spec: TrialSpec, folder: Path) -> None:
    """Write the trained parameters (safetensors, JSON); the whole folder is replaced by a rename."""
    scratch = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    METHODS[spec.method].save(model, scratch)
    if (scale := scale_of(model)) != AS_GIVEN:
        write_atomically(scratch / TARGET_SCALE, json.dumps(to_json(scale)))
    replace_folder(scratch, folder)


def load_adapter(base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
    """The base with the adapter that a trial of `spec` saved, for evaluation."""
    part_head(base, spec)
    set_scale(base.model, learned_scale(folder))
    return METHODS[spec.method].load(base, spec, folder).eval()


def merge(base: Base, spec: TrialSpec, folder: Path) -> Any:
    """The base with the adapter merged into its weights, in float32: a plain transformers model."""
    base.model.float()
    part_head(base, spec)
    set_scale(base.model, learned_scale(folder))
    merged = METHODS[spec.method].merge(base, spec, folder).eval()
    TASKS[spec.workload.task].fold_scale(merged)
    return merged


def merge_apart(base: Base, spec: TrialSpec, folder: Path) -> tuple[Beside, Any]:
    """What an adapter holds beside the base's weights, and the plain model with it merged, both in float32.

    For methods that are beside their base, as the catalog says. Raises `DataProblem` for what no graph can choose by
    row.
    """
    base.model.float()
    part_head(base, spec)
    set_scale(base.model, learned_scale(folder))
    wrapped = with_adapter(base, folder).float()
    thin, names = thin_parts(wrapped), full_modules(wrapped)
    merged = merged_into_base(wrapped).eval()
    TASKS[spec.workload.task].fold_scale(merged)
    return Beside(thin, full_parts(merged, names)), merged


def part_head(base: Base, spec: TrialSpec) -> None:
    """Untie an output embedding that the trial trains in full from the input embedding, in this process only."""
    untie(base.model, cast("str | None", spec.settings.get("modules_to_save")))


def resolve_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast, or None for plain float32.

    `auto` is bf16 where the device computes it natively, else float32: on GPUs, and in sweeps that began before a CPU's
    precision was measured (`trainers/training/precision.py`).
    """
    if precision == "auto":
        return torch.bfloat16 if _computes_bf16(device) else None
    return None if precision == "fp32" else _DTYPES[precision]


def is_bf16_on_cpu(precision: str) -> bool:
    """Whether trials on this CPU compute in bf16."""
    return resolve_precision(precision, torch.device("cpu")) is torch.bfloat16


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
