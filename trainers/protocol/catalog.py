"""Every task, metric and method, each declared once; training settings are in `settings.py`.

`hpo` validates YAML against these tables and has no defaults of its own; the trainers read their settings
through them. Standard library only: the command line imports this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trainers.protocol.settings import BUDGETS, FIELDS, Field, Setting
from trainers.protocol.variants import READING, REWRITING, WRITING, Variants

Direction = Literal["maximize", "minimize"]
DIRECTIONS: tuple[Direction, ...] = ("maximize", "minimize")


def relative_drop(value: float, reference: float, direction: Direction) -> float:
    """How much worse a metric's `value` is than `reference`, as a share of `reference`; negative when better."""
    worse_by = reference - value if direction == "maximize" else value - reference
    return worse_by / abs(reference) if reference else (0.0 if worse_by <= 0 else math.inf)


Family = Literal["encoder", "decoder", "encoder-decoder"]
FAMILIES: tuple[Family, ...] = ("encoder", "decoder", "encoder-decoder")
DATA_SUFFIXES = (
    ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".conll", ".conllu", ".bio", ".iob", ".iob2", ".ndjson",
    ".arrow",
)  # fmt: skip
"""Files of rows, by the end of their names, in capitals or not; `formats/table.py` has a reader for each."""


@dataclass(frozen=True)
class Method:
    """A way to make a base model trainable."""

    name: str
    help: str
    families: tuple[Family, ...] = FAMILIES
    merges: bool = True
    """Whether what it learned can be folded into the base model's weights; else only some graphs can hold it."""
    is_beside: bool = False
    """Whether all it learned is two thin matrices beside each layer of the unchanged base: then many of them share one
    graph."""
    tasks: tuple[str, ...] = ()
    """Tasks that it goes with; empty for all of them."""
    defaults: Mapping[str, Setting] = field(default_factory=dict)
    """What differs from the task's."""

    def refuse(self, task: str, family: Family) -> str | None:
        """Why it does not go with a task or a kind of model, or None."""
        if self.tasks and task not in self.tasks:
            return f"method {self.name} goes with {', '.join(self.tasks)}, not with {task}"
        if family not in self.families:
            return f"method {self.name} needs a {' or '.join(self.families)}; the model is of the kind {family}"
        return None


METHODS: Mapping[str, Method] = {
    m.name: m
    for m in (
        Method("lora", "Low-rank adapters (Hu et al. 2021).", is_beside=True),
        Method("rslora", "LoRA scaled by alpha / sqrt(r) (Kalajdzievski 2023).", is_beside=True),
        Method("dora", "LoRA with magnitude and direction apart (Liu et al. 2024)."),
        Method("pissa", "LoRA that begins as the main part of the weights (Meng et al. 2024).", is_beside=True),
        Method("olora", "LoRA that begins as an orthonormal part of the weights (Büyükakyüz 2024).", is_beside=True),
        Method(
            "eva",
            "LoRA that begins as the main directions of its layers' inputs (Paischer et al. 2024).",
            ("encoder", "decoder"),
            is_beside=True,
        ),
        Method("loftq", "LoRA initialized from the error of 4-bit quantization (Li et al. 2023)."),
        Method("qlora", "LoRA on a base kept in 4 or 8 bits (Dettmers et al. 2023).", is_beside=True),
        Method(
            "ia3",
            "Learned scales on keys, values and feed-forward blocks (Liu et al. 2022).",
            defaults={"learning_rate": 5e-3},
        ),
        Method("adapter", "Bottleneck networks between the layers (Houlsby et al. 2019).", merges=False),
        Method(
            "prompt",
            "A learned prompt before the text (Lester et al. 2021).",
            ("decoder",),
            merges=False,
            tasks=("causal-lm", "instruct", "chat"),
            defaults={"learning_rate": 3e-2},
        ),
        Method(
            "prefix",
            "Learned keys and values before the text (Li and Liang 2021).",
            ("decoder",),
            merges=False,
            tasks=("causal-lm", "instruct", "chat"),
            defaults={"learning_rate": 1e-2},
        ),
        Method("full", "Every parameter is trained.", defaults={"learning_rate": 5e-5}),
    )
}


FOLDABLE_ADAPTERS = ("LORA", "IA3", "LOHA", "LOKR", "OFT", "HRA")
"""PEFT's types of adapters that a base model can begin with: those whose learning fits into its weights."""

METHOD = Field("method", str, "lora", "How the base model is made trainable.", choices=tuple(METHODS), searchable=True)
"""The one dimension that is not a training setting."""


