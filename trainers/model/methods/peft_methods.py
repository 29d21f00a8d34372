"""Methods that PEFT implements: LoRA and its variants, IA3, prompt tuning and prefix tuning."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from peft import (
    EvaConfig,
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
    initialize_lora_eva_weights,
)
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file

from trainers.model.base import Base
from trainers.model.methods.base import Batches, Method
from trainers.model.methods.targets import (
    feed_forward_outputs,
    key_value_layers,
    modules_in_full,
    ranks_of,
    shared_with,
    straighten,
    target_modules,
    width_of,
)
from trainers.protocol.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from trainers.protocol.trial_spec import TrialSpec

_TASK_TYPES = {
    "text-classification": "SEQ_CLS", "multi-label-classification": "SEQ_CLS", "regression": "SEQ_CLS",
    "token-classification": "TOKEN_CLS", "causal-lm": "CAUSAL_LM", "instruct": "CAUSAL_LM", "chat": "CAUSAL_LM",
    "text-to-text": "SEQ_2_SEQ_LM", "text-similarity": "FEATURE_EXTRACTION",
}  # fmt: skip
EVA_BATCHES = 16
_SETS = ("target_modules", "exclude_modules", "feedforward_modules")
"""What PEFT's configs hold as sets of names."""


class Peft(Method):
    """A method of PEFT whose saved adapter fits the unchanged base model."""

    def __init__(self, config: Callable[[TrialSpec, Base], PeftConfig]) -> None:
        self._config = config

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        return wrapped(base, self._config(spec, base))

    def save(self, model: Any, folder: Path) -> None:
        # PEFT's model card is a template without content, and takes longer than the adapter.
        model.create_or_update_model_card = lambda output_dir: None
        with warnings.catch_warnings():
            # PEFT asks the hub whether the vocabulary was resized, and warns when it cannot; it never was.
            warnings.simplefilter("ignore")
            model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        _sort_names(folder / ADAPTER_CONFIG)

    def load(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        return with_adapter(base, folder)

    def merge(self, base: Base, spec: TrialSpec, folder: Path) -> torch.nn.Module:
        return merged_into_base(self.load(base, spec, folder))


def _sort_names(file: Path) -> None:
    """Write the names in one order, so that the same training writes the same file."""
    config = json.loads(file.read_text())
    names = {key: sorted(config[key]) for key in _SETS if isinstance(config.get(key), list)}
    file.write_text(json.dumps(config | names, indent=2))


class DataDrivenLora(Peft):
    """LoRA as EVA: its A matrix starts as the principal directions of the layer's inputs (Paischer et al. 2024)."""

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        first, config = list(islice(batches, EVA_BATCHES)), self._config(spec, base)
        limit_ranks(config, _counted_inputs(base.model, sorted(config.target_modules), first))
        model = wrapped(base, config).to(spec.device)  # it computes as much as some steps do
        model.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of batches with fewer tokens than ranks
            initialize_lora_eva_weights(model, first, prepare_layer_inputs_fn=_layer_inputs, show_progress_bar=False)
        return model


def _counted_inputs(model: torch.nn.Module, layers: Sequence[str], batches: Sequence[Any]) -> dict[str, int]:
    """How many inputs each layer has in the batch with the most tokens; a pooler has one for each row. PEFT passes over
    the batches without end where none has as many inputs as a layer's rank."""
    largest = max(batches, key=lambda batch: int(batch["attention_mask"].sum()))
    positions, counts = largest["attention_mask"].nonzero(), dict[str, int]()
    with ExitStack() as hooks, torch.no_grad():
        for name in layers:
            hook = partial(_count, counts, name, positions)
            hooks.callback(model.get_submodule(name).register_forward_pre_hook(hook).remove)
        model(**{name: given.to(next(model.parameters()).device) for name, given in largest.items()})
    return counts


def _count(counts: dict[str, int], name: str, positions: torch.Tensor, _layer: Any, inputs: Any) -> None:
    counts[name] = len(_layer_inputs(inputs, positions, name))


def _layer_inputs(inputs: Any, positions: torch.Tensor, layer: str) -> torch.Tensor:
    """A layer's inputs [vectors, width] at positions without padding; a pooler has one vector per row."""
    given: torch.Tensor = inputs[0] if isinstance(inputs, tuple) else inputs
    return given[positions.T.unbind()] if given.dim() == 3 else given.contiguous()


class ResidualLora(Peft):
    """PiSSA and OLoRA: the adapter starts as a part of the weights, which is subtracted from the base.

    The adapter is saved as the change since its start, at twice the rank, so that it fits the unchanged base:
    B A - B0 A0 = [B, -B0] [A; A0].
    """

    def attach(self, base: Base, spec: TrialSpec, batches: Batches) -> torch.nn.Module:
        straighten(base.model)
        model = super().attach(base, spec, batches)
        first = get_peft_model_state_dict(model, save_embedding_layers=False)
        model.first_adapter = {name: value.clone() for name, value in first.items() if ".lora_" in name}
        return model

    def save(self, model: Any, folder: Path) -> None:
        super().save(model, folder)
        weights = load_file(str(folder / ADAPTER_WEIGHTS))
        for name, first in model.first_adapter.items():
            both = [weights[name], first] if ".lora_A" in name else [weights[name], -first]
            weights[name] = torch.cat(both, dim=0 if ".lora_A" in name else 1).contiguous()
        save_file(weights, str(folder / ADAPTER_WEIGHTS), metadata={"format": "pt"})
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        config |= {"r": 2 * config["r"], "lora_alpha": 2 * config["lora_alpha"], "init_lora_weights": True}
        for pattern in ("rank_pattern", "alpha_pattern"):
            config[pattern] = {name: 2 * number for name, number in config[pattern].items()}
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2))


