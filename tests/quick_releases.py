"""Releases in a fraction of their time: each graph traced once, and where one variant is enough, one."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
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
def traced_once(folder: Path, tracer: Any) -> Iterator[None]:
    """What a module of `trainers.export` traces inside the block is kept in `folder` and copied where it has it again.

    Equal weights have an equal graph, and tracing takes ten seconds. Whether the graph answers as torch does is
    looked at each time, as always.
    """
    trace = tracer.trace

    def traced(module: Any, inputs: Any, axes: Any, path: Path) -> None:
        made_once(folder, module, str(sorted(inputs)), path, lambda: trace(module, inputs, axes, path))

    from onnxscript._framework_apis import torch_2_11 as given_to_torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracer, "trace", traced)
        patch.setattr(given_to_torch, "get_torchlib_ops", _operators)
        yield


@functools.cache
def _operators() -> list[Any]:
    """How torch's operators are written in ONNX: torch reads the source of 500 functions again for each trace."""
    from onnxscript._framework_apis.torch_2_5 import get_torchlib_ops

    ops: list[Any] = get_torchlib_ops()
    return ops


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
