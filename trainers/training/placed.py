"""A trial's model on its device, ready to train: sharded or whole, made fast, and with what its settings add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from trainers.data.tokens import Tokens
from trainers.fast.enter import ROUNDED, Shortcuts, make_fast
from trainers.fast.rounded_once import round_once
from trainers.model.base import Base
from trainers.model.load import resolve_precision
from trainers.protocol.trial_spec import TrialSpec
from trainers.tasks.base import Task
from trainers.training.neftune import add_embedding_noise
from trainers.training.packing import check_rows_apart
from trainers.training.ranks import Ranks
from trainers.training.shard import is_to_be_sharded, shard_frozen
from trainers.training.try_out import refused_for_model


@dataclass(frozen=True)
class Placed:
    """What became of a model that was placed."""

    is_sharded: bool
    shortcuts: Shortcuts
    autocast_dtype: torch.dtype | None
    """What autocast computes in; None for a model that needs no autocast."""


def place(model: Any, base: Base, spec: TrialSpec, task: Task, tokens: Tokens, ranks: Ranks) -> Placed:
    """Move a model with its adapter to the trial's device and set it up, in place; `tokens` are the training rows.

    Raises `DataProblem` where it cannot pack rows, and `ValueError` where it cannot compute activations twice.
    """
    settings, device = spec.settings, torch.device(spec.device)
    dtype = resolve_precision(spec.workload.arithmetic, device)
    is_sharded = is_to_be_sharded(str(settings.get("shard", "auto")), model, device, ranks)
    if is_sharded:
        shard_frozen(model, device, ranks)
        shortcuts = Shortcuts()
    else:
        model.to(device)
        shortcuts = _made_fast(model, base, task, tokens, device, dtype)
    autocast_dtype = None if ROUNDED in shortcuts.used else dtype
    if settings["neftune_noise_alpha"] is not None:
        add_embedding_noise(model, float(settings["neftune_noise_alpha"]))
    if settings.get("packing"):  # learned prompts do not know it
        check_rows_apart(model)
    if settings["gradient_checkpointing"]:
        recompute_activations(model)
    if device.type == "cuda" and autocast_dtype is not None and not is_sharded:
        round_once(model, autocast_dtype)  # last: from here on the model computes under autocast alone
        torch.cuda.empty_cache()  # what it held in float32 is for trials beside this one
    return Placed(is_sharded, shortcuts, autocast_dtype)


def _made_fast(
    model: Any, base: Base, task: Task, tokens: Tokens, device: torch.device, dtype: torch.dtype | None
) -> Shortcuts:  # fmt: skip
    """The shortcuts of the device. Where the host has not tried them on the base, they are tried here: always on a GPU,
    which the host leaves alone."""
    if base.refused_shortcuts is None:
        base.refused_shortcuts = refused_for_model(model, task, tokens, base.pad_id, dtype, device)
    return make_fast(model, base.refused_shortcuts, in_bf16=dtype == torch.bfloat16, device=device.type)


def recompute_activations(model: Any) -> None:
    """Compute activations twice instead of keeping them. Raises `ValueError` for a model that cannot."""
    model.activation_checkpointing_enable({"use_reentrant": False})
