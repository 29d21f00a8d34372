"""Whether each adapter of a bundle has its merged model's numbers: rows alone, padded, mixed with those of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainers.data.tokens import Tokens
from trainers.export.encoder import rows_for
from trainers.export.parity import Logits, outputs_of, padded, run_in_two, run_step, unit_of
from trainers.runtime.adapters import AdaptedSession, AdapterGraph
from trainers.runtime.bundle import Bundle
from trainers.runtime.card import GENERATIVE, SIMILARITY
from trainers.runtime.load import load
from trainers.tasks.table import TASKS
from trainers.tasks.text_similarity import embeddings

MOST = 1e-4
"""The largest difference from the merged model's logits, as a share of their spread or of 1, whichever is larger."""
_REAL_ROWS, _REAL_TOKENS = 16, 256
"""How many validation rows are compared, and how many tokens of them together where each has logits."""


@dataclass(frozen=True)
class Reference:
    """A merged model's logits of random rows and of validation rows, each [labels], [tokens, tags] or alike."""

    rows: list[list[int]]
    wanted: list[Logits]
    pad: int
    random: int
    """How many of the rows, the first ones, are random."""


def reference_of(merged: Any, task: str, tokens_dir: Path, pad: int) -> Reference:
    """What the merged model, in float32, says of random rows and of the first validation rows."""
    random = rows_for(merged)
    rows = [*random, *_real_rows(task, Tokens(tokens_dir, "validation", TASKS[task].targets))]
    with torch.inference_mode():
        wanted = [_said(merged, task, torch.tensor([row])) for row in rows]
    return Reference(rows, wanted, pad, len(random))


def _said(merged: Any, task: str, ids: torch.Tensor) -> Logits:
    mask = torch.ones_like(ids)
    output = embeddings(merged, ids, mask) if task == SIMILARITY else merged(input_ids=ids, attention_mask=mask).logits
    values: Logits = output[0].float().numpy()
    return values


def _real_rows(task: str, tokens: Tokens) -> Iterator[list[int]]:
    """Rows of the validation split; of a pair of texts that are read apart, the first one."""
    left = _REAL_TOKENS
    for row in range(min(_REAL_ROWS, len(tokens))):
        ids, types = tokens.ids(row), tokens.types(row)
        if task == SIMILARITY and types is not None:
            ids = ids[types == 0]
        if task in GENERATIVE:
            ids, left = ids[:left], left - len(ids)
        if len(ids):
            yield ids.tolist()


def compare_bundle(
    folder: Path, references: Mapping[str, Reference]
) -> tuple[dict[str, float], dict[str, str]]:  # fmt: skip
    """The largest difference of each adapter in the bundle at `folder`, and where one is larger than `MOST`."""
    bundle = load(folder)
    assert isinstance(bundle, Bundle)  # noqa: S101  # its card names adapters
    sessions: dict[str, Any] = {name: bundle[name].session for name in references}
    found: dict[str, list[tuple[float, str]]] = {name: [] for name in references}
    for name, reference in references.items():
        found[name] += _alone(sessions[name], reference, has_cache=bundle.card.task in GENERATIVE)
    for name, difference in _mixed(sessions, references, has_cache=bundle.card.task in GENERATIVE):
        found[name].append((difference, "a batch mixed with other adapters"))
    worst = {name: max(of_adapter, key=_nan_last) for name, of_adapter in found.items()}
    return {name: difference for name, (difference, _) in worst.items()}, {
        name: f"differs from its merged model by {difference:.2g} in {what}; at most {MOST:g} is right"
        for name, (difference, what) in worst.items()
        if not difference <= MOST  # also where it is no number
    }


def _nan_last(found: tuple[float, str]) -> float:
    return np.inf if np.isnan(found[0]) else found[0]


def _alone(session: Any, reference: Reference, *, has_cache: bool) -> Iterator[tuple[float, str]]:
    """Each row alone, the random ones padded together, and the second half of one with a cache."""
    for number, (row, wanted) in enumerate(zip(reference.rows, reference.wanted, strict=True)):
        (ours,) = _rows(session, [row], reference.pad)
        kind = "random row" if number < reference.random else "validation row"
        yield _difference(ours, wanted), f"a {kind} of {len(row)} tokens"
    random = slice(reference.random)
    for ours, wanted in zip(
        _rows(session, reference.rows[random], reference.pad), reference.wanted[random], strict=True
    ):
        yield _difference(ours, wanted), "a padded batch"
    if has_cache:
        row, wanted = reference.rows[random][-1], reference.wanted[random][-1]
        yield _difference(run_in_two(session, row), wanted[len(row) // 2 :]), "the second half of a row, with a cache"


def _mixed(
    sessions: Mapping[str, AdaptedSession], references: Mapping[str, Reference], *, has_cache: bool
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """Batches in which neighbours have different adapters; every adapter gets every random row once.

    With a cache the rows' last tokens are also read together, after what each has read by itself.
    """
    names = list(references)
    for shift in range(len(names)):
        first = references[names[0]]
        asked = [(names[(place + shift) % len(names)], place) for place in range(first.random)]
        mix = _Mix(sessions[names[0]].graph, [sessions[name] for name, _ in asked])
        outputs = _rows(mix, [references[name].rows[place] for name, place in asked], first.pad)
        for (name, place), ours in zip(asked, outputs, strict=True):
            wanted = references[name].wanted[place]
            yield name, _difference(ours[..., : wanted.shape[-1]], wanted)
        if has_cache:
            yield from _stepped(sessions, references, [(name, n) for name, n in asked if len(first.rows[n]) > 1])


def _stepped(
    sessions: Mapping[str, AdaptedSession], references: Mapping[str, Reference], asked: Sequence[tuple[str, int]]
) -> Iterator[tuple[str, float]]:
    """A step of rows of different adapters and lengths; `asked` has each row's adapter, and its place."""
    each = [sessions[name] for name, _ in asked]
    rows = [references[name].rows[place] for name, place in asked]
    for (name, place), ours in zip(asked, run_step(_Mix(each[0].graph, each), rows, each), strict=True):
        yield name, _difference(ours, references[name].wanted[place][-1:])


@dataclass(frozen=True)
class _Mix:
    """A graph for rows of these adapters, with what parity asks of a session."""

    graph: AdapterGraph
    rows: Sequence[AdaptedSession]

    def get_inputs(self) -> list[Any]:
        return self.graph.inputs

    def get_outputs(self) -> list[Any]:
        return list(self.graph.outputs)

    def run(self, names: Sequence[str], feed: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        return self.graph.run(feed, self.rows, names)


def _rows(session: Any, rows: Sequence[list[int]], pad: int) -> list[Logits]:
    """The output for each row, of its own tokens where each token has one."""
    ids, mask = padded(rows, pad=pad)
    outputs = outputs_of(session, ids, mask, {})
    output = outputs["logits" if "logits" in outputs else "embedding"]
    return [of_row[: len(row)] if of_row.ndim == 2 else of_row for row, of_row in zip(rows, output, strict=True)]


def _difference(ours: Logits, wanted: Logits) -> float:
    if ours.shape != wanted.shape:
        return np.inf
    return float(np.abs(ours - wanted).max() / unit_of(wanted))
