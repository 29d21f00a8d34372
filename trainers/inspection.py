"""Inspect: everything that can be wrong with data or model, found before anything is trained.

Runs in a short-lived child: tokenizing starts threads, and the host must not have any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.catalog import TASKS as CATALOG
from trainers.catalog import Family
from trainers.codec import fingerprint
from trainers.files import adapter_files, file_fingerprint
from trainers.sources import DataProblem, places, read_rows
from trainers.spec import DataRef, Finding, Inspect, Inspection, ModelRef, Workload
from trainers.splits import SPLITS, Keyed, Placed, cut, drop_duplicates
from trainers.tasks.base import Task
from trainers.tasks.table import TASKS
from trainers.tokens import Encoded, write_tokens

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
FORMAT_VERSION = 3
"""Raised when tokenizing changes, so that no cache of an older version is read."""


def inspect(request: Inspect) -> Inspection:
    """Read, check, cut and tokenize. Raises `DataProblem` with every finding; then nothing was written."""
    workload = request.workload
    task = TASKS[workload.task]
    splits, duplicates = read_splits(task, workload.data)
    labels = task.labels([row.example for row in splits["train"]])
    check_enough({name: len(rows) for name, rows in splits.items()}, workload.data)
    check_labels(task, splits, labels)
    folder = model_folder(workload.model)
    model_fingerprint, family = check_model(folder, workload)
    tokenizer = load_tokenizer(folder, workload.model.trust_remote_code)
    encoded = {name: encode(task, tokenizer, splits[name], labels, workload.max_length) for name in SPLITS}
    empty = {name: sum(not made for made in rows) for name, rows in encoded.items()}
    kept = {n: [(r, e) for r, made in zip(splits[n], encoded[n], strict=True) for e in made] for n in SPLITS}
    check_enough({name: len(rows) for name, rows in kept.items()}, workload.data)
    content = _fingerprint(workload, kept)
    tokens_dir = Path(workload.cache_dir) / "tokens" / fingerprint([content, model_fingerprint, FORMAT_VERSION])[:32]
    if not tokens_dir.exists():
        rows = {n: [task.measure_row(r.example, e, labels) for r, e in kept[n]] for n in SPLITS}
        write_tokens(tokens_dir, {n: [e for _, e in kept[n]] for n in SPLITS}, rows)
    gpus, gpu_notes = _free_gpu_memory_mb()
    full = sum(len(e.ids) >= workload.max_length for rows in kept.values() for _, e in rows)
    return Inspection(
        rows={name: len(rows) for name, rows in kept.items()},
        labels=labels,
        tokens_dir=str(tokens_dir),
        model_dir=str(folder),
        fingerprint=content,
        model_fingerprint=model_fingerprint,
        duplicates=duplicates,
        truncated=full,
        train_tokens=sum(len(e.ids) for _, e in kept["train"]),
        gpus=len(gpus),
        notes=[*gpu_notes, *_notes(duplicates, full, sum(empty.values()), workload.max_length, kept, labels)],
        gpu_memory_mb=min(gpus, default=0.0),
        family=family,
    )


@dataclass(frozen=True)
class Given:
    """What the sources hold."""

    splits: dict[str, list[Placed[Any]]]
    """The sound rows of every split that the data names."""
    unsound: dict[str, list[list[Finding]]]
    """What is wrong with each of its other rows."""
    findings: list[Finding]
    """What is wrong with a source as a whole."""

    def all_findings(self) -> list[Finding]:
        return [*self.findings, *(f for rows in self.unsound.values() for row in rows for f in row)]


def read_splits(task: Task, data: DataRef) -> tuple[dict[str, list[Placed[Any]]], int]:
    """The rows of all splits, cut where the data names no source, and the number of duplicates dropped."""
    given = read_given(task, data)
    findings = given.all_findings() or task.check_all(given.splits["train"], str(data.train))
    if findings:
        raise DataProblem(findings)
    kept, repeats = drop_duplicates(given.splits)
    return cut_splits(kept, data), len(repeats)


def read_given(task: Task, data: DataRef) -> Given:
    """The rows of every split that the data names, each looked at alone."""
    given = Given({}, {}, [])
    for name, source in data.sources().items():
        unsound: list[list[Finding]] = []
        try:
            rows = read_rows(source, name, unsound)
        except DataProblem as problem:
            given.findings.extend(problem.findings)
            rows = []
        else:
            if not rows and not unsound:
                given.findings.append(Finding(str(source), "is empty", "expected at least a few rows"))
        checked = [(row, task.check(row, data.columns)) for row in rows]
        given.unsound[name] = unsound + [[c] for _, c in checked if isinstance(c, Finding)]
        given.splits[name] = [
            Placed(c.example, c.key, c.stratum, row) for row, c in checked if not isinstance(c, Finding)
        ]
    return given


def cut_splits(kept: Mapping[str, list[Placed[Any]]], data: DataRef) -> dict[str, list[Placed[Any]]]:
    """All splits, cut from train where the data names no source of their own."""
    splits = dict(kept)
    for name in ("test", "validation"):
        if name not in data.sources():
            size = data.test_size if name == "test" else data.validation_size
            splits["train"], splits[name] = cut(splits["train"], size, data.seed)
    return splits


def check_labels(task: Task, splits: Mapping[str, Sequence[Placed[Any]]], labels: Sequence[str]) -> None:
    """Raises `DataProblem` with every label that no training row has, and where it stands."""
    findings, known = [], set(labels)
    for name in ("validation", "test"):
        at: dict[str, list[str]] = {}
        for row in splits[name] if known else ():
            for unknown in set(task.labels([row.example])) - known:
                at.setdefault(unknown, []).append(row.row.where)
        if at:
            named = ", ".join(f"{label} ({places(at[label])})" for label in sorted(at))
            found = f"labels that no training row has: {named}"
            findings.append(Finding(f"data.{name}", found, f"training has: {', '.join(labels)}"))
    if findings:
        raise DataProblem(findings)


def check_enough(rows: Mapping[str, int], data: DataRef) -> None:
    empty = [name for name in SPLITS if rows[name] == 0]
    if empty:
        counts = ", ".join(f"{rows[name]} {name}" for name in SPLITS)
        found = f"no rows left for {' and '.join(empty)} after the cut ({counts})"
        raise DataProblem(
            [Finding(f"data: {data.train}", found, "more rows, or smaller validation_size and test_size")]
        )


def model_folder(model: ModelRef) -> Path:
    """The folder of a base model; a hub id is brought into the hub's cache first, so that nothing later needs it.

    Raises `DataProblem` when it cannot be had.
    """
    if Path(model.source).is_absolute():
        return Path(model.source)
    import huggingface_hub

    code = ["*.py"] if model.trust_remote_code else []
    try:
        return Path(
            huggingface_hub.snapshot_download(
                model.source, revision=model.revision, allow_patterns=[*MODEL_FILES, *code]
            )
        )
    except Exception as error:  # the hub client raises what it likes; all of it means: it cannot be had
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        found = f"{model.source}: no such folder beside the YAML, and the hub has no answer: {first_line}"
        raise DataProblem([Finding("model", found, "a folder, or a hub id that can be reached")]) from error


def check_model(folder: Path, workload: Workload) -> tuple[str, Family]:
    """Hash of everything in a model folder that decides results, and what kind of model it is.

    Raises `DataProblem` when it is no base model, or none for the task.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=workload.model.trust_remote_code)
    except Exception as error:  # transformers raises what it likes; all of it means: no such model
        first_line = str(error).splitlines()[0]
        raise DataProblem([Finding("model", f"{folder}: {first_line}", "a transformers model")]) from error
    if not any(folder.glob("*.safetensors")):
        raise DataProblem([Finding("model", f"{folder} has no *.safetensors", "pickled weights are never read")])
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and workload.max_length > longest:
        found = f"got {workload.max_length}, but the model has {longest} positions"
        raise DataProblem([Finding("training.max_length", found, f"at most {longest}")])
    family, declared = _family(config), CATALOG[workload.task]
    if family not in declared.families:
        found = f"{config.model_type} is an {family}" if family[0] == "e" else f"{config.model_type} is a {family}"
        fitting = [name for name, task in CATALOG.items() if family in task.families]
        needed = f"task {workload.task} needs a {' or '.join(declared.families)}; with this model: {', '.join(fitting)}"
        raise DataProblem([Finding("model", found, needed)])
    return _model_fingerprint(folder, workload.model), family