@dataclass(frozen=True)
class Metric:
    """A number computed over validation rows."""

    name: str
    direction: Direction
    help: str

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value that it can have."""
        usual = (0.0, 1.0) if self.direction == "maximize" else (0.0, math.inf)
        return _BOUNDS.get(self.name, usual)


_BOUNDS: Mapping[str, tuple[float, float]] = {
    "perplexity": (1.0, math.inf),
    **dict.fromkeys(("mcc", "pearson", "spearman"), (-1.0, 1.0)),
    "r2": (-math.inf, 1.0),
    **dict.fromkeys(("chrf", "bleu"), (0.0, 100.0)),
}
"""Of metrics that are neither a share (to be maximized) nor an error of any size (to be minimized)."""

METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric("loss", "minimize", "Mean negative log-likelihood (per row, or per target token), or squared error."),
        Metric("perplexity", "minimize", "exp of the token-weighted mean negative log-likelihood."),
        Metric("bits_per_byte", "minimize", "Negative log-likelihood in bits, per byte of what is predicted."),
        Metric("token_accuracy", "maximize", "Share of target tokens (or tagged words) that are guessed right."),
        Metric("accuracy", "maximize", "Share of rows with the right label (or all labels right)."),
        Metric("f1_macro", "maximize", "F1 per label (or tag, over words), averaged with equal weight."),
        Metric("f1_micro", "maximize", "F1 over all decisions (equals accuracy with one label a row)."),
        Metric("f1_weighted", "maximize", "F1 per label, averaged by the label's rows."),
        Metric("precision_macro", "maximize", "Precision per label, averaged with equal weight."),
        Metric("recall_macro", "maximize", "Recall per label, averaged with equal weight."),
        Metric("mcc", "maximize", "Matthews' correlation of true and predicted labels."),
        Metric("roc_auc", "maximize", "Area under the ROC curve, one label against the rest, averaged."),
        Metric("entity_f1", "maximize", "F1 over whole entities, as CoNLL counts them; of plain tags over words."),
        Metric("entity_precision", "maximize", "Share of predicted entities that are right."),
        Metric("entity_recall", "maximize", "Share of true entities that are found."),
        Metric("pearson", "maximize", "Linear correlation of true and predicted values."),
        Metric("spearman", "maximize", "Rank correlation of true and predicted values."),
        Metric("r2", "maximize", "Share of the values' variance that is explained."),
        Metric("mae", "minimize", "Mean absolute error."),
        Metric("rmse", "minimize", "Root of the mean squared error."),
        Metric("exact_match", "maximize", "Share of generated answers that are the data's, to the letter."),
        Metric("rouge1", "maximize", "Words in common with the data's answer, as F1 (0 to 1)."),
        Metric("rouge2", "maximize", "Pairs of words in common, as F1 (0 to 1)."),
        Metric("rouge_l", "maximize", "Longest common subsequence of words, as F1 (0 to 1)."),
        Metric("chrf", "maximize", "Character n-grams in common, as F-score (0 to 100), mean over answers."),
        Metric("bleu", "maximize", "Word n-grams in common over all answers (0 to 100)."),
    )
}


GENERATED = ("exact_match", "rouge1", "rouge2", "rouge_l", "chrf", "bleu")
"""Metrics that need answers to be generated: measured where a sweep names them."""


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
    optional_columns: tuple[str, ...] = ()
    """Further roles, which only count where `data` names them."""
    families: tuple[Family, ...] = FAMILIES
    defaults: Mapping[str, Setting] = field(default_factory=dict)
    losses: tuple[str, ...] = ("default", "focal", "class-weighted")
    """Shipped ones that fit."""
    packs: bool = False
    """Whether rows may share a sequence: each token then learns from those before it in its own row."""
    generates: bool = False
    """Whether its models can be judged by what they write."""
    base_is_scored: bool = False
    """Whether the untouched base model already has this task's metric (a new head has none)."""
    variants: Variants = field(default_factory=dict)
    """ONNX variants made at promotion."""
    makes_blocks: bool = False
    """Whether texts go one after the other into blocks of `max_length`, so that none is cut."""
    makes_turns: bool = False
    """Whether a row of the data may become several rows: the turns of a conversation."""


_NEXT_TOKEN_METRICS = ("perplexity", "loss", "bits_per_byte", "token_accuracy")
_NEXT_TOKEN_DEFAULTS: Mapping[str, Setting] = {
    "learning_rate": 5e-4, "batch_size": 8, "micro_batch_size": 4, "max_length": 512,
}  # fmt: skip

