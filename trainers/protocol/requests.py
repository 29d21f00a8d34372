"""What `hpo` asks of `trainers`, and its verdicts on trials under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trainers.protocol.catalog import Direction
from trainers.protocol.events import PreparedData
from trainers.protocol.settings import Setting
from trainers.protocol.trial_spec import TrialSpec, Workload
from trainers.protocol.variants import Target

Prefer = Literal["latency", "size", "quality"]
"""Which variant is released of those that passed: the fastest, the smallest, or the one nearest to torch's logits."""
Verdict = Literal["go", "stop", "finish", "pause"]
"""Train on; end, as a trial that was pruned; end, as one whose minutes are over; write a checkpoint and end."""
STOPPED_BY: Mapping[Verdict | None, Literal["pruner", "trial_minutes"]] = {"stop": "pruner", "finish": "trial_minutes"}
"""What a trial that ends by a verdict was stopped by."""


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
    target: Target = "cpu"
    as_adapters: bool = False
    """Whether the champion stays an adapter beside its base; then every method of the space must be able to."""


@dataclass(frozen=True)
class Import:
    """Import in the host what almost every request needs, so that no child of it imports that again."""


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
    served: list[str] = field(default_factory=list)
    """Prediction logs of a server, which are compared with the training rows."""
    before: str | None = None
    """The frozen rows of an earlier night, all of them, where these rows are frozen too, to compare both."""


@dataclass(frozen=True)
class Freeze:
    """Read the rows of all sources as they are now, give each its side for ever, and write them as JSON Lines."""

    workload: Workload
    folder: str
    """Where frozen rows lie, those of each content in a folder of their own."""
    standing: str
    """The folder with what decides sides in every night: the rule, and the rows that were ever held out."""
    before: str | None = None
    """The frozen rows of an earlier night, to count the difference."""


@dataclass(frozen=True)
class Load:
    """Make resident in the host what later requests start warm with: all that trials import, and the base model."""

    workload: Workload
    inspection: PreparedData | None
    """None before the data is inspected: then there is no model yet."""
    decide_for: TrialSpec | None = None
    """A trial of the sweep, where `precision: auto` is to be decided by a few steps of it."""


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
class MeasureMemory:
    """Take passes of several sizes of a trial, and say what trials like it need; keep nothing."""

    spec: TrialSpec
    inspection: PreparedData
    most_mb: float
    """What it may take, as far as that can be known beforehand."""


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
class BundledTrial:
    """A trial whose adapter becomes part of a bundle, under a name."""

    name: str
    spec: TrialSpec
    inspection: PreparedData


@dataclass(frozen=True)
class Export:
    """Merge a trial's adapter in fp32, write the ONNX variants and torch's own numbers beside them."""

    spec: TrialSpec
    inspection: PreparedData
    variants: list[str]
    dir: str
    target: Target = "cpu"
    adapters: tuple[BundledTrial, ...] = ()
    """In place of a merged graph: the base exported once, with these as adapters; the first one is `spec`'s, and
    `variants` is fp32 alone."""


@dataclass(frozen=True)
class ExportBundle:
    """Write one base model as ONNX whose adapters are inputs, and the trials' adapters beside it; compare both with
    each trial's merged model."""

    trials: tuple[BundledTrial, ...]
    """Of one task and one base model, each with a method that is beside its base."""
    dir: str
    champion: str = ""
    """The adapter that answers what names none; empty where each input must name one."""


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
    rows_file: str | None = None
    """Where per-row results go, as .npy (see `trainers/metrics/table.py`), with the release's own label numbers."""


@dataclass(frozen=True)
class Gate:
    """What a variant must keep of torch's numbers, what it may cost, and which of those that pass is wanted."""

    metric: str
    direction: Direction
    max_drop: float
    """Largest worsening of the metric, as a share of torch's."""
    min_agreement: float | None = None
    """Smallest share of answers that are torch's."""
    max_latency_ms: float | None = None
    """Largest median time of one answer."""
    max_size_mb: float | None = None
    """Largest size of the release folder."""
    prefer: Prefer = "latency"

    def costs_too_much(self, size_mb: float, latency_p50_ms: float) -> bool:
        """Whether size or time alone rule a variant out: no row need be measured then."""
        too_large = self.max_size_mb is not None and not size_mb <= self.max_size_mb
        return too_large or (self.max_latency_ms is not None and not latency_p50_ms <= self.max_latency_ms)


@dataclass(frozen=True)
class MeasureAll:
    """Run exported variants in onnxruntime in turns, each over as many validation rows as its verdict needs."""

    variants: list[str]
    dir: str
    rows: str
    threads: int
    """These three as in `Measure`."""
    gate: Gate


@dataclass(frozen=True)
class Tune:
    """Try session options of a release in onnxruntime, and write those that are surely faster into its card."""

    dir: str
    """The release folder."""
    rows: str
    threads: int
    """As in `Measure`."""


Request = (
    Import | Inspect | Check | Freeze | Load | Score | Probe | MeasureMemory | Train | Export | ExportBundle | Measure
    | MeasureAll | Tune
)  # fmt: skip
