"""Every training setting, declared once, with its default, its bounds and the methods that read it.

Standard library only: the command line imports this file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

MOST = 1_000_000_000_000
"""Of settings without a bound of their own, steps and examples for example: more than any machine can take."""
LEAST = 1e-30
"""Of numbers above 0: less is lost in any sum, and what samples it has nothing to divide by."""
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
    is_mapping: bool = False
    """Whether names with a whole number each are given; kept as text, `q_proj=16,k_proj=4`. Bounds are the numbers'."""

    def refuse(self, value: object) -> str | None:
        """Why `value` cannot be this setting, in words that follow 'got VALUE; ', or None when it can."""
        if value is None:
            return None if self.default is None else f"expected {self.describe()}"
        if self.is_list and isinstance(value, list):
            is_text = value and all(isinstance(part, str) and part and "," not in part for part in value)
            return None if is_text else f"expected {self.describe()}"
        if self.is_mapping:
            return None if self._is_mapping(value) else f"expected {self.describe()}"
        if self.type is int and isinstance(value, float) and value.is_integer():  # 1e5
            value = int(value)
        wanted = (int, float) if self.type is float else self.type
        if not isinstance(value, wanted) or isinstance(value, bool) != (self.type is bool) or value == "":
            return f"expected {self.describe()}"
        if self.choices and value not in self.choices:
            return f"expected {self.describe()}"
        if self.pattern and not re.fullmatch(self.pattern, str(value)):
            return f"expected {self.describe()}"
        if isinstance(value, (int, float)) and not self._in_bounds(float(value)):
            return f"expected {self.describe()}"
        if isinstance(value, (int, float)) and abs(value) > MOST:
            return f"expected at most {MOST:,}"
        if isinstance(value, float) and 0 < abs(value) < LEAST:
            return f"expected 0 or at least {LEAST:g}" if self.above is None else f"expected at least {LEAST:g}"
        return None

    def _is_mapping(self, value: object) -> bool:
        if isinstance(value, str) and re.fullmatch(r"[^,=]+=\d+(,[^,=]+=\d+)*", value):
            value = mapping_of(value)
        return isinstance(value, dict) and bool(value) and all(
            isinstance(name, str) and re.fullmatch("[^,=]+", name) is not None
            and isinstance(number, int) and not isinstance(number, bool) and self._in_bounds(number)
            for name, number in value.items()
        )  # fmt: skip

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
        if self.is_mapping:
            kind = "a mapping of names to whole numbers"
        bounds = []
        if self.above is not None:
            bounds.append(f"above {self.above:.12g}")
        if self.low is not None:
            bounds.append(f"at least {self.low:.12g}")
        if self.high is not None:
            bounds.append(f"at most {self.high:.12g}")
        return " ".join([kind, " and ".join(bounds)]).strip()


def mapping_text(mapping: Mapping[str, int]) -> str:
    """A mapping as the text that settings hold: `q_proj=16,k_proj=4`."""
    return ",".join(f"{name}={number}" for name, number in mapping.items())


def mapping_of(text: str) -> dict[str, int]:
    """The inverse of `mapping_text`. Raises `ValueError` for any other text."""
    return {name: int(number) for name, _, number in (part.partition("=") for part in text.split(","))}


BUDGETS = ("max_epochs", "max_examples", "max_steps")
OPTIMIZERS = ("adamw_torch", "adafactor", "adamw_bnb_8bit", "paged_adamw_8bit", "lion_32bit", "lion_8bit")
CHANGE_NO_RESULT = (
    "micro_batch_size", "packing", "gradient_checkpointing", "devices", "shard", "logging_steps", "save_steps",
)  # fmt: skip
"""Settings that decide how a trial runs and what it reports, but not what it is to learn. `devices` is one of them, as
the number of threads is: sums are rounded in another order, and a checkpoint goes on with any number. Groups of other
rows (`micro_batch_size`, or `devices` where a batch has fewer micro-batches) also draw other dropout and noise."""
ASKED_OF_MODEL = (
    "target_modules", "rank_pattern", "modules_to_save", "num_virtual_tokens", "quantization", "optim", "devices",
    "shard",
)  # fmt: skip
"""Settings that a model, or the machine, may not be able to do: looked at before the first trial."""
LORA_METHODS = ("lora", "rslora", "dora", "pissa", "olora", "eva", "loftq", "qlora")
QUANTIZING_METHODS = frozenset({"qlora", "loftq"})
"""Their frozen layers are packed in 4 or 8 bits."""
PACKING_METHODS = (*LORA_METHODS, "ia3", "adapter", "full")
"""All that put nothing before a row's tokens."""

