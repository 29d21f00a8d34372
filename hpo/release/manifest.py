"""`manifest.json` of a release: what it was made of, down to the hash of every file, and how it was trained."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hpo.executors.environment import Environment, installed
from hpo.results.champion import run_name
from trainers.protocol.codec import from_json, to_json
from trainers.protocol.events import PreparedData, TrialResult
from trainers.protocol.files import file_hash
from trainers.protocol.settings import Setting
from trainers.protocol.trial_spec import ModelRef, SourceRef, TrialSpec

if TYPE_CHECKING:
    from hpo.config.sweep_config import SweepConfig

MANIFEST = "manifest.json"
RECORDED = ("torch", "transformers", "peft", "optuna", "mlflow", "onnx", "onnxruntime", "tokenizers", "numpy")
"""A manifest has the versions of these packages."""


@dataclass(frozen=True)
class DataFacts:
    """The rows that trained and judged the release. Sources are names or hub ids, never folders of a machine."""

    sources: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    """Split -> hash of its rows as cut and tokenized."""
    duplicates: int = 0
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    """Split -> label -> rows, or words."""

    @classmethod
    def of(cls, config: SweepConfig, prepared: PreparedData) -> Self:
        """Of a sweep's data as the trainer prepared it."""
        sources = {split: source_name(source) for split, source in config.data.sources().items()}
        return cls(sources, prepared.rows, prepared.split_hashes, prepared.duplicates, prepared.label_counts)


@dataclass(frozen=True)
class BaseFacts:
    """The base model that the release was trained from."""

    source: str = ""
    """A hub id with its revision, or the name of a folder."""
    starting_point: str | None = None
    """The name of an earlier adapter that the training began from."""
    sha256: dict[str, str] = field(default_factory=dict)
    """File -> its hash."""

    @classmethod
    def of(cls, model: ModelRef, prepared: PreparedData) -> Self:
        """Of a sweep's base model."""
        starting_point = None if model.adapter is None else Path(model.adapter).name
        return cls(base_name(model), starting_point, prepared.model_hashes)


@dataclass(frozen=True)
class TrainingFacts:
    """How the released adapter was trained."""

    task: str = ""
    method: str = ""
    point: dict[str, Setting] = field(default_factory=dict)
    """What the search chose."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """Every setting, those that the search chose among them."""
    metric: str = ""
    value: float | None = None
    examples: int = 0
    """Its budget, in training examples seen."""
    seed: int = 0
    threads: int = 1
    devices: list[str] = field(default_factory=list)
    precision: str = ""
    """As decided, where the file says `auto`."""
    micro_batch_halvings: int = 0
    git_commit: str | None = None
    """Of the folder of the sweep's YAML as it was released; None where it is in no repository."""
    environment: Environment | None = None

    @classmethod
    def of(
        cls, spec: TrialSpec, result: TrialResult, point: Mapping[str, Setting], environment: Environment | None,
        git_commit: str | None,
    ) -> Self:  # fmt: skip
        """Of a training that is over."""
        return cls(
            spec.workload.task, spec.method, dict(point), dict(spec.settings), spec.metric, result.value,
            spec.max_examples, spec.seed, spec.threads, list(spec.devices), spec.workload.arithmetic,
            spec.micro_batch_halvings, git_commit, environment,
        )  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """Everything that a release says of its origin; fields are at their default where an earlier hpo wrote none."""

    sweep: str = ""
    trial: int | None = None
    repeat: int | None = None
    run_id: str = ""
    variant: str = ""
    sha256: dict[str, str] = field(default_factory=dict)
    """Of data, base, adapter, config, onnx, and of all files of the release together."""
    files: dict[str, str] = field(default_factory=dict)
    """File of the release -> its hash; without this one and the model card, which is made of it."""
    data: DataFacts = field(default_factory=DataFacts)
    base: BaseFacts = field(default_factory=BaseFacts)
    training: TrainingFacts = field(default_factory=TrainingFacts)
    measured: dict[str, Any] = field(default_factory=dict)
    """The gate's metric, and what the variant was measured at."""
    judged: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Of Python and of packages, as the release was made."""
    adapters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of a bundle, which is made of trials of one sweep or of several: adapter -> where it comes from."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """That of a release folder. Raises `OSError` where there is none, `ValueError` for a damaged one."""
        return from_json(cls, json.loads((folder / MANIFEST).read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        """Put it into a release folder."""
        (folder / MANIFEST).write_text(json.dumps(to_json(self), indent=2), encoding="utf-8")

    @property
    def run(self) -> str | None:
        """What `hpo reproduce` calls the training that it was made of; None where no sweep released it."""
        if not self.sweep or self.trial is None:
            return None
        return run_name(self.sweep, self.trial, self.repeat)

    def environment(self) -> Environment | None:
        """What it was trained with; of an earlier release the packages that made it."""
        if self.training.environment or not self.versions:
            return self.training.environment
        packages = {name: version for name, version in self.versions.items() if name != "python"}
        return Environment(self.versions.get("python", ""), packages)


def versions_here() -> dict[str, str]:
    """Of Python and of the packages that a release is made with."""
    return {"python": platform.python_version(), **installed(RECORDED)}


def source_name(source: SourceRef) -> str:
    """Where rows came from: the name of a file or folder, or a hub id with its revision; and which rows of it."""
    if not source.is_hub:
        return Path(source.source).name + (f" {source.split}" if source.split else "")
    parts = [source.source, source.config and f"config {source.config}", source.revision and f"@{source.revision}",
             source.split]  # fmt: skip
    return " ".join(part for part in parts if part)


def base_name(model: ModelRef) -> str:
    """A hub id with its revision, or the name of a folder."""
    if Path(model.source).is_absolute():
        return Path(model.source).name
    return model.source + (f" @{model.revision}" if model.revision else "")


def hashes_of(folder: Path) -> dict[str, str]:
    """File below a folder -> its hash."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in paths}
