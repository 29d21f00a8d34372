"""The curves that every tracker draws of a trial: names and values, over the training examples seen. Pure."""

from __future__ import annotations

from trainers.protocol.events import Evaluation, Step, TrialResult
from trainers.protocol.settings import Setting
from trainers.protocol.trial_spec import TrialSpec


def of_step(step: Step) -> dict[str, float]:
    """Loss and learning rate of a training step; nothing for a step without a loss (see `logging_steps`)."""
    return {} if step.loss is None else {"train/loss": step.loss, "train/learning_rate": step.learning_rate}


def of_evaluation(evaluation: Evaluation) -> dict[str, float]:
    """The metrics of an evaluation as `validation/NAME`, and its `optimizer_step`."""
    metrics = {f"validation/{name}": value for name, value in evaluation.metrics.items()}
    return {**metrics, "optimizer_step": evaluation.step}


def best_of(result: TrialResult) -> dict[str, float]:
    """The metrics of a trial's best evaluation as `best/NAME`."""
    return {f"best/{name}": value for name, value in result.metrics.items()}


def settings_of(spec: TrialSpec) -> dict[str, Setting]:
    """The settings in which trials differ, without those that are None."""
    settings = {"method": spec.method, **spec.settings, "max_examples": spec.max_examples, "seed": spec.seed}
    return {name: value for name, value in settings.items() if value is not None}
