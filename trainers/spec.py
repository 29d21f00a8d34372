"""What crosses the border between `hpo` and `trainers`: requests in, events out, all of it JSON.

Standard library only, so that both sides can import it at no cost. A request is answered by a stream of
events whose last one is terminal. After each `Evaluation` the trainer waits for a verdict: go or stop.

    Inspect ─► Inspection            TrainRequest ─► Step* (Evaluation ⇄ verdict)* ─► TrialResult
    Load    ─► Loaded                Score        ─► Scored
    Export  ─► Exported              Measure      ─► Measurement            any of them ─► Failed
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from trainers.catalog import Setting

T = TypeVar("T")
Verdict = Literal["go", "stop"]
Cause = Literal["oom", "diverged", "data", "interrupted", "crash", "timeout"]


# --- what is asked -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelRef:
    """A base model: a folder, or a hub id with a revision."""

    source: str
    revision: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class DataRef:
    """Where the rows are and how they are cut. Sizes: a share of the rows below 1, else a number of rows."""

    train: str
    validation: str | None
    test: str | None
    columns: dict[str, str]
    validation_size: float
    test_size: float
    seed: int


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
    seed: int
    inputs: str
    """Hash of the data as cut and of the base model: equal paths may hold other content."""
    threads: int
    device: str
    """`cpu` or `cuda:N`."""
    dir: str

    def fingerprint(self) -> str:
        """Hash of all that decides the result; equal specs give equal numbers on one machine."""
        content = to_json(self)
        for place in ("number", "threads", "device", "dir"):
            del content[place]
        return fingerprint(content)


@dataclass(frozen=True)
class Inspect:
    """Read, check, cut and tokenize the data; look at the model's files. Loads no weights."""

    workload: Workload


@dataclass(frozen=True)
class Load:
    """Make the base model resident in the host, so that later requests start warm."""

    workload: Workload
    inspection: Inspection


@dataclass(frozen=True)
class Score:
    """Evaluate the untouched base model on the validation rows."""

    workload: Workload
    inspection: Inspection
    threads: int
    device: str


@dataclass(frozen=True)
class TrainRequest:
    """Train one trial."""

    spec: TrialSpec
    inspection: Inspection


@dataclass(frozen=True)
class Export:
    """Merge a trial's adapter in fp32, write the ONNX variants and torch's own numbers beside them."""

    spec: TrialSpec
    inspection: Inspection
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


Request = Inspect | Load | Score | TrainRequest | Export | Measure


# --- what is answered ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Progress between two evaluations. `loss` is the mean since the last `Step`."""

    step: int
    examples: int
    loss: float
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
class Finding:
    """One problem in data or model, found by the trainer: where, what, and what would be right."""

    where: str
    found: str
    expected: str = ""


@dataclass(frozen=True)
class Failed:
    """The request ended without a result. For cause `data`, `findings` names every problem."""

    cause: Cause
    message: str
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Inspection:
    """What the data and model turned out to be."""

    rows: dict[str, int]
    """Rows in train, validation and test after the cut."""
    labels: list[str]
    tokens_dir: str
    fingerprint: str
    """Hash of the rows and how they were cut and tokenized."""
    model_fingerprint: str
    duplicates: int
    """Rows dropped because the same input came before."""
    truncated: int
    """Rows longer than `max_length`, over all splits."""
    train_tokens: int
    gpus: int
    """CUDA devices that trials may use."""
    notes: list[str]


@dataclass(frozen=True)
class Loaded:
    parameters: int
    seconds: float


@dataclass(frozen=True)
class Scored:
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended: `metrics` and `value` are those of its best evaluation, whose adapter is kept."""

    state: Literal["complete", "pruned", "failed"]
    value: float | None
    metrics: dict[str, float]
    best_index: int | None
    evaluations: list[Evaluation]
    stopped_by: Literal["budget", "early_stopping", "pruner", "failure"]
    seconds: float
    trainable_parameters: int = 0
    peak_rss_mb: float = 0.0
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


Event = (
    Step | Evaluation | Failed | Inspection | Loaded | Scored | TrialResult | Exported | Measurement
)  # fmt: skip
TERMINAL = (Failed, Inspection, Loaded, Scored, TrialResult, Exported, Measurement)
_BY_NAME = {cls.__name__: cls for cls in (*typing.get_args(Event), *typing.get_args(Request))}


# --- files of a trial ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialPaths:
    """The files of one trial. `result` appears last, by rename: where it stands, the trial is over."""

    dir: Path

    @property
    def spec(self) -> Path:
        return self.dir / "spec.json"

    @property
    def result(self) -> Path:
        return self.dir / "result.json"

    @property
    def adapter(self) -> Path:
        return self.dir / "adapter"

    @property
    def log(self) -> Path:
        return self.dir / "trial.log"


# --- JSON ----------------------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """A dataclass (nested) as plain JSON values."""
    return dataclasses.asdict(value)


def from_json(cls: type[T], data: Any) -> T:
    """The inverse of `to_json`. Raises `ValueError` where `data` does not fit `cls`."""
    return typing.cast(T, _parse(cls, data))


def encode(message: Event | Request) -> dict[str, Any]:
    """A message with its type's name, as sent over a pipe."""
    return {"type": type(message).__name__, **to_json(message)}


def decode(data: Mapping[str, Any]) -> Any:
    """The inverse of `encode`. Raises `ValueError` on a type that is none of ours."""
    fields = dict(data)
    name = fields.pop("type", None)
    if name not in _BY_NAME:
        raise ValueError(f"unknown message type {name!r}")
    return from_json(_BY_NAME[name], fields)


def fingerprint(content: Any) -> str:
    """SHA-256 of the canonical JSON of `content`, as 64 hex digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is either whole or not there: a temporary neighbour, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _parse(hint: Any, data: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(typing.get_args(hint), data)
    if dataclasses.is_dataclass(hint):
        return _parse_dataclass(hint, data)
    if origin is list:
        return [_parse(typing.get_args(hint)[0], item) for item in data]
    if origin is dict:
        return {key: _parse(typing.get_args(hint)[1], item) for key, item in data.items()}
    if origin is Literal:
        if data not in typing.get_args(hint):
            raise ValueError(f"{data!r} is none of {typing.get_args(hint)}")
        return data
    if hint is float and isinstance(data, int):
        return float(data)
    if hint is not Any and not isinstance(data, hint):
        raise ValueError(f"expected {hint.__name__}, got {data!r}")
    return data


def _parse_union(options: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in options:
        return None
    plain = [option for option in options if option is not type(None)]
    if type(data) in plain:
        return data
    return _parse(plain[0], data) if len(plain) == 1 else data


def _parse_dataclass(cls: Any, data: Any) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"expected the fields of {cls.__name__}, got {data!r}")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := set(data) - set(known):
        raise ValueError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}")
    return cls(**{name: _parse(hints[name], value) for name, value in data.items()})
