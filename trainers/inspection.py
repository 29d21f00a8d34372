"""Inspect: everything that can be wrong with data or model, found before anything is trained.

Runs in a short-lived child: tokenizing starts threads, and the host must not have any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.codec import fingerprint, to_json
from trainers.files import file_fingerprint
from trainers.sources import DataProblem, read_rows
from trainers.spec import DataRef, Finding, Inspect, Inspection, ModelRef, Workload
from trainers.splits import SPLITS, Keyed, cut, drop_duplicates
from trainers.tasks.base import Task
from trainers.tasks.table import TASKS
from trainers.tokens import Encoded, write_tokens

FORMAT_VERSION = 1
"""Raised when tokenizing changes, so that no cache of an older version is read."""


def inspect(request: Inspect) -> Inspection:
    """Read, check, cut and tokenize. Raises `DataProblem` with every finding; then nothing was written."""
    workload = request.workload
    task = TASKS[workload.task]
    splits, duplicates = read_splits(task, workload.data)
    labels = task.labels([row.example for row in splits["train"]])
    _check_labels(task, splits, labels)
    model_fingerprint = check_model(workload.model)
    tokenizer = load_tokenizer(workload.model)
    encoded = {name: encode(task, tokenizer, splits[name], labels, workload.max_length) for name in SPLITS}
    empty = {name: sum(e is None for e in rows) for name, rows in encoded.items()}
    kept = {n: [(r, e) for r, e in zip(splits[n], encoded[n], strict=True) if e is not None] for n in SPLITS}
    _check_enough({name: len(rows) for name, rows in kept.items()}, workload.data)
    content = _fingerprint(workload, kept)
    folder = Path(workload.cache_dir) / "tokens" / fingerprint([content, model_fingerprint, FORMAT_VERSION])[:32]
    if not folder.exists():
        rows = {n: [task.measure_row(r.example, e, labels) for r, e in kept[n]] for n in SPLITS}
        write_tokens(folder, {n: [e for _, e in kept[n]] for n in SPLITS}, rows)
    full = sum(len(e.ids) >= workload.max_length for rows in kept.values() for _, e in rows)
    return Inspection(
        rows={name: len(rows) for name, rows in kept.items()},
        labels=labels,
        tokens_dir=str(folder),
        fingerprint=content,
        model_fingerprint=model_fingerprint,
        duplicates=duplicates,
        truncated=full,
        train_tokens=sum(len(e.ids) for _, e in kept["train"]),
        gpus=_count_gpus(),
        notes=_notes(duplicates, full, sum(empty.values()), workload.max_length, kept, labels),
    )


def read_splits(task: Task, data: DataRef) -> tuple[dict[str, list[Keyed[Any]]], int]:
    """The rows of all splits, cut where the data names no file, and the number of duplicates dropped."""
    findings: list[Finding] = []
    given = {name: source for name in SPLITS if (source := getattr(data, name)) is not None}
    splits: dict[str, list[Keyed[Any]]] = {}
    for name, source in given.items():
        rows = read_rows(source, name, findings)
        checked = [task.check(row, data.columns) for row in rows]
        findings += [c for c in checked if isinstance(c, Finding)]
        splits[name] = [c for c in checked if isinstance(c, Keyed)]
        if not rows and not findings:
            findings.append(Finding(source, "is empty", "expected at least a few rows"))
    if not findings:
        findings += task.check_all(splits["train"], data.train)
    if findings:
        raise DataProblem(findings)
    splits, duplicates = drop_duplicates(splits)
    for name in ("test", "validation"):
        if name not in given:
            size = data.test_size if name == "test" else data.validation_size
            splits["train"], splits[name] = cut(splits["train"], size, data.seed)
    return splits, duplicates


def _check_labels(task: Task, splits: Mapping[str, Sequence[Keyed[Any]]], labels: Sequence[str]) -> None:
    if not labels:
        return
    for name in ("validation", "test"):
        unknown = sorted(set(task.labels([row.example for row in splits[name]])) - set(labels))
        if unknown:
            found = f"labels that no training row has: {', '.join(unknown)}"
            raise DataProblem([Finding(f"data.{name}", found, f"training has: {', '.join(labels)}")])


def _check_enough(rows: Mapping[str, int], data: DataRef) -> None:
    empty = [name for name in SPLITS if rows[name] == 0]
    if empty:
        counts = ", ".join(f"{rows[name]} {name}" for name in SPLITS)
        found = f"no rows left for {' and '.join(empty)} after the cut ({counts})"
        raise DataProblem(
            [Finding(f"data: {data.train}", found, "more rows, or smaller validation_size and test_size")]
        )


def check_model(model: ModelRef) -> str:
    """Hash of a model folder, or a hub id with its commit. Raises `DataProblem` when it cannot be a base model."""
    from transformers import AutoConfig

    folder = Path(model.source)
    try:
        config = AutoConfig.from_pretrained(
            model.source, revision=model.revision or "main", trust_remote_code=model.trust_remote_code
        )
    except Exception as error:  # transformers raises what it likes; all of it means: no such model
        first_line = str(error).splitlines()[0]
        raise DataProblem([Finding("model", f"{model.source}: {first_line}", "a model folder or a hub id")]) from error
    if folder.is_dir():
        return file_fingerprint([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("tokenizer*")])
    return fingerprint([model.source, config._commit_hash])


def load_tokenizer(model: ModelRef) -> Any:
    """The model's fast tokenizer. Raises `DataProblem` when there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.source, revision=model.revision or "main", trust_remote_code=model.trust_remote_code
        )
    except Exception as error:  # as above
        first_line = str(error).splitlines()[0]
        raise DataProblem([Finding("model", f"{model.source} has no tokenizer: {first_line}")]) from error
    if not tokenizer.is_fast:
        raise DataProblem([Finding("model", f"{model.source} has no fast tokenizer", "a folder with tokenizer.json")])
    return tokenizer


def encode(
    task: Task, tokenizer: Any, rows: Sequence[Keyed[Any]], labels: Sequence[str], max_length: int
) -> list[Encoded | None]:
    return task.encode(tokenizer, [row.example for row in rows], labels, max_length) if rows else []


def _fingerprint(workload: Workload, kept: Mapping[str, Sequence[tuple[Keyed[Any], Encoded]]]) -> str:
    """Hash of the rows in their splits and of everything that decides how they were cut and tokenized."""
    data = to_json(workload.data)
    for name in SPLITS:
        del data[name]  # where the files lie does not matter, what they hold does
    rows = {name: [[r.key, e.targets if len(e.targets) == 1 else None] for r, e in kept[name]] for name in SPLITS}
    return fingerprint([workload.task, workload.max_length, data, rows])


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


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
    if labels:
        counts = dict.fromkeys(labels, 0)
        for _, encoded in kept["train"]:
            counts[labels[encoded.targets[0]]] += 1
        total = sum(counts.values())
        rare = [f"{name} ({count / total:.1%})" for name, count in counts.items() if count / total < 0.2 / len(labels)]
        if rare:
            notes.append(f"rare labels in training: {', '.join(rare)}")
    return notes