def _model_fingerprint(folder: Path, model: ModelRef) -> str:
    """Hash of the files of the model, and of the earlier training that it goes on from."""
    content = file_fingerprint(path for pattern in MODEL_FILES for path in folder.glob(pattern))
    if model.adapter is None:
        return content
    return fingerprint([content, file_fingerprint(adapter_files(Path(model.adapter)))])


def _family(config: Any) -> Family:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if config.is_encoder_decoder:
        return "encoder-decoder"
    is_causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    # BERT and its kin are in both tables: they can be told to be causal, and are not.
    return "decoder" if is_causal and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "encoder"


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The model's fast tokenizer. Raises `DataProblem` when there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # as above
        first_line = str(error).splitlines()[0]
        raise DataProblem([Finding("model", f"{folder} has no tokenizer: {first_line}")]) from error
    if not tokenizer.is_fast:
        raise DataProblem([Finding("model", f"{folder} has no fast tokenizer", "a folder with tokenizer.json")])
    return tokenizer


def encode(
    task: Task, tokenizer: Any, rows: Sequence[Keyed[Any]], labels: Sequence[str], max_length: int
) -> list[list[Encoded]]:
    return task.encode(tokenizer, [row.example for row in rows], labels, max_length) if rows else []


def _fingerprint(workload: Workload, kept: Mapping[str, Sequence[tuple[Keyed[Any], Encoded]]]) -> str:
    """Hash of the rows in their splits and of everything that decides how they were cut and tokenized."""
    rows = {name: [[r.key, e.ids, e.targets] for r, e in kept[name]] for name in SPLITS}
    # Where the files lie does not matter, what they hold does.
    return fingerprint([workload.task, workload.max_length, workload.data.without_places(), rows])


