"""Losses: from logits and targets to one number for each unit (row, or target token)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from trainers.protocol.messages import TrialSpec
from trainers.user_code import load_function, named_by_line

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits [units, classes], targets [units]) -> losses [units]; float32."""


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, targets, reduction="none")


def training_loss(spec: TrialSpec, default: Loss, target_counts: Callable[[], torch.Tensor]) -> Loss:
    """What a trial minimizes; its metrics stay those of the task's own loss.

    `default` is the task's own; `target_counts` counts the training targets of each class, for class-weighted.
    Raises `ValueError` for a function of the user's that is not there.
    """
    name, settings = str(spec.settings["loss"]), spec.settings
    if ":" in name:
        return own_loss(Path(spec.workload.code_dir), name, spec.device)
    if name == "focal":
        return focal(float(settings["focal_gamma"] or 0))
    if name == "class-weighted":
        return class_weighted(target_counts().to(spec.device))
    if name == "contrastive":
        return contrastive(float(settings["contrastive_margin"] or 0))
    smoothing = float(settings["label_smoothing_factor"] or 0)
    return smoothed(smoothing) if smoothing and default is cross_entropy else default


def smoothed(factor: float) -> Loss:
    """Cross-entropy against the target at 1 - factor and all classes at factor / classes (Szegedy et al. 2016)."""

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=factor)

    return loss


def focal(gamma: float) -> Loss:
    """Cross-entropy times (1 - p)^gamma: what is known well counts little (Lin et al. 2017)."""

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nll = cross_entropy(logits, targets)
        return (1 - torch.exp(-nll)) ** gamma * nll

    return loss


def contrastive(margin: float) -> Loss:
    """Pairs of a value of one half or more are drawn together, others pushed apart until their cosine distance is
    `margin` (Hadsell et al. 2006)."""

    def loss(cosines: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        distance = 1 - cosines
        return torch.where(values >= 0.5, distance, F.relu(margin - distance)) ** 2 / 2

    return loss


def class_weighted(counts: torch.Tensor) -> Loss:
    """Cross-entropy with each class as heavy as every other: weights units / (classes * count)."""
    weights = counts.sum() / (len(counts) * counts.clamp(min=1)).float()

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return weights[targets] * cross_entropy(logits, targets)

    return loss


def own_loss(folder: Path, name: str, device: str = "cpu") -> Loss:
    """`FILE.py:FUNCTION` below `folder`; a module's weights come to `device`.

    Raises `ValueError` where it is not there, or gives anything but one number for each unit.
    """
    given = load_function(folder, name, "loss")
    if isinstance(given, torch.nn.Module):
        given.to(device)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with named_by_line(folder, name):
            losses = given(logits, targets)
        if not isinstance(losses, torch.Tensor) or losses.shape != targets.shape[:1]:
            shape = list(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise ValueError(f"loss: {name} gave {shape}, expected one number for each of {len(targets)} targets")
        return losses

    return loss
