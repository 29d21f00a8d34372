"""Every training setting, declared once, with its default, its bounds and the methods that read it.

Standard library only: the command line imports this file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

Setting = float | int | str | bool | None


@dataclass(frozen=True)
class Field:
    """One training setting. `low`/`high` are inclusive unless `above` says the lower bound is not."""

    name: str
    type: type[float] | type[int] | type[str] | type[bool]
    default: Setting
    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    searchable: bool = False
    methods: tuple[str, ...] = ()
    """Methods that read this setting; empty for all of them."""
    pattern: str = ""
    """What a text must match."""
    form: str = ""
    """That in words."""
    is_list: bool = False
    """Whether several texts may be given; they are kept as one, between commas."""

    def refuse(self, value: object) -> str | None:
        """Why `value` cannot be this setting, in words that follow 'got VALUE; ', or None when it can."""
        if value is None:
            return None if self.default is None else f"expected {self.describe()}"
        if self.is_list and isinstance(value, list):
            is_text = value and all(isinstance(part, str) and part and "," not in part for part in value)
            return None if is_text else f"expected {self.describe()}"
        wanted = (int, float) if self.type is float else self.type
        if not isinstance(value, wanted) or isinstance(value, bool) != (self.type is bool):
            return f"expected {self.describe()}"
        if self.choices and value not in self.choices:
            return f"expected {self.describe()}"
        if self.pattern and not re.fullmatch(self.pattern, str(value)):
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
        kind = self.form or {float: "a number", int: "a whole number", str: "text", bool: "true or false"}[self.type]
        if self.is_list:
            kind = "text, or a list of texts"
        bounds = []
        if self.above is not None:
            bounds.append(f"above {self.above:.12g}")
        if self.low is not None:
            bounds.append(f"at least {self.low:.12g}")
        if self.high is not None:
            bounds.append(f"at most {self.high:.12g}")
        return " ".join([kind, " and ".join(bounds)]).strip()


BUDGETS = ("max_epochs", "max_examples", "max_steps")
OPTIMIZERS = ("adamw_torch", "adafactor", "adamw_bnb_8bit", "paged_adamw_8bit", "lion_32bit", "lion_8bit")
LORA_METHODS = ("lora", "rslora", "dora", "pissa", "olora", "eva", "loftq", "qlora")

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
              choices=("linear", "cosine", "constant", "polynomial", "inverse_sqrt", "cosine_with_restarts"),
              searchable=True),
        Field("warmup_steps", int, None, "The same in optimizer steps; wins over warmup_ratio.", low=0),
        Field("optim", str, "adamw_torch", "Optimizer.", choices=OPTIMIZERS, searchable=True),
        Field("weight_decay", float, 0.01, "Decoupled weight decay.", low=0, high=1, searchable=True),
        Field("max_grad_norm", float, 1.0, "Gradient norm is clipped to this.", above=0, searchable=True),
        Field("loss", str, "default",
              "What training minimizes: default, focal, class-weighted, or FILE.py:FUNCTION beside the YAML.",
              pattern=r"default|focal|class-weighted|[^:]+\.py:\w+",
              form="default, focal, class-weighted or FILE.py:FUNCTION", searchable=True),
        Field("focal_gamma", float, 2.0, "How little the focal loss cares for what is known.", low=0, high=10,
              searchable=True),
        Field("label_smoothing_factor", float, 0.0, "Share of the target that is spread over all classes.", low=0,
              high=0.9, searchable=True),
        Field("neftune_noise_alpha", float, None, "Noise on the input embeddings while training.", above=0, high=100,
              searchable=True),
        Field("gradient_checkpointing", bool, False, "Compute activations twice instead of keeping them."),
        Field("max_length", int, 256, "Longest row in tokens; longer ones are cut.", low=8, high=1048576,
              searchable=True),
        Field("precision", str, "auto", "Arithmetic of the forward pass; auto: bf16 where native, else fp32.",
              choices=("auto", "fp32", "bf16", "fp16")),
        Field("lora_r", int, 8, "Rank of the adapter.", low=1, high=1024, searchable=True, methods=LORA_METHODS),
        Field("lora_alpha", float, None, "Adapter scale; left out: alpha_ratio times lora_r.", above=0,
              searchable=True, methods=LORA_METHODS),
        Field("alpha_ratio", float, 2.0, "lora_alpha as a multiple of lora_r.", above=0, high=64, searchable=True,
              methods=LORA_METHODS),
        Field("lora_dropout", float, 0.05, "Dropout on the adapter's input.", low=0, high=0.9, searchable=True,
              methods=LORA_METHODS),
        Field("target_modules", str, "all-linear",
              "Which linear layers get an adapter: all-linear, attention, mlp, or a list of names (their ends).",
              is_list=True, searchable=True, methods=LORA_METHODS),
        Field("quantization", str, "nf4", "How the frozen layers are kept: 4 bits with quantized scales, or 8 bits.",
              choices=("nf4", "fp4", "int8"), searchable=True, methods=("qlora",)),
        Field("adapter_size", int, 32, "Width of each bottleneck.", low=1, high=4096, searchable=True,
              methods=("adapter",)),
        Field("num_virtual_tokens", int, 16, "Length of the learned prompt or prefix.", low=1, high=1024,
              searchable=True, methods=("prompt", "prefix")),
    )
}  # fmt: skip
