"""The cache of a model that writes, with a row for each sequence; their lengths may differ."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

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

    def free(self, row: int) -> None:
        """Forget what a row has, where that sets memory free."""
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

    def free(self, row: int) -> None:
        """Nothing: the row's memory is for its next sequence."""


class _Kept(NamedTuple):
    """Where the keys and values of one sequence are: in one row of arrays that a call took or gave back."""

    arrays: Mapping[str, Floats]
    """Each [rows, heads, tokens, size of a head]."""
    row: int
    start: int
    length: int
    """It has the tokens from `start` on, so many."""

    def is_at(self, row: int, length: int) -> bool:
        """Whether it is this row of its arrays, and ends at their right edge with so many tokens."""
        width = next(iter(self.arrays.values())).shape[2]
        return (self.row, self.start, self.length) == (row, width - length, length)


class AppendedSlots(Slots):
    """For graphs that give back past and present as one longer array, and know one length for all rows.

    Rows of different lengths share a call: they end at the right edge of one array, and the mask leaves out what is to
    the left of a shorter one. What a call gives back is the past of the next one, as long as its rows stay the same.
    When one joins or leaves, they are laid out anew. The graph itself copies as much in every step.
    """

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
        self._empty = _Kept(empty, row=0, start=0, length=0)
        self._rows = [self._empty] * rows

    def run(
        self, first: int, ids: npt.NDArray[np.int64], lengths: Sequence[int], sessions: Sequence[Any] = ()
    ) -> Floats:
        rows, tokens = ids.shape
        after = np.asarray(lengths, dtype=np.int64) + tokens
        mask = (np.arange(-after.max(), 0) >= -after[:, None]).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": after[:, None] + np.arange(-tokens, 0)}
        given = {name: feed[name] for name in feed.keys() & self._wanted}
        given |= self._past(self._rows[first : first + rows], lengths)
        if sessions:
            outputs = sessions[0].graph.run(given, sessions, self._outputs)
        else:
            outputs = self._session.run(self._outputs, given)
        found = dict(zip(self._outputs, outputs, strict=True))
        logits: Floats = found.pop("logits")
        present = {name.replace(PRESENT, PAST): values for name, values in found.items()}
        width = int(after.max())
        kept = [_Kept(present, row, width - int(length), int(length)) for row, length in enumerate(after)]
        self._rows[first : first + rows] = kept
        return logits

    def _past(self, kept: Sequence[_Kept], lengths: Sequence[int]) -> Mapping[str, Floats]:
        """The first tokens of these rows, side by side."""
        arrays, places = kept[0].arrays, list(enumerate(lengths))
        are_all = len(kept) == len(next(iter(arrays.values())))
        if are_all and all(one.arrays is arrays and one.is_at(*at) for one, at in zip(kept, places, strict=True)):
            return arrays
        longest, past = max(lengths), {}
        for name, empty in self._empty.arrays.items():
            past[name] = np.zeros((len(kept), empty.shape[1], longest, empty.shape[3]), dtype=np.float32)
            for one, (row, length) in zip(kept, places, strict=True):
                part = one.arrays[name][one.row, :, one.start : one.start + length]
                past[name][row, :, longest - length :] = part
        return past

    def copy(self, source: int, target: int, length: int) -> None:
        self._rows[target] = self._rows[source]._replace(length=length)

    def free(self, row: int) -> None:
        self._rows[row] = self._empty


def bytes_per_row(release: Writer | Bundle) -> int:
    """The most memory of one row.

    A cache that is given back longer is there three times while a call runs whose rows have joined or left: as the call
    before gave it back, laid out anew, and as the graph gives it back. A bundle's graph holds one more.
    """
    appended = 4 if isinstance(release, Bundle) else 3
    times = appended if release.card.cache == "appended" else 1
    return times * bytes_per_token(release.session) * release.card.max_length


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
