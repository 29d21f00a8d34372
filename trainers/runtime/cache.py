"""The cache of a model that writes: keys and values of what it has read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .scores import Floats

if TYPE_CHECKING:
    import onnxruntime as ort

PAST, PRESENT = "past_key_values.", "present."
"""What the names of the cache's inputs and outputs begin with."""
# The logits of a chunk are the largest array of a chat model: 256 x 49,152 float32 are 50 MB.
_TOKENS_PER_CHUNK = 256


class Cache:
    """Keys and values of one sequence. Past and present are bound to the same buffers, sized for the whole sequence, so
    that the attention operator writes in place; a growing cache would be copied for every token."""

    def __init__(self, session: ort.InferenceSession, capacity: int) -> None:
        import onnxruntime as ort

        self._session = session
        self._length = 0
        self._binding = session.io_binding()
        self._wants = {value.name for value in session.get_inputs()}
        self._binding.bind_output("logits", "cpu")  # bound first: `get_outputs` keeps this order
        for value in session.get_inputs():
            if value.name.startswith(PAST):
                shape = (1, value.shape[1], capacity, value.shape[3])
                buffer = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype=np.float32))
                self._binding.bind_ortvalue_input(value.name, buffer)
                self._binding.bind_ortvalue_output(value.name.replace(PAST, PRESENT), buffer)

    def feed(self, ids: Sequence[int]) -> Iterator[Floats]:
        """Append tokens and yield their logits in chunks, each float32 [tokens, vocabulary]."""
        for start in range(0, len(ids), _TOKENS_PER_CHUNK):
            chunk = np.asarray([ids[start : start + _TOKENS_PER_CHUNK]], dtype=np.int64)
            length = self._length + chunk.shape[1]
            feed = {
                "input_ids": chunk,
                "attention_mask": np.ones((1, length), dtype=np.int64),
                "position_ids": np.arange(self._length, length, dtype=np.int64)[None],
            }
            for name in feed.keys() & self._wants:
                self._binding.bind_cpu_input(name, feed[name])
            self._binding.bind_output("logits", "cpu")
            self._session.run_with_iobinding(self._binding)
            self._length = length
            yield self._binding.get_outputs()[0].numpy()[0]
