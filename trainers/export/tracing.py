"""Traces a module into an ONNX graph, whose inputs and outputs are named as the module names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from transformers.exporters import OnnxConfig, OnnxExporter

from trainers.export.norms import split_norms
from trainers.export.quiet import quiet

DYNAMIC = torch.export.Dim.AUTO
"""An axis whose size is found out while tracing: dynamic unless the module needs that one size."""


def trace(
    module: torch.nn.Module,
    inputs: Mapping[str, Any],
    axes: Mapping[str, Any] | None,
    path: Path,
) -> None:
    """Write `module` as the graph at `path`, with its weights in a file beside it.

    `module` has a `config`, takes `inputs` by name and gives tensors by name. A mapping of tensors within one becomes
    several inputs or outputs, with dots in their names. `axes` are the dynamic ones of each input; None for all of
    them. Raises whatever the module's own code raises while it is traced.
    """
    config = OnnxConfig(dynamic=True, dynamic_shapes=axes, ort_fusions="cpu")
    with quiet():
        program = OnnxExporter().export(module, dict(inputs), config).program
        # Paths of this machine's source files are useless to the users of the graph.
        ClearMetadataAndDocStringPass()(program)
        split_norms(program.graph)
        path.parent.mkdir(parents=True, exist_ok=True)
        OnnxExporter.save_program(program, path)


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
