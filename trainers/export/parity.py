"""Whether a graph has torch's numbers: random rows, alone and padded, at once and with a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.export.release import GRAPH, ExportError
from trainers.runtime.cache import PAST, PRESENT
from trainers.runtime.options import SLOWER_FUSIONS

Logits = npt.NDArray[np.float32]
LENGTHS = (1, 2, 9, 24)
"""Of the random rows, in tokens."""
TOLERANCE = 2e-3
"""The largest difference from torch's logits, as a share of their standard deviation or of 1; of one number that has a
unit of its own, as a share of it."""


def check_parity(
    folder: Path, torch_logits: Callable[[list[int]], Logits], vocabulary: int, longest: int, pads_left: bool
) -> None:
    """Compare the graph in `folder` with `torch_logits`, which gives a row's logits, [tokens, vocabulary].

    Rows have at most `longest` tokens. They are padded on the right, and with `pads_left` on the left too, also in the
    cache. Raises `ExportError` with the largest difference.
    """
    session = session_of(folder / GRAPH)
    rows = [row[:longest] for row in random_rows(vocabulary)]
    wanted = [torch_logits(row) for row in rows]
    for row, logits in zip(rows, wanted, strict=True):
        compare(run_rows(session, [row])[0], logits, f"a row of {len(row)} tokens")
    for side in ("right", "left")[: 2 if pads_left else 1]:
        for found, logits in zip(run_rows(session, rows, side), wanted, strict=True):
            compare(found, logits, f"a batch padded on the {side}")
    if pads_left:
        long = [number for number, row in enumerate(rows) if len(row) > 1]
        for number, found in zip(long, run_step(session, [rows[number] for number in long]), strict=True):
            compare(found, wanted[number][-1:], "a step of rows of different lengths")
    compare(run_in_two(session, rows[-1]), wanted[-1][len(rows[-1]) // 2 :], "the second half of a row, with a cache")


def check_texts(
    folder: Path, torch_output: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Logits],
    rows: Sequence[list[int]], pad: int,
) -> None:  # fmt: skip
    """Compare the graph in `folder`, which reads whole texts, with torch: rows alone, and padded on the right.

    `torch_output` gives the output for token ids and a mask, both [rows, tokens]. Raises `ExportError` with the largest
    difference.
    """
    session = session_of(folder / GRAPH)
    names = {value.name for value in session.get_inputs()}

    def ours(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Logits:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        output: Logits = session.run(None, {name: given[name] for name in names})[0]
        return output

    together = ours(*padded(rows, pad=pad))
    for row, of_batch in zip(rows, together, strict=True):
        wanted = torch_output(*padded([row]))[0]
        compare(ours(*padded([row]))[0], wanted, f"a row of {len(row)} tokens")
        compare(of_batch[: len(row)] if of_batch.ndim == 2 else of_batch, wanted, "a batch padded on the right")


def session_of(graph: Path) -> Any:
    """A graph in onnxruntime, on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSIONS)


def random_rows(vocabulary: int) -> list[list[int]]:
    """Rows of random tokens, the same at every call."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, vocabulary, length).tolist() for length in LENGTHS]


def unit_of(wanted: Logits) -> float:
    """What a difference from torch's logits is a share of: see `TOLERANCE`."""
    return max(1.0, float(np.abs(wanted).max() if wanted.size == 1 else wanted.std()))


def compare(ours: Logits, wanted: Logits, what: str) -> None:
    """Raise `ExportError` where logits, [tokens, vocabulary], are not torch's."""
    if ours.shape != wanted.shape:
        raise ExportError(f"its graph gives logits of shape {ours.shape} for {what}; torch gives {wanted.shape}")
    difference, most = float(np.abs(ours - wanted).max()), TOLERANCE * unit_of(wanted)
    if not difference <= most:  # also where it is no number
        raise ExportError(f"its graph differs from torch by {difference:.2g} in {what}; at most {most:.2g} is right")


def run_rows(session: Any, rows: Sequence[list[int]], side: str = "right") -> list[Logits]:
    """Logits of each row's own tokens."""
    ids, mask = padded(rows, side)
    logits = outputs_of(session, ids, mask, {})["logits"]
    return [of_row[is_own == 1] for of_row, is_own in zip(logits, mask, strict=True)]


def padded(
    rows: Sequence[list[int]], side: str = "right", pad: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Token ids and mask, both [rows, longest]."""
    width = max(map(len, rows))
    ids, mask = np.full((len(rows), width), pad, dtype=np.int64), np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        start = 0 if side == "right" else width - len(row)
        ids[number, start : start + len(row)] = row
        mask[number, start : start + len(row)] = 1
    return ids, mask


def run_in_two(session: Any, row: list[int]) -> Logits:
    """Logits of the second half of a row, [tokens, vocabulary], with the first half in the cache."""
    ids, half = np.asarray([row], dtype=np.int64), len(row) // 2
    mask = np.ones_like(ids)
    first = outputs_of(session, ids[:, :half], mask[:, :half], {})
    past = {name.replace(PRESENT, PAST): value for name, value in first.items() if name != "logits"}
    logits: Logits = outputs_of(session, ids[:, half:], mask, past)["logits"][0]
    return logits


def run_step(session: Any, rows: Sequence[list[int]], each: Sequence[Any] = ()) -> list[Logits]:
    """Logits of each row's last token, [1, vocabulary], all in one call after what each has read by itself.

    So answers are written together. `each` are the sessions that read one row, where those differ.
    """
    read = [
        outputs_of(one, np.asarray([row[:-1]], dtype=np.int64), np.ones((1, len(row) - 1), dtype=np.int64), {})
        for row, one in zip(rows, each or [session] * len(rows), strict=True)
    ]
    width, past = max(map(len, rows)) - 1, {}
    for name in read[0].keys() - {"logits"}:
        parts = [np.pad(of[name], [(0, 0), (0, 0), (width - of[name].shape[2], 0), (0, 0)]) for of in read]
        past[name.replace(PRESENT, PAST)] = np.concatenate(parts)
    last, (_, mask) = np.asarray([row[-1:] for row in rows], dtype=np.int64), padded(rows, "left")
    return list(outputs_of(session, last, mask, past)["logits"])


def outputs_of(session: Any, ids: Any, mask: Any, past: dict[str, Any]) -> dict[str, Any]:
    """A graph's outputs by their names; a cache that is not given is empty."""
    positions = np.clip(mask.cumsum(axis=1) - 1, 0, None)[:, -ids.shape[1] :]
    types = np.zeros_like(ids)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "token_type_ids": types, **past}
    feed = {}
    for value in session.get_inputs():
        empty = (len(ids), value.shape[1], 0, value.shape[-1])
        feed[value.name] = given[value.name] if value.name in given else np.zeros(empty, dtype=np.float32)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))
