"""The cache of a model that writes, with a row for each sequence; their lengths may differ."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainers.runtime.bundle import Bundle
from trainers.runtime.cache import PAST, PRESENT
from trainers.runtime.rewrite import CROSS
from trainers.runtime.scores import Floats
from trainers.runtime.write import Writer


class Slots(Protocol):
    """Keys and values of several sequences, one a row."""

    def run(
        self, first: int, ids: npt.NDArray[np.int64], lengths: Sequence[int], sessions: Sequence[Any] = ()
    ) -> Floats:
        """Append tokens to the rows from `first` on: `ids` is int64 [rows, tokens], `lengths` what each row has.

        `sessions` are those of the rows' adapters, where a bundle is served.

        Returns logits, float32 [rows, tokens, vocabulary]. One token may go to rows of different lengths; several
        tokens go to one row.
        """
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row over another."""
        ...


def slots_for(release: Writer | Bundle, rows: int) -> Slots:
    """Empty rows for the graph of a release or a bundle, each of as many tokens as its context has."""
    if release.card.cache == "appended":
        return AppendedSlots(release.session, rows)
    return InPlaceSlots(release.session, rows, release.card.max_length)


class InPlaceSlots(Slots):
    """Past and present are the same memory, so that the attention operator writes in place.

    The operator takes each row's length from the sum of its attention mask: rows of different lengths share a call.
    A page of memory is taken when it is first written, so that short sequences do not take what long ones may.
    """

    def __init__(self, session: Any, rows: int, capacity: int) -> None:
        """`session` is onnxruntime's; `capacity` is the most tokens of one row."""
        self._session = session
        self._binding = session.io_binding()
        self._wanted = {value.name for value in session.get_inputs()}
        self._caches: dict[str, Floats] = {
            value.name: _lazy_zeros((rows, value.shape[1], capacity, value.shape[3]))
            for value in session.get_inputs()
            if value.name.startswith(PAST)
        }

    def run(
        self, first: int, ids: npt.NDArray[np.int64], lengths: Sequence[int], sessions: Sequence[Any] = ()
    ) -> Floats:
        rows, tokens = ids.shape
        after = np.asarray(lengths, dtype=np.int64) + tokens
        mask = (np.arange(after.max()) < after[:, None]).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": after[:, None] + np.arange(-tokens, 0)}
        for name in feed.keys() & self._wanted:
            self._binding.bind_cpu_input(name, feed[name])
        self._binding.clear_binding_outputs()
        self._binding.bind_output("logits", "cpu")  # bound first: `get_outputs` keeps this order
        for name, cache in self._caches.items():
            shape, place = (rows, *cache.shape[1:]), cache[first:].ctypes.data
            self._binding.bind_input(name, "cpu", 0, np.float32, shape, place)
            self._binding.bind_output(name.replace(PAST, PRESENT), "cpu", 0, np.float32, shape, place)
        self._session.run_with_iobinding(self._binding)
        logits: Floats = self._binding.get_outputs()[0].numpy()
        return logits

    def copy(self, source: int, target: int, length: int) -> None:
        for cache in self._caches.values():
            cache[target, :, :length] = cache[source, :, :length]


class AppendedSlots(Slots):
    """For graphs that give back past and present as one longer array, and know one length for all rows: each row is
    read in a call of its own."""

    def __init__(self, session: Any, rows: int) -> None:
        """`session` is onnxruntime's."""
        self._session = session
        self._wanted = {value.name for value in session.get_inputs()}
        self._outputs = [value.name for value in session.get_outputs()]
        empty = {
            value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), dtype=np.float32)
            for value in session.get_inputs()
            if value.name.startswith(PAST)
        }
        self._rows: list[Mapping[str, Floats]] = [empty] * rows

    def run(
        self, first: int, ids: npt.NDArray[np.int64], lengths: Sequence[int], sessions: Sequence[Any] = ()
    ) -> Floats:
        by = sessions or [self._session] * len(lengths)
        found = [self._run(by[row], first + row, ids[row : row + 1], length) for row, length in enumerate(lengths)]
        return np.concatenate(found)

    def _run(self, session: Any, row: int, ids: npt.NDArray[np.int64], length: int) -> Floats:
        after = length + ids.shape[1]
        mask, positions = np.ones((1, after), dtype=np.int64), np.arange(length, after, dtype=np.int64)[None]
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        past = {name: kept[:, :, :length] for name, kept in self._rows[row].items()}
        given = {name: feed[name] for name in feed.keys() & self._wanted} | past
        found = dict(zip(self._outputs, session.run(self._outputs, given), strict=True))
        logits: Floats = found.pop("logits")
        self._rows[row] = {name.replace(PRESENT, PAST): values for name, values in found.items()}
        return logits

    def copy(self, source: int, target: int, length: int) -> None:
        self._rows[target] = {name: kept[:, :, :length] for name, kept in self._rows[source].items()}


def bytes_per_token(session: Any) -> int:
    """How much memory one token takes in the cache: in that of an answer, and in that of a text where there is one."""
    caches = [value.shape for value in session.get_inputs() if value.name.startswith((PAST, CROSS))]
    return sum(4 * shape[1] * shape[3] for shape in caches)


def _lazy_zeros(shape: tuple[int, ...]) -> Floats:
    """Zeros that take memory page by page. numpy asks for pages of 2 MB, which one token in each would fill."""
    memory = mmap.mmap(-1, 4 * math.prod(shape))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # Linux
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype=np.float32).reshape(shape)