TASKS: Mapping[str, Task] = {
    t.name: t
    for t in (
        Task(
            "text-classification",
            "One label for a text, or for a pair of texts.",
            columns={"text": "text", "label": "label"},
            optional_columns=("text_pair",),
            metrics=("f1_macro", "accuracy", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "mcc",
                     "roc_auc", "loss"),
            variants=READING,
        ),
        Task(
            "multi-label-classification",
            "Any number of labels for a text, or for a pair of texts.",
            columns={"text": "text", "labels": "labels"},
            losses=("default",),
            optional_columns=("text_pair",),
            metrics=("f1_macro", "f1_micro", "f1_weighted", "accuracy", "precision_macro", "recall_macro", "roc_auc",
                     "loss"),
            variants=READING,
        ),
        Task(
            "regression",
            "A number for a text, or for a pair of texts.",
            columns={"text": "text", "value": "value"},
            losses=("default",),
            optional_columns=("text_pair",),
            metrics=("spearman", "pearson", "r2", "mae", "rmse", "loss"),
            variants=READING,
        ),
        Task(
            "text-similarity",
            "How alike two texts are, by the cosine of their embeddings.",
            columns={"text": "text", "text_pair": "text_pair", "value": "value"},
            families=("encoder",),
            losses=("default", "contrastive"),
            metrics=("spearman", "pearson", "r2", "mae", "rmse", "loss"),
            base_is_scored=True,
            variants=READING,
        ),
        Task(
            "token-classification",
            "A tag for every word: entities, or parts of speech.",
            columns={"words": "words", "tags": "tags", "text": "text", "entities": "entities"},
            families=("encoder", "decoder"),
            metrics=("entity_f1", "entity_precision", "entity_recall", "token_accuracy", "f1_macro", "loss"),
            variants=READING,
        ),
        Task(
            "causal-lm",
            "The next token of plain text.",
            columns={"text": "text"},
            metrics=_NEXT_TOKEN_METRICS,
            families=("decoder",),
            losses=("default", "focal"),
            defaults=_NEXT_TOKEN_DEFAULTS,
            packs=True,
            base_is_scored=True,
            variants=WRITING,
            makes_blocks=True,
        ),
        Task(
            "instruct",
            "An answer, from columns that a template makes one text of.",
            columns={"text_template": "User: {input}\nAssistant: {output}"},
            optional_columns=("answer",),
            metrics=_NEXT_TOKEN_METRICS,
            families=("decoder",),
            losses=("default", "focal"),
            defaults=_NEXT_TOKEN_DEFAULTS,
            generates=True,
            packs=True,
            base_is_scored=True,
            variants=WRITING,
        ),
        Task(
            "chat",
            "Assistant turns of conversations, in the model's own chat template.",
            columns={"messages": "messages"},
            metrics=_NEXT_TOKEN_METRICS,
            families=("decoder",),
            losses=("default", "focal"),
            defaults=_NEXT_TOKEN_DEFAULTS,
            generates=True,
            packs=True,
            base_is_scored=True,
            variants=WRITING,
            makes_turns=True,
        ),
        Task(
            "text-to-text",
            "A text from a text (a summary, a translation), by an encoder-decoder.",
            columns={"input": "input", "output": "output"},
            metrics=_NEXT_TOKEN_METRICS,
            families=("encoder-decoder",),
            losses=("default", "focal"),
            defaults=_NEXT_TOKEN_DEFAULTS,
            generates=True,
            base_is_scored=True,
            variants=REWRITING,
        ),
    )
}  # fmt: skip


def canonical_settings(method: str, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings in their one true form: only what `method` reads, `lora_alpha` instead of its ratio, none of the budgets
    (a trial's spec has its number of examples), `evaluations` and `evaluation_rows` only. Two points are the same trial
    when these are equal."""
    canonical = {name: settings[name] for name, f in FIELDS.items() if not f.methods or method in f.methods}
    for name in (*BUDGETS, "eval_steps", "evaluation_share"):
        del canonical[name]
    ratio = canonical.pop("alpha_ratio", None)
    if "lora_alpha" in canonical:
        alpha = canonical["lora_alpha"]
        canonical["lora_alpha"] = float(ratio or 0) * float(canonical["lora_r"] or 0) if alpha is None else float(alpha)
    return canonical


def default_settings(task: str, method: str) -> dict[str, Setting]:
    """Every setting that `method` reads, at its default for `task` and method."""
    overrides = {**TASKS[task].defaults, **METHODS[method].defaults}
    return {name: overrides.get(name, f.default) for name, f in FIELDS.items() if not f.methods or method in f.methods}
