"""What `trainers` answers: events of a request, the last of which is terminal, and reports of its trials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trainers.protocol.catalog import Family
from trainers.protocol.checked_facts import CleanCopy, Rendered, SplitFacts
from trainers.protocol.exported import BundleExported, Exported
from trainers.protocol.frozen_facts import FrozenRows, NightShift
from trainers.protocol.measured import AllJudged, Measurement, Tuned
from trainers.protocol.memory_model import MemoryModel
from trainers.protocol.served_facts import ServedFacts

Cause = Literal["oom", "diverged", "data", "interrupted", "crash", "timeout"]


@dataclass(frozen=True)
class Step:
    """Progress between two evaluations."""

    step: int
    examples: int
    loss: float | None
    """Mean since the last one sent; None for a sign of life between two points of the curve (see `logging_steps`)."""
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)  # a study has tens of thousands of them
class Evaluation:
    """One evaluation; `fraction` of the trial's budget is spent. The trainer now waits for a verdict."""

    index: int
    fraction: float
    step: int
    examples: int
    tokens: int
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Resumed:
    """The trial continues from a checkpoint; `evaluations` came before it and have their verdicts already."""

    step: int
    examples: int
    evaluations: list[Evaluation]


@dataclass(frozen=True)
class Finding:
    """One problem in data or model, found by the trainer: where, what, and what would be right."""

    where: str
    found: str
    expected: str = ""


@dataclass(frozen=True)
class Failed:
    """A trial, or a whole request, ended without a result. For cause `data`, `findings` names every problem."""

    cause: Cause
    message: str
    findings: list[Finding] = field(default_factory=list)


PAUSED = Failed("interrupted", "paused at a checkpoint")
"""How a trial ends that took the verdict `pause`."""


@dataclass(frozen=True)
class Scale:
    """Numbers are learned as (number - mean) / std, and given back in their own unit."""

    mean: float
    std: float


@dataclass(frozen=True)
class PreparedData:
    """What the data and model turned out to be."""

    rows: dict[str, int]
    """Rows in train, validation and test after the cut."""
    labels: list[str]
    tokens_dir: str
    model_dir: str
    """The base model's folder; for a hub id, where the hub's cache has it."""
    fingerprint: str
    """Hash of the rows and how they were cut and tokenized."""
    model_fingerprint: str
    duplicates: int
    """Rows dropped because the same input came before."""
    truncated: int
    """Rows (not blocks) that fill `max_length`, over all splits: all but those of just that length were cut."""
    train_tokens: int
    gpus: int
    """CUDA devices that trials may use."""
    notes: list[str]
    gpu_memory_mb: float = 0.0
    """Free on the fullest of them."""
    family: Family = "encoder"
    """What kind of model the base is."""
    max_length: int | None = None
    """The longest row in tokens: as the YAML says, or what the model takes where it says nothing."""
    scale: Scale | None = None
    """Of the numbers that are learned; None where there are none."""
    unreleasable: dict[str, str] = field(default_factory=dict)
    """Method -> why its champion cannot be released; methods whose champion can are left out."""
    validation_tokens: int = 0
    """0 where the data was prepared before this was counted: such a sweep evaluates all rows."""
    split_hashes: dict[str, str] = field(default_factory=dict)
    """Split -> SHA-256 of its rows as cut and tokenized. This and what follows is empty in earlier records."""
    model_hashes: dict[str, str] = field(default_factory=dict)
    """File of the base model that decides results -> its SHA-256."""
    label_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Split -> label -> rows, or words, that have it."""
    gpu_names: list[str] = field(default_factory=list)
    parameters: int = 0
    """Of the base model, once a host has loaded it."""

    def changed_model_files(self, before: PreparedData) -> list[str]:
        """Names of the base model's files that are others than in `before`; none where nobody noted them then."""
        names = {*before.model_hashes, *self.model_hashes} if before.model_hashes else set[str]()
        return sorted(name for name in names if before.model_hashes.get(name) != self.model_hashes.get(name))


