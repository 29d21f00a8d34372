"""The graph of a decoder-only language model by onnxruntime-genai's model builder, in fp32.

Its attention operator writes the cache in place, and its graph is smaller and faster than a traced one; but it knows a
fixed list of architectures, and only their plain weights: see `release_routes.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx

from trainers.export.quiet import quiet
from trainers.export.release import GRAPH, WEIGHTS, ExportError

# The builder's own script, which also ends when the process that waits for it ends.
_BUILDER = """
import runpy, sys
from trainers.host.child import die_only_with
die_only_with(int(sys.argv.pop(1)))
runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
"""


def build(model: Any, tokenizer: Any, out_dir: Path) -> None:
    """Write `out_dir/model.onnx` and its weights. Raises `ExportError` with the builder's own words.

    The builder is a script that changes sys.path and prints, so it runs in a separate process, without network, on a
    saved copy of the model.
    """
    with tempfile.TemporaryDirectory(dir=out_dir.resolve()) as name:
        scratch = Path(name)
        with quiet():
            model.save_pretrained(scratch / "model")
            tokenizer.save_pretrained(scratch / "model")
        command = [
            sys.executable, "-P", "-c", _BUILDER, str(os.getpid()),
            "-i", str(scratch / "model"), "-o", str(scratch / "built"), "-c", str(scratch / "cache"),
            "-p", "fp32", "-e", "cpu", "--extra_options", "hf_token=false", "windowed_kv_cache=false",
        ]  # fmt: skip
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            command, cwd=scratch, env=offline, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise ExportError(f"{type(model).__name__} could not be exported: {_reason(done)}")
        graph = onnx.load(scratch / "built" / GRAPH, load_external_data=False)
        _complete(graph, model.config)
        (scratch / "built" / WEIGHTS).replace(out_dir / WEIGHTS)
        onnx.save(graph, out_dir / GRAPH)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The line of the traceback that names the exception, or the last line, or the exit code."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (named or lines or [f"its process ended with exit code {done.returncode}"])[-1]


def _complete(graph: onnx.ModelProto, config: Any) -> None:
    """Add what the builder leaves out: the size of a head, which the runtime needs to allocate the cache, and the
    window of models whose layers all have the same one (the builder reads it only with `layer_types`)."""
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for value in (*graph.graph.input, *graph.graph.output):
        if value.name.startswith(("past_key_values.", "present.")):
            value.type.tensor_type.shape.dim[3].dim_value = head_size
    window = getattr(config, "sliding_window", None)
    if window and not getattr(config, "layer_types", None):
        for node in graph.graph.node:
            for attribute in node.attribute:
                if attribute.name == "local_window_size":
                    attribute.i = window
