"""Adapters as inputs of one graph: their weights side by side, and which of them each row of a batch takes."""

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
ROWS, COLUMNS = "adapter", "columns"
"""The graph's inputs that choose. `adapter` is the number of each row's adapter, int64 [rows]; a batch of one adapter
has it once. `columns` is 1 where a rank is of the row's adapter, else 0: float32 [rows, 1, ranks]."""
LORA, FULL = "lora.", "full."
"""What the names of weights begin with: of thin matrices beside a layer, and of layers that were trained in full.

`lora.LAYER.a` is [in, ranks] and `lora.LAYER.b` [ranks, out], with the scale in it: adapters lie side by side, so that
two plain products serve all rows, and a row's columns of others are 0 between the two. `full.LAYER.weight` is as the
graph multiplies with it, [adapters, in, out], and gathered by row."""
_MOST_STACKS = 8
"""How many sets of adapters that have met in a batch are remembered side by side."""


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
    """Adapters side by side: what a batch with rows of them is given."""

    weights: Mapping[str, ort.OrtValue]
    numbers: Mapping[AdaptedSession, int]
    columns: Mapping[AdaptedSession, Floats]
    """[1, ranks of all]"""


class AdapterGraph:
    """A graph whose weights of adapters are inputs. Safe to share between threads, also while adapters come and go."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session
        given = session.get_inputs()
        self._wanted = {value.name: value.shape for value in given if value.name.startswith((LORA, FULL))}
        self.inputs = [value for value in given if value.name not in (*self._wanted, ROWS, COLUMNS)]
        """Those that a plain graph of the model has."""
        self.outputs = session.get_outputs()
        self._names = [value.name for value in self.outputs]
        self._choosing = {value.name for value in given} & {ROWS, COLUMNS}
        self._stacks: dict[frozenset[AdaptedSession], _Stack] = {}
        self._changing = threading.Lock()

    def add(self, adapter: Adapter) -> AdaptedSession:
        """Load an adapter. Raises `ReleaseError` with every weight that does not fit this graph."""
        return AdaptedSession(self, self._completed(adapter))

    def remove(self, adapted: AdaptedSession) -> None:
        """Forget an adapter; who still holds its session may still use it."""
        with self._changing:
            adapted.is_forgotten = True
            self._stacks = {several: stack for several, stack in self._stacks.items() if adapted not in several}

    def run(
        self, feed: Mapping[str, npt.NDArray[Any]], rows: Sequence[AdaptedSession], outputs: Sequence[str] = ()
    ) -> list[Any]:
        """The `outputs` (left out: all) for a batch, whose row i is answered by the adapter of `rows[i]`."""
        values = {**self.given(rows), **{name: _as_value(array) for name, array in feed.items()}}
        return [value.numpy() for value in self.session.run_with_ort_values(list(outputs) or self._names, values)]

    def given(self, rows: Sequence[AdaptedSession]) -> dict[str, ort.OrtValue]:
        """The inputs that rows of these adapters need. A batch pays only for the adapters that it has."""
        stack = self._stack_of(rows)
        numbers = [0] if len(stack.numbers) == 1 else [stack.numbers[adapted] for adapted in rows]
        chosen: dict[str, npt.NDArray[Any]] = {
            ROWS: np.array(numbers, dtype=np.int64), COLUMNS: np.stack([stack.columns[adapted] for adapted in rows]),
        }  # fmt: skip
        return {**stack.weights, **{name: _as_value(chosen[name]) for name in self._choosing}}

    def _stack_of(self, rows: Sequence[AdaptedSession]) -> _Stack:
        several = frozenset(rows)
        if len(several) == 1:
            return rows[0].own
        if (known := self._stacks.get(several)) is not None:
            return known
        stack = self.side_by_side(list(dict.fromkeys(rows)))
        with self._changing:
            if any(adapted.is_forgotten for adapted in several):
                return stack
            self._stacks = dict([*self._stacks.items(), (several, stack)][-_MOST_STACKS:])
        return stack

    def side_by_side(self, several: Sequence[AdaptedSession]) -> _Stack:
        """What batches with rows of all these adapters are given."""
        held = [adapted.adapter.weights for adapted in several]
        weights = {name: _as_value(_joined(name, [each[name] for each in held])) for name in self._wanted}
        ends = np.cumsum([adapted.rank for adapted in several])
        places = np.arange(ends[-1])
        columns = {
            adapted: ((places >= end - adapted.rank) & (places < end)).astype(np.float32)[None]
            for adapted, end in zip(several, ends, strict=True)
        }
        return _Stack(weights, {adapted: number for number, adapted in enumerate(several)}, columns)

    def _completed(self, adapter: Adapter) -> Adapter:
        """The adapter with one rank for all layers, and zeros for layers that it left alone.

        Raises `ReleaseError` for one that does not fit.
        """
        unknown = sorted(adapter.weights.keys() - self._wanted)
        problems = [f"it has {name}, which the graph does not know" for name in unknown]
        weights = {}
        for name, shape in self._wanted.items():
            known = [size if isinstance(size, int) else None for size in shape[name.startswith(FULL) :]]
            found = adapter.weights.get(name)
            if found is None and name.startswith(LORA):
                found = np.zeros([size or 0 for size in known], dtype=np.float32)
            if found is None:
                problems.append(f"it lacks {name}")
            elif not _fits(found.shape, known):
                problems.append(f"{name} is of shape {list(found.shape)}; expected {known}")
            else:
                weights[name] = found
        if problems:
            more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise ReleaseError(f"the adapter is not of this base: {'; '.join(sorted(problems)[:10])}{more}")
        rank = max([1, *(_rank(name, part) for name, part in weights.items() if name.startswith(LORA))])
        return Adapter(adapter.card, {name: _of_rank(name, part, rank) for name, part in weights.items()})


class AdaptedSession:
    """One adapter's view of the graph, with what the runtime asks of a session of onnxruntime."""

    def __init__(self, graph: AdapterGraph, adapter: Adapter) -> None:
        self.graph = graph
        self.adapter = adapter
        self.rank = max([1, *(_rank(name, part) for name, part in adapter.weights.items() if name.startswith(LORA))])
        self.is_forgotten = False
        """Then its last rows leave nothing behind."""
        self.own = graph.side_by_side([self])
        self._alone = graph.given([self])  # kept: a binding does not keep what it binds

    def get_inputs(self) -> list[Any]:
        """The inputs of a plain graph."""
        return list(self.graph.inputs)

    def get_outputs(self) -> list[Any]:
        """The outputs of a plain graph."""
        return list(self.graph.outputs)

    def run(self, names: Sequence[str] | None, feed: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        """The outputs for a batch that this adapter answers."""
        return self.graph.run(feed, [self] * len(feed["input_ids"]), names or ())

    def io_binding(self) -> Any:
        """A binding for one row, in which the adapter's weights are bound already."""
        binding = self.graph.session.io_binding()
        for name, value in self._alone.items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def run_with_iobinding(self, binding: Any) -> None:
        """Run what is bound."""
        self.graph.session.run_with_iobinding(binding)


def _fits(found: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(found) == len(wanted) and all(w is None or f == w for f, w in zip(found, wanted, strict=True))


def _rank(name: str, part: Floats) -> int:
    """The rank of a thin matrix: `a` is [in, rank], `b` is [rank, out]."""
    return int(part.shape[1 if name.endswith(".a") else 0])


def _of_rank(name: str, part: Floats, rank: int) -> Floats:
    """A thin matrix with zeros up to a rank; what was trained in full stays."""
    if not name.startswith(LORA):
        return part
    more = rank - _rank(name, part)
    return np.pad(part, [(0, 0), (0, more)] if name.endswith(".a") else [(0, more), (0, 0)])


def _joined(name: str, parts: Sequence[Floats]) -> Floats:
    """Thin matrices side by side; what was trained in full stacked, with zeros where another has more labels."""
    if name.startswith(LORA):
        return np.concatenate(parts, axis=1 if name.endswith(".a") else 0)
    stack = np.zeros((len(parts), *np.max([part.shape for part in parts], axis=0)), dtype=np.float32)
    for place, part in zip(stack, parts, strict=True):
        place[tuple(slice(size) for size in part.shape)] = part
    return stack


def _as_value(array: npt.NDArray[Any]) -> ort.OrtValue:
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_numpy(array)
