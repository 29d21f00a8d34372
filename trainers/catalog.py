"""Every task, metric, method and training setting, each declared once, with its default.

`hpo` validates YAML against these tables and has no defaults of its own; the trainers read their settings
through them. Standard library only: the command line imports this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Setting = float | int | str | None
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Field:
    """One training setting. `low`/`high` are inclusive unless `above` says the lower bound is not."""

    name: str
    type: type[float] | type[int] | type[str]
    default: Setting
    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    searchable: bool = False
    methods: tuple[str, ...] = ()
    """Methods that read this setting; empty for all of them."""

    def refuse(self, value: object) -> str | None:
        """Why `value` cannot be this setting, in words that follow 'got VALUE; ', or None when it can."""
        if value is None:
            return None if self.default is None else f"expected {self.describe()}"
        wanted = (int, float) if self.type is float else self.type
        if not isinstance(value, wanted) or isinstance(value, bool):
            return f"expected {self.describe()}"
        if self.choices and value not in self.choices:
            return f"expected {self.describe()}"
        if isinstance(value, (int, float)) and not self._in_bounds(float(value)):
            return f"expected {self.describe()}"
        return None

    def _in_bounds(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
        )

    def describe(self) -> str:
        """What would be right: 'a number above 0 and at most 1', 'one of linear, cosine'."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        kind = {float: "a number", int: "a whole number", str: "text"}[self.type]
        bounds = []
        if self.above is not None:
            bounds.append(f"above {self.above:.12g}")
        if self.low is not None:
            bounds.append(f"at least {self.low:.12g}")
        if self.high is not None:
            bounds.append(f"at most {self.high:.12g}")
        return " ".join([kind, " and ".join(bounds)]).strip()


BUDGETS = ("max_epochs", "max_examples", "max_steps")
_LORA_METHODS = ("lora", "rslora", "dora")

