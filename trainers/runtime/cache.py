"""The cache of a model that writes: keys and values of what it has read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .scores import Floats

if TYPE_CHECKING:
    import onnxruntime as ort

PAST, PRESENT = "past_key_values.", "present."
"""What the names of the cache's inputs and outputs begin with."""
# The logits of a chunk are the largest array of a chat model: 256 x 49,152 float32 are 50 MB.
_TOKENS_PER_CHUNK = 256


class Cache(ABC):
    """Keys and values of one sequence, or of several of one length, for a graph that wants them."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._length = 0
        self._wants = {value.name for value in session.get_inputs()}

    def feed(self, ids: Sequence[int]) -> Iterator[Floats]:
        """Append tokens and yield their logits in chunks, each float32 [tokens, vocabulary]."""
        for start in range(0, len(ids), _TOKENS_PER_CHUNK):
            yield self.extend(np.asarray([ids[start : start + _TOKENS_PER_CHUNK]], dtype=np.int64))[0]

    def extend(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Append tokens, int64 [rows, tokens]; their logits, float32 [rows, tokens, vocabulary]."""
        rows, tokens = ids.shape
        length = self._length + tokens
        given = {
            "input_ids": ids,
            "attention_mask": np.ones((rows, length), dtype=np.int64),
            "position_ids": np.tile(np.arange(self._length, length, dtype=np.int64), (rows, 1)),
        }
        logits = self._run({name: given[name] for name in given.keys() & self._wants})
        self._length = length
        return logits

    @abstractmethod
    def _run(self, given: Mapping[str, np.ndarray[Any, Any]]) -> Floats:
        """Read the given tokens too; their logits, float32 [rows, tokens, vocabulary]."""


class InPlaceCache(Cache):
    """Past and present are bound to the same buffers, sized for the whole sequence, so that the attention operator
    writes in place; a growing cache would be copied for every token."""

    def __init__(self, session: ort.InferenceSession, capacity: int) -> None:
        import onnxruntime as ort

        super().__init__(session)
        self._binding = session.io_binding()
        self._binding.bind_output("logits", "cpu")  # bound first: `get_outputs` keeps this order
        for value in session.get_inputs():
            if value.name.startswith(PAST):
                shape = (1, value.shape[1], capacity, value.shape[3])
                buffer = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype=np.float32))
                self._binding.bind_ortvalue_input(value.name, buffer)
                self._binding.bind_ortvalue_output(value.name.replace(PAST, PRESENT), buffer)

    def _run(self, given: Mapping[str, np.ndarray[Any, Any]]) -> Floats:
        for name, values in given.items():
            self._binding.bind_cpu_input(name, values)
        self._binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(self._binding)
        logits: Floats = self._binding.get_outputs()[0].numpy()
        return logits


class AppendedCache(Cache):
    """The graph gives back past and present as one longer array, which becomes the next past without another copy.

    `fixed` are inputs that stay the same for every token, such as what an encoder has made of a text; with several
    `rows`, each row has them.
    """

    def __init__(
        self, session: ort.InferenceSession, fixed: Mapping[str, ort.OrtValue] | None = None, rows: int = 1
    ) -> None:
        import onnxruntime as ort

        super().__init__(session)
        self._kept = dict(fixed or {})
        if rows > 1:
            of_all = np.zeros(rows, dtype=np.int64)
            self._kept = {name: _rows_of(value, of_all) for name, value in self._kept.items()}
        for value in session.get_inputs():
            if value.name.startswith(PAST):
                empty = np.zeros((rows, value.shape[1], 0, value.shape[3]), dtype=np.float32)
                self._kept[value.name] = ort.OrtValue.ortvalue_from_numpy(empty)
        self._outputs = [value.name for value in session.get_outputs()]

    def follow(self, parents: npt.NDArray[np.int64]) -> None:
        """Let row i go on from what row `parents[i]` has read; the rows' fixed inputs are the same."""
        if (parents == np.arange(len(parents))).all():
            return
        for name in self._kept:
            if name.startswith(PAST):
                self._kept[name] = _rows_of(self._kept[name], parents)

    def _run(self, given: Mapping[str, np.ndarray[Any, Any]]) -> Floats:
        binding = self._session.io_binding()
        for name, values in given.items():
            binding.bind_cpu_input(name, values)
        for name, kept in self._kept.items():
            binding.bind_ortvalue_input(name, kept)
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        found = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        logits: Floats = found.pop("logits").numpy()
        self._kept |= {name.replace(PRESENT, PAST): value for name, value in found.items()}
        return logits


def _rows_of(value: ort.OrtValue, rows: npt.NDArray[np.int64]) -> ort.OrtValue:
    """These rows of an array, copied."""
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_numpy(value.numpy()[rows])