@dataclass(frozen=True)
class Checked:
    """What `Check` found. Where a clean copy was asked for, `findings` has none of single rows: those were dropped."""

    findings: list[Finding]
    splits: dict[str, SplitFacts]
    examples: list[Rendered]
    notes: list[str]
    max_length: int
    """Longest row in tokens."""
    copy: CleanCopy | None = None
    """Only where there are no findings."""
    served: ServedFacts | None = None
    """Only where prediction logs were given."""
    since: NightShift | None = None
    """Only where an earlier night was given."""
    prepared: PreparedData | None = None
    """What a sweep would know of data and model, though its tokens are not written; None where it would be refused."""


@dataclass(frozen=True)
class Decision:
    """What `precision: auto` is for all trials of a sweep, and why, in a few words for people."""

    precision: str
    why: str = ""

    def notes(self) -> list[str]:
        """For people; none where there was nothing to choose."""
        return [f"precision: {self.precision} ({self.why})"] if self.why else []


@dataclass(frozen=True)
class Loaded:
    """What a host holds from now on, and how long loading took."""

    parameters: int
    """Of the base model; 0 without one."""
    seconds: float
    notes: list[str] = field(default_factory=list)
    """What trials on this host do otherwise than usual; the same numbers, but not as fast."""
    precision: Decision | None = None
    """None where nobody asked, or where each device decides."""


@dataclass(frozen=True)
class Scored:
    """Metrics of a model on the rows of one split."""

    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Probed:
    """What a trial of this spec would cost, extrapolated from a few seconds of it."""

    trainable_parameters: int
    seconds_per_example: float
    seconds_per_evaluation: float
    memory_mb: float
    """Of the trial alone: on a CPU what it needs beside the shared base model, on a GPU all it holds there."""
    adapter_mb: float
    seconds_on_all_rows: float = 0.0
    """Of the evaluation at the end of a complete trial, where the others use only some rows; else 0."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended: `metrics` and `value` are those of its best evaluation, whose adapter is kept.

    Where evaluations use some of the validation rows, those of a complete trial are measured once more on all.
    """

    state: Literal["complete", "pruned", "failed"]
    value: float | None
    metrics: dict[str, float]
    best_index: int | None
    evaluations: list[Evaluation]
    stopped_by: Literal["budget", "early_stopping", "pruner", "trial_minutes", "sweep_budget", "failure"]
    """`sweep_budget` is in records of earlier versions: a spent budget now interrupts trials."""
    seconds: float
    """Training and evaluating, all attempts together, without what a kill undid."""
    trainable_parameters: int = 0
    peak_rss_mb: float = 0.0
    adapter_mb: float = 0.0
    cause: Cause | None = None
    message: str = ""
    adapter_sha256: str = ""
    """Of the weights that were learned; empty in earlier records. It outlives the adapter, which `hpo gc` may free."""


TrialReport = Step | Evaluation | Resumed | TrialResult | Failed

TRIAL_ENDS = (TrialResult, Failed)
"""Reports that end a trial: nothing of it follows."""


@dataclass(frozen=True)
class TrialEvent:
    """What happened to one trial of a `Train` request. The number is around the report, not in it: `TrialResult` and
    `Evaluation` are stored too, in a folder or study that says whose they are."""

    trial: int
    report: TrialReport


@dataclass(frozen=True)
class Trained:
    """Every trial of a `Train` request has ended, each with a `TrialEvent` that says how."""


Event = (
    TrialEvent | Trained | PreparedData | Checked | FrozenRows | Loaded | Scored | Probed | MemoryModel | Exported
    | BundleExported | Measurement | AllJudged | Tuned | Failed
)  # fmt: skip

TERMINAL = (
    Trained, PreparedData, Checked, FrozenRows, Loaded, Scored, Probed, MemoryModel, Exported, BundleExported,
    Measurement, AllJudged, Tuned, Failed,
)  # fmt: skip
