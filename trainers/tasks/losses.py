"""Losses: from logits and targets to one number for each unit (row, or target token)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from trainers.protocol.trial_spec import TrialSpec
from trainers.user_code import load_function, named_by_line

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits [units, classes], targets [units]) -> losses [units]; float32."""


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of logits [units, classes] and targets [units], in nats: [units]."""
    return F.cross_entropy(logits, targets, reduction="none")


def training_loss(spec: TrialSpec, default: Loss, target_counts: Callable[[], torch.Tensor]) -> Loss:
    """The loss that a trial minimizes; its metrics always use the task's own loss.

    `default` is the task's own loss; `target_counts` counts the training targets of each class, for class-weighted.
    Raises `ValueError` where the user's own function does not exist.
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
    """Cross-entropy with label smoothing: every class gets factor / classes of the target (Szegedy et al. 2016)."""

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=factor)

    return loss


def focal(gamma: float) -> Loss:
    """Focal loss: cross-entropy times (1 - p)^gamma, which down-weights easy examples (Lin et al. 2017)."""

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nll = cross_entropy(logits, targets)
        missed = -torch.expm1(-nll)  # 1 - p, without losing digits where p is almost 1
        return missed.clamp(min=torch.finfo(missed.dtype).tiny) ** gamma * nll  # 0 has no gradient for gamma < 1

    return loss


def contrastive(margin: float) -> Loss:
    """Contrastive loss of cosines [rows] and values [rows] (Hadsell et al. 2006).

    Pairs with a value of at least one half are pulled together; others are pushed apart up to a cosine distance of
    `margin`.
    """

    def loss(cosines: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        distance = 1 - cosines
        return torch.where(values >= 0.5, distance, F.relu(margin - distance)) ** 2 / 2

    return loss


def class_weighted(counts: torch.Tensor) -> Loss:
    """Cross-entropy in which all classes have the same total weight: units / (classes * count) for each unit."""
    weights = counts.sum() / (len(counts) * counts.clamp(min=1)).float()

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return weights[targets] * cross_entropy(logits, targets)

    return loss


def own_loss(folder: Path, name: str, device: str = "cpu") -> Loss:
    """The user's own loss `FILE.py:FUNCTION` below `folder`; the weights of a module are moved to `device`.

    Raises `ValueError` where it does not exist; the loss raises it where its result is not one number per unit.
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
