"""What crosses the border between `hpo` and `trainers`: requests in, events out, all of it JSON.

Standard library only, so that both sides can import it at no cost. A request is answered by a stream of
events whose last one is terminal.

    Inspect ─► PreparedData    Load  ─► Loaded    Export  ─► Exported       Train ─► TrialEvent* ─► Trained
    Check   ─► Checked         Score ─► Scored    Measure ─► Measurement
    Probe   ─► Probed                                                       any of them ─► Failed

A `Train` request holds one trial or several. What happens to one of them comes as a `TrialEvent` with its number:

    Resumed? Step* (Evaluation ⇄ verdict)* ─► TrialResult or Failed

After each `Evaluation` the trainer waits for a verdict on that trial: go, stop, or pause (write a checkpoint and end);
stop and pause are also taken after any `Step`, where nobody waits for them. A `Failed` outside a `TrialEvent` is of the
whole request: of every trial in it that had not ended.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from trainers.protocol.catalog import Family
from trainers.protocol.codec import fingerprint, from_json, to_json, to_record, was
from trainers.protocol.fingerprints import counted_fields, counted_settings
from trainers.protocol.settings import Setting

Verdict = Literal["go", "stop", "pause"]
Cause = Literal["oom", "diverged", "data", "interrupted", "crash", "timeout"]


# --- what is asked -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelRef:
    """A base model: a folder, or a hub id with a revision."""

    source: str
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None
    """Folder of an earlier PEFT adapter, folded into the weights when they are loaded, or of weights in their place."""


@dataclass(frozen=True)
class SourceRef:
    """The rows of one split: those of files (an absolute path, or a pattern of them), or of a hub id."""

    source: str
    config: str | None = None
    """Of a hub id: the name of one of its configurations."""
    revision: str | None = None
    """Of a hub id: a branch, tag or commit."""
    split: str | None = None
    """Which rows, as `slices.py` reads it. Left out: all rows of files, a hub id's split of the same name."""
    files: list[str] = field(default_factory=list)
    """Where only some of a folder's files are meant: the absolute paths of these."""

    def __str__(self) -> str:
        return self.source if self.split is None else f"{self.source} {self.split}"

    @property
    def is_hub(self) -> bool:
        """Whether the source is a hub id, not files."""
        return not Path(self.source).is_absolute()


@dataclass(frozen=True)
class DataRef:
    """Where the rows are and how they are cut. Sizes: a share of the rows below 1, else a number of rows."""

    train: SourceRef
    validation: SourceRef | None
    test: SourceRef | None
    columns: dict[str, str]
    validation_size: float
    test_size: float
    seed: int
    documents: str = "file"
    """What one text of a `.txt` file is, for causal-lm: its `file`, `paragraph`, `line`, or what a separator parts."""
    label_names: list[str] = field(default_factory=list)
    """Of labels or tags that the data holds as numbers, in their order from 0; empty where it has names itself."""

    def without_places(self) -> dict[str, Any]:
        """How the rows are read and cut, as plain values, without where they lie. A default that came later is left
        out, so that data which is read as before has the hash that it had."""
        content: dict[str, Any] = to_json(self)
        for split in ("train", "validation", "test"):
            del content[split]
        if self.documents == "file":
            del content["documents"]
        if not self.label_names:
            del content["label_names"]
        return content

    def sources(self) -> dict[str, SourceRef]:
        """Those of the splits that have one of their own."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}

    def with_sources(self, sources: Mapping[str, SourceRef]) -> DataRef:
        """The same data with these sources in place of those of the same splits."""
        given = {**self.sources(), **sources}
        return replace(self, train=given["train"], validation=given.get("validation"), test=given.get("test"))


@dataclass(frozen=True)
class Generation:
    """How much is generated for metrics of generated text: answers to so many validation rows, greedily."""

    examples: int
    max_new_tokens: int


@dataclass(frozen=True)
class Workload:
    """What all trials of a sweep share."""

    task: str
    model: ModelRef
    data: DataRef
    max_length: int
    precision: str
    cache_dir: str
    """Folder for tokenized data, shared between sweeps, keyed by content."""
    code_dir: str = ""
    """The YAML's folder; functions that users write lie below it."""
    metrics: list[str] = field(default_factory=list)
    """Besides the task's: names of generated-text metrics, and a user's own functions, FILE.py:FUNCTION."""
    generation: Generation | None = None
    """None where no metric asks for generated text."""
    max_length_is_given: bool = True
    """Whether the YAML says `max_length`. Where it does not, a model of fewer positions decides."""
    clock: str = ""
    """What chat templates that print the date are shown, as local ISO time; empty: now. A sweep has one, or it would
    have other tokens tomorrow."""