FIELDS: Mapping[str, Field] = {
    f.name: f
    for f in (
        Field("learning_rate", float, 5e-4, "Peak learning rate.", above=0, high=1, searchable=True),
        Field("batch_size", int, 16, "Examples per optimizer step (the effective batch).", low=1, high=65536,
              searchable=True),
        Field("micro_batch_size", int, 8, "Most examples in one forward pass; accumulation follows.", low=1,
              high=65536),
        Field("max_epochs", float, 3.0, "Full budget of a trial, in passes over the training rows.", above=0,
              high=10000, searchable=True),
        Field("max_examples", int, None, "Full budget in training examples; wins over max_epochs.", low=1,
              searchable=True),
        Field("max_steps", int, None,
              "Full budget in optimizer steps of the baseline's batch size; wins over max_epochs.", low=1),
        Field("evaluations", int, 5, "Evaluations per trial, at equal fractions of its budget.", low=1, high=1000),
        Field("early_stopping.patience", int, 3, "Evaluations without improvement before a trial stops itself.",
              low=1, high=1000),
        Field("early_stopping.min_delta", float, 0.0, "Smallest change of the metric that counts as improvement.",
              low=0),
        Field("warmup_ratio", float, 0.06, "Share of the budget over which the learning rate rises.", low=0,
              high=0.9, searchable=True),
        Field("lr_scheduler_type", str, "linear", "Shape of the learning rate after warm-up.",
              choices=("linear", "cosine", "constant"), searchable=True),
        Field("optim", str, "adamw_torch", "Optimizer.", choices=("adamw_torch", "adafactor"), searchable=True),
        Field("weight_decay", float, 0.01, "Decoupled weight decay.", low=0, high=1, searchable=True),
        Field("max_grad_norm", float, 1.0, "Gradient norm is clipped to this.", above=0, searchable=True),
        Field("max_length", int, 256, "Longest row in tokens; longer ones are cut.", low=8, high=1048576,
              searchable=True),
        Field("precision", str, "auto", "Arithmetic of the forward pass; auto: bf16 where native, else fp32.",
              choices=("auto", "fp32", "bf16", "fp16")),
        Field("lora_r", int, 8, "Rank of the adapter.", low=1, high=1024, searchable=True, methods=_LORA_METHODS),
        Field("lora_alpha", float, None, "Adapter scale; left out: alpha_ratio times lora_r.", above=0,
              searchable=True, methods=_LORA_METHODS),
        Field("alpha_ratio", float, 2.0, "lora_alpha as a multiple of lora_r.", above=0, high=64, searchable=True,
              methods=_LORA_METHODS),
        Field("lora_dropout", float, 0.05, "Dropout on the adapter's input.", low=0, high=0.9, searchable=True,
              methods=_LORA_METHODS),
        Field("target_modules", str, "all-linear", "Which linear layers get an adapter.",
              choices=("all-linear", "attention", "mlp"), searchable=True, methods=_LORA_METHODS),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A way to make a base model trainable."""

    name: str
    help: str


METHODS: Mapping[str, Method] = {
    m.name: m
    for m in (
        Method("lora", "Low-rank adapters (Hu et al. 2021)."),
        Method("rslora", "LoRA scaled by alpha / sqrt(r) (Kalajdzievski 2023)."),
        Method("dora", "LoRA with magnitude and direction apart (Liu et al. 2024)."),
    )
}


METHOD = Field("method", str, "lora", "How the base model is made trainable.", choices=tuple(METHODS), searchable=True)
"""The one dimension that is not a training setting."""


@dataclass(frozen=True)
class Metric:
    """A number computed over validation rows."""

    name: str
    direction: Direction
    help: str


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric("loss", "minimize", "Mean negative log-likelihood (per row, or per target token)."),
        Metric("perplexity", "minimize", "exp of the token-weighted mean negative log-likelihood."),
        Metric("token_accuracy", "maximize", "Share of target tokens that are the model's first choice."),
        Metric("accuracy", "maximize", "Share of rows with the right label."),
        Metric("f1_macro", "maximize", "F1 per label, averaged with equal weight."),
        Metric("f1_micro", "maximize", "F1 over all decisions (equals accuracy with one label a row)."),
        Metric("f1_weighted", "maximize", "F1 per label, averaged by the label's rows."),
    )
}


RESOURCES: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric("seconds", "minimize", "Training and evaluating, of a whole trial."),
        Metric("trainable_parameters", "minimize", "Parameters that a trial trains."),
        Metric("adapter_mb", "minimize", "Size of the adapter's files."),
    )
}
"""What a trial costs: further objectives, and what hard constraints may bound."""


@dataclass(frozen=True)
class Task:
    """What a model learns to do: its columns in the data, its metrics, what differs in its defaults."""

    name: str
    help: str
    columns: Mapping[str, str]
    """Role -> default column name, e.g. {"text": "text", "label": "label"}."""
    metrics: tuple[str, ...]
    """The first is the default objective."""
    defaults: Mapping[str, Setting] = field(default_factory=dict)
    base_is_scored: bool = False
    """Whether the untouched base model already has this task's metric (a new head has none)."""
    variants: tuple[str, ...] = ("fp32", "int8")
    """ONNX variants made at promotion."""


TASKS: Mapping[str, Task] = {
    t.name: t
    for t in (
        Task(
            "text-classification",
            "One label for a text.",
            columns={"text": "text", "label": "label"},
            metrics=("f1_macro", "accuracy", "f1_micro", "f1_weighted", "loss"),
        ),
        Task(
            "chat",
            "Assistant turns of conversations, in the model's own chat template.",
            columns={"messages": "messages"},
            metrics=("perplexity", "loss", "token_accuracy"),
            defaults={"learning_rate": 5e-4, "batch_size": 8, "micro_batch_size": 4, "max_length": 512},
            base_is_scored=True,
            variants=("fp32", "int8", "int4"),
        ),
    )
}


def canonical_settings(method: str, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings in their one true form: only what `method` reads, `lora_alpha` instead of its ratio, and none of the
    budgets (a trial's spec has its number of examples). Two points are the same trial when these are equal."""
    canonical = {name: settings[name] for name, f in FIELDS.items() if not f.methods or method in f.methods}
    for budget in BUDGETS:
        del canonical[budget]
    ratio = canonical.pop("alpha_ratio", None)
    if "lora_alpha" in canonical:
        alpha = canonical["lora_alpha"]
        canonical["lora_alpha"] = float(ratio or 0) * float(canonical["lora_r"] or 0) if alpha is None else float(alpha)
    return canonical


def default_settings(task: str, method: str) -> dict[str, Setting]:
    """Every setting that `method` reads, at its default for `task`."""
    overrides = TASKS[task].defaults
    return {name: overrides.get(name, f.default) for name, f in FIELDS.items() if not f.methods or method in f.methods}
