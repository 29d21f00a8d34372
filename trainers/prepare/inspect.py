"""Inspect: finds every problem of data and model before anything is trained, then writes the tokens.

It runs in a short-lived child: tokenizing starts threads, and the host must not have any.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trainers.data.formats.base import cut
from trainers.data.sources import DataProblem
from trainers.data.splits import SPLITS, Placed
from trainers.data.tokens import Encoded, write_tokens
from trainers.model.source import BaseFiles, base_fingerprint, base_hashes
from trainers.prepare.data_findings import label_counts
from trainers.prepare.device_facts import device_facts
from trainers.prepare.notes import contradictions
from trainers.prepare.prepared import Prepared, prepare
from trainers.protocol.codec import fingerprint
from trainers.protocol.counted import counted
from trainers.protocol.device_facts import Gpu
from trainers.protocol.events import PreparedData
from trainers.protocol.requests import Inspect
from trainers.protocol.trial_spec import Workload
from trainers.tasks.base import Task

FORMAT_VERSION = 5
"""Increase it when tokenizing changes, so that no cache of an older version is read."""
Kept = dict[str, list[tuple[Placed[object], Encoded]]]
"""Split -> every row of tokens with the row of data that it comes from."""


def inspect(request: Inspect) -> PreparedData:
    """Read, check, split and tokenize the data. Raises `DataProblem` with every finding; then nothing is written."""
    made = prepare(request.workload, request.intent)
    if findings := made.all_findings():
        raise DataProblem(findings)
    prepared, kept = prepared_data(request.workload, made), _kept(made)
    if not (tokens_dir := Path(prepared.tokens_dir)).exists():
        rows = {n: [made.task.measure_row(r.example, e, made.labels) for r, e in kept[n]] for n in SPLITS}
        write_tokens(tokens_dir, {n: [e for _, e in kept[n]] for n in SPLITS}, rows)
    return prepared


def _kept(made: Prepared) -> Kept:
    """The rows of tokens of each split."""
    return {name: [(row, one) for row, many in made.tokens[name] for one in many] for name in SPLITS}


def prepared_data(workload: Workload, made: Prepared) -> PreparedData:
    """What a sweep knows of data and model that have no findings; the tokens are not written here."""
    base, kept = made.base, _kept(made)
    assert base is not None  # noqa: S101  # without findings there is a base
    content, split_hashes = data_fingerprint(workload, base, kept)
    model_hashes = base_hashes(base.folder, workload.model)
    model = base_fingerprint(model_hashes, workload.model)
    # Words are written with their tags by name; the hash of the data has the numbers of the tags.
    names = made.labels if made.task.targets == "token" else []
    tokens_dir = Path(workload.cache_dir) / "tokens" / fingerprint([content, model, FORMAT_VERSION, *names])[:32]
    gpus, gpu_notes = _usable_gpus()
    full = sum(_is_full(made.task, one, base.max_length) for rows in kept.values() for _, one in rows)
    return PreparedData(
        rows={name: len(rows) for name, rows in kept.items()},
        labels=made.labels,
        tokens_dir=str(tokens_dir),
        model_dir=str(base.folder),
        fingerprint=content,
        model_fingerprint=model,
        duplicates=len(made.repeats),
        truncated=full,
        train_tokens=sum(len(e.ids) for _, e in kept["train"]),
        validation_tokens=sum(len(e.ids) for _, e in kept["validation"]),
        gpus=len(gpus),
        notes=[*gpu_notes, *made.notes, *_notes(made, base, full, kept)],
        gpu_memory_mb=min((gpu.free_mb for gpu in gpus), default=0.0),
        family=base.family,
        scale=made.scale,
        max_length=base.max_length,
        unreleasable=base.unreleasable,
        split_hashes=split_hashes,
        model_hashes=model_hashes,
        label_counts={name: label_counts(made.task, made.tokens[name], made.labels) for name in SPLITS if made.labels},
        gpu_names=[gpu.name for gpu in gpus],
    )


def data_fingerprint(workload: Workload, base: BaseFiles, kept: Kept) -> tuple[str, dict[str, str]]:
    """Hash of the rows in their splits, and of everything that decides how they are split and tokenized; and the hash
    of the rows of each split.

    They are the SHA-256 of JSON texts, which are hashed piece by piece because data may be large.
    """
    how = [workload.task, base.max_length, workload.data.without_places()]
    digest = hashlib.sha256(f"[{_canonical(how)[1:-1]},{{".encode())
    splits = {name: hashlib.sha256() for name in sorted(SPLITS)}
    for number, (name, split) in enumerate(splits.items()):
        digest.update(f"{',' * (number > 0)}{_canonical(name)}:".encode())
        for piece in _rows_in_pieces(kept[name]):
            digest.update(piece)
            split.update(piece)
    digest.update(b"}]")
    return digest.hexdigest(), {name: split.hexdigest() for name, split in splits.items()}


def _rows_in_pieces(rows: Sequence[tuple[Placed[object], Encoded]]) -> Iterator[bytes]:
    """The rows of a split as JSON. Where one row of data gives several rows of tokens, only the first one includes its
    key."""
    before = None
    yield b"["
    for index, (row, one) in enumerate(rows):
        key = None if row is before else row.key
        before = row
        comma = "," * (index > 0)
        yield f"{comma}[{_canonical(key)},{_canonical(one.ids)},{_canonical(one.targets)}]".encode()
    yield b"]"


def _canonical(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _usable_gpus() -> tuple[list[Gpu], list[str]]:
    """The CUDA devices, and a note where there are some that cannot be used: then all trials run on the CPU."""
    facts = device_facts()
    if facts.problem:
        return [], [f"GPUs cannot be used, trials run on the CPU: {facts.problem}"]
    return facts.gpus, []


def _is_full(task: Task, one: Encoded, max_length: int) -> bool:
    """Whether a text of a row has as many tokens as `max_length` leaves it: unless it has just so many, it was cut."""
    return any(count >= most for count, most in task.lengths(one, max_length))


def _notes(made: Prepared, base: BaseFiles, full: int, kept: Kept) -> list[str]:
    notes = []
    if made.repeats:
        notes.append(f"{counted(len(made.repeats), 'duplicate row')} dropped")
    if others := contradictions(made.task, [(repeat.row, repeat.kept) for repeat in made.repeats]):
        have = counted(len(others), "of them has", "of them have")
        notes.append(f"{have} a different answer from the row that is kept")
    if full:
        fill = counted(full, "row fills", "rows fill")
        notes.append(f"{fill} {made.task.limit} {base.max_length}: longer ones were cut")
    if empty := sum(not many for name in SPLITS for _, many in made.tokens[name]):
        notes.append(f"{counted(empty, 'row')} dropped: nothing to learn within max_length {base.max_length}")
    return notes + (_rare_labels(kept["train"], made.labels) if made.task.name == "text-classification" else [])


def _rare_labels(train: Sequence[tuple[object, Encoded]], labels: Sequence[str]) -> list[str]:
    counts: Mapping[str, int] = Counter(labels[int(one.targets[0])] for _, one in train)
    total = len(train)
    rare = [f"{cut(name)} ({counts[name] / total:.1%})" for name in labels if counts[name] / total < 0.2 / len(labels)]
    more = f" and {len(rare) - 10:,} more" if len(rare) > 10 else ""
    return [f"rare labels in training: {', '.join(rare[:10])}{more}"] if rare else []