@dataclass(frozen=True)
class TrialSpec:
    """One trial, complete: nothing else decides its numbers but `threads` and the machine."""

    number: int
    workload: Workload
    method: str
    settings: dict[str, Setting]
    metric: str
    direction: Literal["maximize", "minimize"]
    max_examples: int
    largest_budget_examples: int = field(metadata=was("full_examples"))
    """The largest budget of any trial of the sweep: evaluations fall at equal shares of this one in all of them."""
    seed: int
    inputs_hash: str = field(metadata=was("inputs"))
    """Hash of the data as cut and of the base model: equal paths may hold other content."""
    threads: int
    devices: tuple[str, ...] = field(metadata=was("device", read=lambda device: [device]))
    """`cpu`, or one `cuda:N` or several."""
    dir: str
    micro_batch_halvings: int = field(metadata=was("halvings"), default=0)
    """How often the micro-batch was halved because memory ran out; the effective batch stays."""

    @property
    def device(self) -> str:
        """The only device of a trial. Raises `ValueError` where it has several."""
        return only_device(self.devices)

    def fingerprint(self) -> str:
        """Hash of all that decides the result; equal specs give equal numbers on one machine."""
        content = to_record(self)
        for place in ("number", "threads", "device", "dir", "halvings"):
            del content[place]
        # Where data, model and cache lie does not matter: what they hold is in `inputs_hash`.
        workload = content["workload"]
        del workload["cache_dir"], workload["code_dir"], workload["model"]["source"], workload["model"]["adapter"]
        del workload["max_length_is_given"], workload["clock"]
        workload["data"] = self.workload.data.without_places()
        content["workload"] = counted_fields(Workload, workload)
        content["settings"] = counted_settings(self.settings)
        return fingerprint(counted_fields(TrialSpec, content))


def only_device(devices: tuple[str, ...]) -> str:
    """The one of `devices`. Raises `ValueError` for several: no trainer spreads a model over devices yet."""
    if len(devices) != 1:
        raise ValueError(
            f"{len(devices)} devices for one trial ({', '.join(devices[:10])}); this trainer uses exactly one "
            "(an error in hpo, not in your sweep)"
        )
    return devices[0]


@dataclass(frozen=True)
class MethodPlan:
    """What a trial may ask of the model: a method, with those of its settings that `ASKED_OF_MODEL` names."""

    method: str
    settings: dict[str, Setting]


@dataclass(frozen=True)
class Intent:
    """What trials and release will ask of the model. No part of a trial: it only decides what is looked at first."""

    plans: list[MethodPlan] = field(default_factory=list)
    """Every different one that the search space holds."""
    searched: list[str] = field(default_factory=list)
    """Names of the dimensions, for messages."""
    release: Literal["no", "if possible", "asked"] = "no"
    """`asked`: the YAML says `promote:`, so a champion that can never be released is an error."""


@dataclass(frozen=True)
class Inspect:
    """Read, check, cut and tokenize the data; look at the model's files. Loads no weights."""

    workload: Workload
    intent: Intent = field(default_factory=Intent)


@dataclass(frozen=True)
class Check:
    """Read and check the data whatever is wrong with it, and describe it."""

    workload: Workload
    clean_dir: str | None = None
    """A new folder for a clean copy of the rows. Without one, nothing is written."""
    intent: Intent = field(default_factory=Intent)


@dataclass(frozen=True)
class Load:
    """Make resident in the host what later requests start warm with: all that trials import, and the base model."""

    workload: Workload
    inspection: PreparedData | None
    """None before the data is inspected: then there is no model yet."""


@dataclass(frozen=True)
class Score:
    """Evaluate on one split: the untouched base model, or the adapter that the trial `spec` kept."""

    workload: Workload
    inspection: PreparedData
    threads: int
    devices: tuple[str, ...]
    """As in `TrialSpec`."""
    split: Literal["validation", "test"] = "validation"
    spec: TrialSpec | None = None
    rows_file: str | None = None
    """Where per-row results go, as .npy (see `trainers/metrics/table.py`)."""


@dataclass(frozen=True)
class Probe:
    """Train a few steps of a trial, measure, keep nothing."""

    spec: TrialSpec
    inspection: PreparedData


@dataclass(frozen=True)
class Train:
    """Train one trial, or several in one process. They share a workload; their numbers differ."""

    specs: tuple[TrialSpec, ...]
    inspection: PreparedData

    @property
    def spec(self) -> TrialSpec:
        """The only trial, for trainers that take one a request. Raises `ValueError` where there are several."""
        if len(self.specs) != 1:
            raise ValueError(
                f"{len(self.specs)} trials in one request; this trainer takes exactly one (an error in hpo, not in "
                "your sweep)"
            )
        return self.specs[0]


@dataclass(frozen=True)
class Export:
    """Merge a trial's adapter in fp32, write the ONNX variants and torch's own numbers beside them."""

    spec: TrialSpec
    inspection: PreparedData
    variants: list[str]
    dir: str