def wrapped(base: Base, config: PeftConfig) -> Any:
    """PEFT's model around the base, which it changes in place."""
    with warnings.catch_warnings():
        # PEFT warns of output dimensions that it cannot infer and of repeated names; the tests check the result.
        warnings.simplefilter("ignore")
        return get_peft_model(base.model, config)


def with_adapter(base: Base, folder: Path) -> torch.nn.Module:
    """PEFT's model around the base, which it changes in place, with an adapter that was saved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `wrapped`
        # On the CPU, for a base that may be anywhere: else PEFT begins with a GPU wherever there is one.
        model: torch.nn.Module = PeftModel.from_pretrained(base.model, str(folder), torch_device="cpu").eval()
    return model


def merged_into_base(model: Any) -> torch.nn.Module:
    """The plain model inside PEFT's, with the adapter merged into its weights."""
    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # IA3 itself can unload single layers only
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.modules_to_save["default"])
    merged: torch.nn.Module = model.merge_and_unload(safe_merge=True)
    return merged


# --- configs -------------------------------------------------------------------------------------------


def lora(*, is_fitted: bool = False, **changes: Any) -> Callable[[TrialSpec, Base], LoraConfig]:
    """A function that makes the config of LoRA, or of the variant that `changes` describe, for a trial.

    `is_fitted` is for adapters that begin as directions of a layer's weight or inputs: no rank is above their number.
    """

    def config(spec: TrialSpec, base: Base) -> LoraConfig:
        settings = spec.settings
        in_full = modules_to_save(spec, base)
        layers = target_modules(str(settings["target_modules"]), base.model, in_full)
        rank, alpha = int(settings["lora_r"] or 1), float(settings["lora_alpha"] or 0)
        ranks = ranks_of(cast("str | None", settings.get("rank_pattern")), layers)
        begin = {"init_lora_weights": "gaussian"} if settings.get("init_lora_weights") == "gaussian" else {}
        made = LoraConfig(
            task_type=_TASK_TYPES[spec.workload.task],
            r=rank,
            lora_alpha=alpha,
            lora_dropout=float(settings["lora_dropout"] or 0),
            target_modules=layers,
            rank_pattern=ranks,
            alpha_pattern={name: alpha * own / rank for name, own in ranks.items()},
            modules_to_save=in_full or None,
            ensure_weight_tying=any(shared_with(base.model, name) for name in in_full),
            **begin,
            **changes,
        )
        if is_fitted:
            limit_ranks(made, {name: width_of(base.model.get_submodule(name)) for name in layers})
        return made

    return config


def limit_ranks(config: LoraConfig, most: Mapping[str, int]) -> None:
    """Give each layer in `most` at most that rank, in place; the scale of its adapter stays."""
    for name, rank in most.items():
        if rank < config.rank_pattern.get(name, config.r):
            config.rank_pattern[name] = rank
            config.alpha_pattern[name] = config.lora_alpha * rank / config.r


def modules_to_save(spec: TrialSpec, base: Base) -> list[str]:
    """Full names of the modules that are trained in full: a new head, and the setting `modules_to_save`."""
    return modules_in_full(cast("str | None", spec.settings.get("modules_to_save")), base.model, base.new_modules)


def ia3(spec: TrialSpec, base: Base) -> IA3Config:
    """The config of IA3: scales on keys, values and the last layer of each feed-forward block (Liu et al. 2022)."""
    last = feed_forward_outputs(base.model, base.new_modules)
    return IA3Config(
        task_type=_TASK_TYPES[spec.workload.task],
        target_modules=[*key_value_layers(base.model, base.new_modules), *last],
        feedforward_modules=last,
        modules_to_save=modules_to_save(spec, base) or None,
    )


def prompt(spec: TrialSpec, base: Base) -> PromptTuningConfig:
    """The config of prompt tuning: trained vectors before the input's embeddings (Lester et al. 2021)."""
    return PromptTuningConfig(
        task_type=_TASK_TYPES[spec.workload.task], num_virtual_tokens=int(spec.settings["num_virtual_tokens"] or 1)
    )


def prefix(spec: TrialSpec, base: Base) -> PrefixTuningConfig:
    """The config of prefix tuning: trained keys and values in every layer (Li and Liang 2021)."""
    return PrefixTuningConfig(
        task_type=_TASK_TYPES[spec.workload.task], num_virtual_tokens=int(spec.settings["num_virtual_tokens"] or 1)
    )


EVA = EvaConfig(rho=1.0)
"""Every layer keeps its rank."""
