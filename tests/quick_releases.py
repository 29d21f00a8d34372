"""Releases in a fraction of their time: each graph traced once, and where one variant is enough, one."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import answered_here
from trainers.protocol.variants import READING

EXPORTING = [
    pytest.mark.timeout(900),  # models are exported: a busy machine needs its time
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning"),
]
"""Marks of tests that release models."""


@contextmanager
def traced_once(folder: Path, *tracers: Any) -> Iterator[None]:
    """What modules of `trainers.export` trace inside the block is kept in `folder` and copied where they have it again.

    Equal weights have an equal graph, and tracing takes ten seconds. Whether the graph answers as torch does is
    looked at each time, as always.
    """
    from trainers.export.tracing import trace

    def traced(module: Any, inputs: Any, axes: Any, path: Path) -> None:
        made_once(folder, module, repr(_shapes(inputs)), path, lambda: trace(module, inputs, axes, path))

    with operators_read_once(), pytest.MonkeyPatch.context() as patch:
        for tracer in tracers:
            patch.setattr(tracer, "trace", traced)
        yield


def _shapes(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The names of inputs, also of those within others, and their sizes."""
    return {
        name: _shapes(given) if isinstance(given, Mapping) else list(given.shape)
        for name, given in sorted(inputs.items())
    }


@contextmanager
def operators_read_once() -> Iterator[None]:
    """How torch's operators are written in ONNX: torch reads the source of 500 functions again for each trace."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = ONNXRegistry.from_torchlib

    def registry(opset_version: int) -> ONNXRegistry:
        if opset_version not in _REGISTRIES:
            _REGISTRIES[opset_version] = read(opset_version)
        known = copy.copy(_REGISTRIES[opset_version])
        known.functions = {operator: list(ways) for operator, ways in known.functions.items()}  # who traces adds some
        return known

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(registry))
        yield


_REGISTRIES: dict[int, Any] = {}


def made_once(folder: Path, module: Any, how: str, path: Path, make: Callable[[], object]) -> None:
    """Let `make` write the graph of a module to `path`, or copy it where `folder` has one of equal weights."""
    weights = hashlib.sha256(f"{type(module).__name__} {how} {module.config}".encode())
    for name, tensor in module.state_dict().items():
        weights.update(name.encode() + tensor.numpy().tobytes())
    kept = folder / weights.hexdigest()
    if kept.exists():
        copy_graph(kept / path.name, path.parent)
        return
    make()
    scratch = kept.with_suffix(f".{os.getpid()}")
    copy_graph(path, scratch)
    with contextlib.suppress(OSError):  # another process has just kept it
        scratch.rename(kept)


def copy_graph(path: Path, folder: Path) -> None:
    """A graph and the file of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder)


@contextmanager
def quick_releases(folder: Path) -> Iterator[None]:
    """What promotes a classifier inside the block takes no trial host and makes fp32 alone; `folder` keeps graphs."""
    from trainers.export import encoder

    with answered_here(), traced_once(folder, encoder), pytest.MonkeyPatch.context() as patch:
        patch.setitem(READING, "cpu", ("fp32",))
        yield