def _free_gpu_memory_mb() -> tuple[list[float], list[str]]:
    """Free memory of each CUDA device, and a note where there are some that cannot be used."""
    import torch

    if not torch.cuda.is_available():
        return [], []
    try:
        return [torch.cuda.mem_get_info(i)[0] / 1e6 for i in range(torch.cuda.device_count())], []
    except RuntimeError as error:
        return [], [f"GPUs cannot be used, trials run on the CPU: {' '.join(str(error).split())[:200]}"]


def _notes(
    duplicates: int, full: int, empty: int, max_length: int,
    kept: Mapping[str, Sequence[tuple[Keyed[Any], Encoded]]], labels: Sequence[str],
) -> list[str]:  # fmt: skip
    notes = []
    if duplicates:
        notes.append(f"{duplicates} duplicate rows dropped")
    if full:
        notes.append(f"{full} rows fill max_length {max_length}: longer ones were cut")
    if empty:
        notes.append(f"{empty} rows dropped: nothing to learn from within max_length {max_length}")
    if all(len(e.targets) == 1 for _, e in kept["train"]) and labels:
        counts = Counter(labels[int(e.targets[0])] for _, e in kept["train"])
        total = counts.total()
        rare = [f"{name} ({counts[name] / total:.1%})" for name in labels if counts[name] / total < 0.2 / len(labels)]
        if rare:
            notes.append(f"rare labels in training: {', '.join(rare)}")
    return notes
