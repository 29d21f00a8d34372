"""Adapters as inputs of one graph: their weights stacked, and for each row of a batch the number of its own."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .card import Card, ReleaseError
from .scores import Floats

if TYPE_CHECKING:
    import onnxruntime as ort

WEIGHTS = "adapter.npz"
ROWS = "adapter"
"""The graph's input with the number of each row's adapter, int64 [rows]. A batch of one adapter has it once."""
LORA, FULL = "lora.", "full."
"""What the names of weights begin with: of thin products beside a layer, and of layers that were trained in full.

`lora.LAYER.a` is [in, rank] and `lora.LAYER.b` [rank, out], with the scale in it; `full.LAYER.weight` is as the graph
multiplies with it, [in, out]. The graph's inputs of these names have one more axis in front: the adapters."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """What one sweep has learned, for a graph that many of them share. Equal by content, never by name."""

    card: Card
    weights: Mapping[str, Floats] = field(repr=False)

    @property
    def key(self) -> str:
        """The hash of what it holds."""
        return self.card.adapter_hash

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """Read the folder of an adapter. Raises `ReleaseError` where it is missing, damaged, or has another content."""
        card = Card.read(folder)
        path = folder / WEIGHTS
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != card.adapter_hash:
                raise ReleaseError(f"{path} is not what release.json names: its hash differs; bundle it again")
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                weights = {name: np.ascontiguousarray(found[name], dtype=np.float32) for name in found.files}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ReleaseError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        return cls(card, weights)


class _Stack(NamedTuple):
    """All adapters that are loaded, replaced as a whole."""

    numbers: Mapping[AdaptedSession, int]
    """The place of each in the stack."""
    values: Mapping[str, ort.OrtValue]


class AdapterGraph:
    """A graph whose weights of adapters are inputs. Safe to share between threads, also while adapters come and go."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session
        self.inputs = [value for value in session.get_inputs() if not _is_weight(value.name) and value.name != ROWS]
        """Those that a plain graph of the model has."""
        self.outputs = session.get_outputs()
        self._wanted = {value.name: value.shape[1:] for value in session.get_inputs() if _is_weight(value.name)}
        self._names = [value.name for value in self.outputs]
        self._changing = threading.Lock()
        self._stack = _Stack({}, {})

    def add(self, adapter: Adapter) -> AdaptedSession:
        """Load an adapter. Raises `ReleaseError` with every weight that does not fit this graph."""
        added = AdaptedSession(self, self._completed(adapter))
        with self._changing:
            self._restack([*self._stack.numbers, added])
        return added

    def remove(self, adapted: AdaptedSession) -> None:
        """Forget an adapter; who still holds its session may still use it."""
        with self._changing:
            self._restack([other for other in self._stack.numbers if other is not adapted])

    def _restack(self, loaded: Sequence[AdaptedSession]) -> None:
        self._stack = _Stack({adapted: number for number, adapted in enumerate(loaded)}, self.stacked(loaded))

    def stacked(self, several: Sequence[AdaptedSession]) -> dict[str, ort.OrtValue]:
        """Each weight of all of them, float32 [adapters, ...]; what differs in size (ranks, labels) is padded with 0.

        A single adapter is not stacked: it is always taken alone.
        """
        return _stacked([adapted.adapter for adapted in several], self._wanted) if len(several) > 1 else {}

    def alone(self, adapter: Adapter) -> dict[str, ort.OrtValue]:
        """The inputs of a batch that one adapter answers."""
        return {**_stacked([adapter], self._wanted), ROWS: _as_value(np.zeros(1, dtype=np.int64))}

    def run(
        self, feed: Mapping[str, npt.NDArray[Any]], rows: Sequence[AdaptedSession], outputs: Sequence[str] = ()
    ) -> list[Any]:
        """The `outputs` (left out: all) for a batch, whose row i is answered by the adapter of `rows[i]`."""
        values = {**self._given(rows), **{name: _as_value(array) for name, array in feed.items()}}
        return [value.numpy() for value in self.session.run_with_ort_values(list(outputs) or self._names, values)]

    def _given(self, rows: Sequence[AdaptedSession]) -> dict[str, ort.OrtValue]:
        several = list(dict.fromkeys(rows))
        if len(several) == 1:
            return several[0].alone
        stack = self._stack
        if not stack.numbers.keys() >= set(several):  # one was removed after its row had come
            stack = _Stack({adapted: number for number, adapted in enumerate(several)}, self.stacked(several))
        numbers = np.array([stack.numbers[adapted] for adapted in rows], dtype=np.int64)
        return {**stack.values, ROWS: _as_value(numbers)}

    def _completed(self, adapter: Adapter) -> Adapter:
        """The adapter with zeros for layers that it left alone. Raises `ReleaseError` for one that does not fit."""
        problems = [f"it has {name}, which the graph does not know" for name in adapter.weights.keys() - self._wanted]
        weights = dict(adapter.weights)
        for name, shape in self._wanted.items():
            known = [size if isinstance(size, int) else None for size in shape]
            if name not in weights and name.startswith(LORA):
                weights[name] = np.zeros([size or 1 for size in known], dtype=np.float32)
            elif name not in weights:
                problems.append(f"it lacks {name}")
            elif not _fits(weights[name].shape, known):
                problems.append(f"{name} is of shape {list(weights[name].shape)}; expected {shape}")
        if problems:
            more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise ReleaseError(f"the adapter is not of this base: {'; '.join(sorted(problems)[:10])}{more}")
        return Adapter(adapter.card, weights)


class AdaptedSession:
    """One adapter's view of the graph, with what the runtime asks of a session of onnxruntime."""

    def __init__(self, graph: AdapterGraph, adapter: Adapter) -> None:
        self.graph = graph
        self.adapter = adapter
        self.alone = graph.alone(adapter)

    def get_inputs(self) -> list[Any]:
        """The inputs of a plain graph."""
        return list(self.graph.inputs)

    def get_outputs(self) -> list[Any]:
        """The outputs of a plain graph."""
        return list(self.graph.outputs)

    def run(self, names: Sequence[str] | None, feed: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        """The outputs for a batch that this adapter answers."""
        return self.graph.run(feed, [self], names or ())

    def io_binding(self) -> Any:
        """A binding in which the adapter's weights are bound already."""
        binding = self.graph.session.io_binding()
        for name, value in self.alone.items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def run_with_iobinding(self, binding: Any) -> None:
        """Run what is bound."""
        self.graph.session.run_with_iobinding(binding)


def _is_weight(name: str) -> bool:
    return name.startswith((LORA, FULL))


def _fits(found: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(found) == len(wanted) and all(w is None or f == w for f, w in zip(found, wanted, strict=True))


def _stacked(adapters: Sequence[Adapter], names: Mapping[str, Any]) -> dict[str, ort.OrtValue]:
    """See `AdapterGraph.stacked`."""
    found = {}
    for name in names:
        parts = [adapter.weights[name] for adapter in adapters]
        stack = np.zeros((len(parts), *np.max([part.shape for part in parts], axis=0)), dtype=np.float32)
        for place, part in zip(stack, parts, strict=True):
            place[tuple(slice(size) for size in part.shape)] = part
        found[name] = _as_value(stack)
    return found


def _as_value(array: npt.NDArray[Any]) -> ort.OrtValue:
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_numpy(array)