FIELDS: Mapping[str, Field] = {
    f.name: f
    for f in (
        Field("learning_rate", float, 5e-4, "peak learning rate", above=0, high=1, searchable=True),
        Field("batch_size", int, 16, "examples per optimizer step", low=1, high=65536,
              searchable=True),
        Field("micro_batch_size", int, 16,
              "most examples in one forward pass; accumulation follows; changes the result by rounding alone, or by "
              "what dropout and noise draw", low=1, high=65536),
        Field("max_epochs", float, 3.0, "full budget of a trial, in passes over the training rows", above=0,
              high=10000, searchable=True),
        Field("max_examples", int, None, "full budget of a trial, in training examples", low=1,
              searchable=True),
        Field("max_steps", int, None,
              "full budget of a trial, in optimizer steps of the *baseline's* batch size, so that all trials see "
              "equally many examples", low=1),
        Field("evaluations", int, 5,
              "evaluations per trial, at equal shares of the largest budget of any trial", low=1, high=1000),
        Field("eval_steps", int, None,
              "in place of `evaluations`: optimizer steps of the *baseline's* batch size from one to the next, "
              "rounded to a whole number of evaluations", low=1),
        Field("evaluation_rows", int, None,
              "in place of `evaluation_share`: validation rows of each evaluation inside a trial, the same for all "
              "trials. A complete trial's value comes from all rows", low=1),
        Field("evaluation_share", float, 0.2,
              "largest share of a trial's training work that its evaluations may take, estimated from tokens; "
              "`evaluation_rows` follows from it", above=0, high=1000),
        Field("early_stopping.patience", int, 3, "evaluations without improvement before a trial stops itself",
              low=1, high=1000),
        Field("early_stopping.min_delta", float, 0.0, "smallest change of the metric that counts as improvement",
              low=0),
        Field("warmup_ratio", float, 0.06, "share of the budget over which the learning rate rises", low=0,
              high=0.9, searchable=True),
        Field("lr_scheduler_type", str, "linear", "shape of the learning rate after warm-up",
              choices=("linear", "cosine", "constant", "polynomial", "inverse_sqrt", "cosine_with_restarts"),
              searchable=True),
        Field("warmup_steps", int, None,
              "optimizer steps over which the learning rate rises; wins over `warmup_ratio`", low=0),
        Field("optim", str, "adamw_torch",
              "optimizer; the last four are of bitsandbytes, and `paged_adamw_8bit` needs a GPU",
              choices=OPTIMIZERS, searchable=True),
        Field("weight_decay", float, 0.01, "weight decay, decoupled from the gradient", low=0, high=1, searchable=True),
        Field("max_grad_norm", float, 1.0, "the norm of the gradient is clipped to this", above=0, searchable=True),
        Field("loss", str, "default",
              "what training minimizes: `default`, `focal`, `class-weighted` (every label, or tag, has the "
              "same weight), `contrastive` (`text-similarity`), or `FILE.py:FUNCTION`, your own function or "
              "class: (logits, targets) -> a loss for each target",
              pattern=r"default|focal|class-weighted|contrastive|[^:]+\.py:\w+",
              form="default, focal, class-weighted, contrastive or FILE.py:FUNCTION", searchable=True),
        Field("focal_gamma", float, 2.0,
              "gamma of the focal loss; higher values down-weight easy examples", low=0, high=10,
              searchable=True),
        Field("contrastive_margin", float, 0.5,
              "pairs of a value below 0.5 are pushed apart up to this cosine distance (Hadsell et al. 2006)", above=0,
              high=2, searchable=True),
        Field("label_smoothing_factor", float, 0.0,
              "share of the target that the default loss spreads over all classes", low=0,
              high=0.9, searchable=True),
        Field("neftune_noise_alpha", float, None,
              "noise on the input embeddings while training (Jain et al. 2023)", above=0, high=100,
              searchable=True),
        Field("gradient_checkpointing", bool, False,
              "compute activations twice instead of keeping them; does not change the result"),
        Field("packing", bool, False,
              "the rows of a forward pass in one sequence, without padding and without seeing each other "
              "(`causal-lm`, `instruct`, `chat`; not with `prompt`, `prefix` and `neftune_noise_alpha`); does "
              "not change the result; on a CPU the layers of most models compute no padding anyway",
              methods=PACKING_METHODS),
        Field("devices", int, 1,
              "devices that train a trial together, each a share of every batch: GPUs, or processes on a CPU; changes "
              "the result by rounding alone, or by what dropout and noise draw (see below)",
              low=1, high=64, searchable=True),
        Field("shard", str, "auto",
              "whether the frozen layers are spread over a trial's devices instead of each holding all of them; `auto` "
              "does it for a base that does not fit one device; does not change the result",
              choices=("auto", "off", "full")),
        Field("logging_steps", int, None,
              "optimizer steps from one point of the training loss to the next; left out, there is one every "
              "half second", low=1),
        Field("save_steps", int, None,
              "optimizer steps between checkpoints, besides those at evaluations; does not change the result", low=1),
        Field("max_length", int, 256,
              "longest row in tokens; longer ones are cut, and counted; left out, no more than the model has "
              "positions for", low=8, high=1048576,
              searchable=True),
        Field("precision", str, "auto",
              "arithmetic of the forward pass; `auto` is the fastest in a few steps on this CPU with losses as in fp32 "
              "(on a GPU bf16, where it computes it natively)",
              choices=("auto", "fp32", "bf16", "fp16")),
        Field("lora_r", int, 8, "rank of the adapter", low=1, high=1024, searchable=True, methods=LORA_METHODS),
        Field("lora_alpha", float, None,
              "the adapter is scaled by this over `lora_r` (`rslora`: over its root); left out, it is `alpha_ratio` "
              "times `lora_r`", above=0, searchable=True, methods=LORA_METHODS),
        Field("alpha_ratio", float, 2.0,
              "`lora_alpha` as a multiple of `lora_r`, so the scale at any rank; for `rslora` give `lora_alpha`",
              above=0, high=64, searchable=True, methods=LORA_METHODS),
        Field("lora_dropout", float, 0.0, "dropout on the adapter's input", low=0, high=0.9, searchable=True,
              methods=LORA_METHODS),
        Field("target_modules", str, "all-linear",
              "layers that get an adapter: `all-linear`, `attention`, `mlp`, or a list of names, e.g. "
              "`[q_proj, v_proj]`",
              is_list=True, searchable=True, methods=LORA_METHODS),
        Field("rank_pattern", str, None,
              'layers with a rank of their own, e.g. `{q_proj: 16, "layer.0.": 4}`; not with `eva`',
              low=1, high=1024, is_mapping=True, searchable=True, methods=tuple(m for m in LORA_METHODS if m != "eva")),
        Field("init_lora_weights", str, "default",
              "how the adapter's input side begins: `default` is PEFT's, `gaussian` is drawn with a spread of "
              "1 / rank",
              choices=("default", "gaussian"), searchable=True, methods=("lora", "rslora", "dora")),
        Field("modules_to_save", str, None, "modules trained in full besides the adapter, e.g. `[embed_tokens]`",
              is_list=True, searchable=True, methods=LORA_METHODS),
        Field("quantization", str, "nf4", "how the frozen layers are kept: 4 bits with quantized scales, or 8 bits",
              choices=("nf4", "fp4", "int8"), searchable=True, methods=("qlora",)),
        Field("adapter_size", int, 32, "width of the bottlenecks", low=1, high=4096, searchable=True,
              methods=("adapter",)),
        Field("num_virtual_tokens", int, 16, "length of the learned prompt or prefix", low=1, high=1024,
              searchable=True, methods=("prompt", "prefix")),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Alias:
    """A setting by the name that transformers' TrainingArguments have for it."""

    name: str
    canonical: str
    """The setting that it is."""
    help: str
    own: Field | None = None
    """What may be given, where that is not what the setting itself takes."""
    meanings: Mapping[Setting, Setting] | None = None
    """What a value means; one that is not here says nothing."""
    times: str = ""
    """A setting that the value is multiplied with."""

    @property
    def field(self) -> Field:
        """What may be given."""
        return self.own or FIELDS[self.canonical]


ALIASES: Mapping[str, Alias] = {
    a.name: a
    for a in (
        Alias("num_train_epochs", "max_epochs", "the same"),
        Alias("per_device_train_batch_size", "micro_batch_size",
              "the same; `batch_size` stays what it is, however many `devices` a trial has"),
        Alias("gradient_accumulation_steps", "batch_size", "this times the micro-batch, which must be given too",
              own=Field("gradient_accumulation_steps", int, None, "", low=1, high=65536), times="micro_batch_size"),
        Alias("bf16", "precision", "true is bf16; false leaves `precision` as it is",
              own=Field("bf16", bool, None, ""), meanings={True: "bf16"}),
        Alias("fp16", "precision", "true is fp16; false leaves `precision` as it is",
              own=Field("fp16", bool, None, ""), meanings={True: "fp16"}),
    )
}  # fmt: skip

UNNEEDED: Mapping[str, str] = {
    "dataloader_num_workers": "remove it: rows come tokenized from memory maps, there is nothing to load meanwhile",
}
"""TrainingArguments that have nothing to decide here, and why."""