@dataclass(frozen=True)
class Measure:
    """Run one exported variant in onnxruntime over the validation rows."""

    variant: str
    dir: str
    """The folder that `Export` wrote to."""
    rows: str
    """The validation rows, as JSONL."""
    threads: int
    labels: list[str] | None = None
    """Names of the rows' labels, where the release is of another sweep: its own are matched by name, and there are no
    logits of torch's to compare with."""


Request = Inspect | Check | Load | Score | Probe | Train | Export | Measure


# --- what is answered ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Progress between two evaluations."""

    step: int
    examples: int
    loss: float | None
    """Mean since the last one sent; None for a sign of life between two points of the curve (see `logging_steps`)."""
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
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
    """Rows that fill `max_length`, over all splits: all but those of just that length were cut."""
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


@dataclass(frozen=True)
class SplitFacts:
    """One split as a trial will see it."""

    rows: int
    duplicates: int
    """Rows whose input came before in the same split."""
    shared: dict[str, int]
    """Other split -> rows that are in both."""
    labels: dict[str, int]
    """Label -> rows (or words) that have it; empty without labels."""
    token_percentiles: dict[str, int]
    """`p50`, `p90`, `p99`, `max` of the tokens of a row, uncut."""
    too_long: int
    """Rows longer than `max_length`."""
    tokens_cut: int


@dataclass(frozen=True)
class Piece:
    """A part of a rendered row: whether its tokens count in the loss."""

    text: str
    is_learned: bool


@dataclass(frozen=True)
class Rendered:
    """One training row as the model sees it."""

    pieces: list[Piece]
    target: str = ""
    """What is to be answered, where that is no part of the text."""


@dataclass(frozen=True)
class Dropped:
    """A row that the clean copy does not have."""

    split: str
    where: str
    why: str


@dataclass(frozen=True)
class CleanCopy:
    """What was written, and in what it differs from the sources."""

    dir: str
    rows: dict[str, int]
    """Of each split that the data names."""
    dropped: list[Dropped]
    marked_files: list[str]
    """Files whose byte order mark the copy does not have."""


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


@dataclass(frozen=True)
class Loaded:
    """What a host holds from now on, and how long loading took."""

    parameters: int
    """Of the base model; 0 without one."""
    seconds: float
    notes: list[str] = field(default_factory=list)
    """What trials on this host do otherwise than usual; the same numbers, but not as fast."""


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


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended: `metrics` and `value` are those of its best evaluation, whose adapter is kept."""

    state: Literal["complete", "pruned", "failed"]
    value: float | None
    metrics: dict[str, float]
    best_index: int | None
    evaluations: list[Evaluation]
    stopped_by: Literal["budget", "early_stopping", "pruner", "trial_minutes", "sweep_budget", "failure"]
    seconds: float
    """Training and evaluating, all attempts together, without what a kill undid."""
    trainable_parameters: int = 0
    peak_rss_mb: float = 0.0
    adapter_mb: float = 0.0
    cause: Cause | None = None
    message: str = ""


@dataclass(frozen=True)
class Exported:
    """Variants that were written, and torch's numbers for the merged fp32 model on the same rows."""

    metrics: dict[str, float]
    variants: list[str]
    failures: dict[str, str]
    """Variant -> why it could not be written."""
    seconds: float
    latency_p50_ms: float


@dataclass(frozen=True)
class Measurement:
    """One variant as measured in onnxruntime."""

    variant: str
    metrics: dict[str, float]
    max_logit_diff: float
    size_mb: float
    latency_p50_ms: float
    latency_p95_ms: float
    tokens_per_second: float | None = None


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
    TrialEvent | Trained | PreparedData | Checked | Loaded | Scored | Probed | Exported | Measurement | Failed
)  # fmt: skip
TERMINAL = (Trained, PreparedData, Checked, Loaded, Scored, Probed, Exported, Measurement, Failed)
_BY_NAME = {
    cls.__name__: cls for cls in (*typing.get_args(Event), *typing.get_args(TrialReport), *typing.get_args(Request))
}


def encode(message: Event | TrialReport | Request) -> dict[str, Any]:
    """A message with its type's name, as sent over a pipe."""
    if isinstance(message, TrialEvent):
        return {"type": "TrialEvent", "trial": message.trial, "report": encode(message.report)}
    return {"type": type(message).__name__, **to_json(message)}


def decode(data: Mapping[str, Any]) -> Any:
    """The inverse of `encode`. Raises `ValueError` on a type that is none of ours."""
    fields = dict(data)
    name = fields.pop("type", None)
    if name == "TrialEvent":
        return TrialEvent(fields["trial"], decode(fields["report"]))
    if name not in _BY_NAME:
        raise ValueError(f"unknown message type {name!r}")
    return from_json(_BY_NAME[name], fields)
