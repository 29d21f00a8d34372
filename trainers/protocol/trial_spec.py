"""One trial, complete: the base model, the data, and the settings that decide its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from trainers.protocol.codec import fingerprint, to_json, to_record, was
from trainers.protocol.fingerprints import counted_fields, counted_settings
from trainers.protocol.settings import Setting

MOST_HALVINGS = 3
"""How often a trial may halve its micro-batch, and the batches of its evaluations, because memory ran out."""


def rows_at_once(batch_size: int, micro_batch_size: int, devices: int) -> int:
    """Rows of the largest forward pass: a micro-batch, or a device's share of a batch that has fewer of them than there
    are devices."""
    return micro_batch_size if math.ceil(batch_size / micro_batch_size) >= devices else math.ceil(batch_size / devices)


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
    is_running_text: bool = False
    """Whether rows of any format are running text, as those of `.txt` files always are: none is a duplicate."""

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
        if not self.is_running_text:
            del content["is_running_text"]
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
    decided_precision: str = ""
    """What `precision: auto` means in all trials of the sweep, as it was measured; empty: what the device computes
    natively."""

    @property
    def arithmetic(self) -> str:
        """The precision that trials compute in; `auto` where the device decides."""
        return self.decided_precision if self.precision == "auto" and self.decided_precision else self.precision


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
    """`cpu` or `cuda:N`, once for each process that trains it."""
    dir: str
    micro_batch_halvings: int = field(metadata=was("halvings"), default=0)
    """How often the micro-batch was halved because memory ran out; the effective batch stays."""

    @property
    def device(self) -> str:
        """The first device: of a trial on several, that of the process which leads it."""
        return self.devices[0]

    def from_rank(self, rank: int) -> TrialSpec:
        """The same trial with another of its devices first: as the process that has this device sees it."""
        return replace(self, devices=(*self.devices[rank:], *self.devices[:rank]))

    def fingerprint(self) -> str:
        """Hash of all that decides the result; equal specs give equal numbers on one machine."""
        content = to_record(self)
        for place in ("number", "threads", "device", "dir", "halvings"):
            del content[place]
        # Where data, model and cache lie does not matter: what they hold is in `inputs_hash`.
        workload = content["workload"]
        del workload["cache_dir"], workload["code_dir"], workload["model"]["source"], workload["model"]["adapter"]
        # What `auto` was decided to be follows from a measured time, which is partly chance. A sweep keeps its decision
        # for all its trials, so nothing is mixed; two sweeps of one file are as equal as `auto` can make them.
        del workload["max_length_is_given"], workload["clock"], workload["decided_precision"]
        workload["data"] = self.workload.data.without_places()
        content["workload"] = counted_fields(Workload, workload)
        content["settings"] = counted_settings(self.settings)
        return fingerprint(counted_fields(TrialSpec, content))


def with_precision(spec: TrialSpec, precision: str) -> TrialSpec:
    """The same trial, computed in `precision` where its workload leaves that to be decided."""
    return replace(spec, workload=replace(spec.workload, decided_precision=precision))
