"""Exports decoder-only language models to ONNX in fp32, and makes int8 and int4 from it.

Two tools give a graph with a KV cache; measured on SmolLM2-135M-Instruct (2 threads, 100 tokens of prompt):

    tool                                   seconds  peak GB  MB   max logit diff  prefill ms  tokens/s
    torch, fp32                                              538                              19
    transformers.exporters                 78       1.5      539  1.1e-4          150         48
    onnxruntime_genai's model builder      12       1.2      540  1.5e-4          85          82    <- chosen

Both run in plain onnxruntime and give logits at all positions. The builder is six times faster and supports batches.
Its graph is smaller, and its attention operator writes the cache in place; the other graph passes an attention bias,
which prevents that. The builder supports a fixed list of architectures: see `release_routes.py`.

The quantized variants are made here from the builder's fp32 graph, for three reasons: its own int8 leaves the embedding
in fp32, its asymmetric int4 graph does not load, and one build then serves three variants. Perplexity of 40 chats
(6,854 target tokens), MatMulNBits in blocks of 32, symmetric, accuracy level 4 (activations in int8):

    variant                                                         MB   perplexity
    fp32                                                            540  48.38
    builder's int8 (embedding fp32)                                 267  48.78
      the same, activations in fp32 (20 times slower)               267  48.54
    int8 all, embedding shared with the head                        154  48.73   <- int8
    builder's int4                                                   86  60.84
    builder's int4, k-quant                                          89  62.06
    int4, head and embedding int8                                   101  55.93
      the same, asymmetric                                          102  58.49
      the same, blocks of 16                                        114  55.07
      also int8: attention's                                        114  53.40
      also int8: qkv and down projections of 3/8 of the layers      111  50.75   <- int4
      also int8: attention and down projections                     127  50.27

On a CPU with 8-bit dot products int4 is smaller than int8, but not faster (both 150 tokens/s).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    DefaultWeightOnlyQuantizer,
    MatMulNBitsQuantizer,
)

from trainers.export.quiet import quiet
from trainers.export.release import GRAPH, WEIGHTS, ExportError
from trainers.prepare.release_routes import WRITING

DecoderVariant = Literal["fp32", "int8", "int4"]

_BLOCK = 32
# The builder's own script, which also ends when the process that waits for it ends.
_BUILDER = """
import runpy, sys
from trainers.host.host import die_with_parent
die_with_parent(int(sys.argv.pop(1)))
runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
"""
_LAYER = re.compile(r"/layers\.(\d+)/")


def export_decoder(
    model: Any, tokenizer: Any, out_dir: Path, variant: DecoderVariant, fp32_dir: Path | None = None
) -> None:
    """Write a causal language model as `out_dir/model.onnx` and `model.onnx.data`.

    The inputs are int64 `input_ids` and `attention_mask`, and the cache; the outputs are `logits`, float32 [batch,
    tokens, vocabulary] at all positions, and the cache. `model` is a transformers model in float32. `fp32_dir` may hold
    an fp32 export of the same model, from which int8 and int4 are then made. Raises `ExportError`; for an architecture
    that cannot be exported it does so before anything is written.
    """
    if variant not in ("fp32", "int8", "int4"):
        raise ExportError(f"unknown variant {variant!r} of a generative model; expected fp32, int8 or int4")
    check_architecture(type(model).__name__)
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        if variant == "fp32":
            _build(model, tokenizer, out_dir)
        elif fp32_dir is not None and (fp32_dir / GRAPH).is_file():
            _quantize(fp32_dir, out_dir, variant)
        else:
            with tempfile.TemporaryDirectory(dir=out_dir) as scratch:
                _build(model, tokenizer, Path(scratch))
                _quantize(Path(scratch), out_dir, variant)
    except ExportError:
        raise
    except Exception as error:  # saving, protobuf and the quantizer each raise their own errors
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ExportError(f"{type(model).__name__} could not be exported as {variant}: {reason}") from error


def check_architecture(architecture: str) -> None:
    """Raise `ExportError` for an architecture, named as in `config.json`, that has no ONNX export."""
    if architecture not in WRITING:
        known = ", ".join(sorted(WRITING))
        raise ExportError(f"{architecture} has no ONNX export with a KV cache; these have one: {known}")


# --- fp32: the builder ---------------------------------------------------------------------------------


def _build(model: Any, tokenizer: Any, out_dir: Path) -> None:
    """Run the builder on a saved copy of the model. It is a script that changes sys.path and prints, so it runs in a
    separate process, without network."""
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


# --- int8 and int4: weights in blocks ------------------------------------------------------------------


def _quantize(fp32_dir: Path, out_dir: Path, variant: DecoderVariant) -> None:
    model = onnx.load(fp32_dir / GRAPH)
    weights = {tensor.name for tensor in model.graph.initializer}
    products = [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    layers = 1 + max((int(found[1]) for name in products if (found := _LAYER.search(name))), default=0)
    eight = [name for name in products if variant == "int8" or _is_sensitive(name, layers)]
    four = set(products) - set(eight)
    with quiet():
        if four:
            model = _quantized(model, 4, leave=eight)
        model = _quantized(model, 8, leave=[])
        _quantize_embedding(model)
    for name in (GRAPH, WEIGHTS):
        (out_dir / name).unlink(missing_ok=True)  # onnx appends to an existing weights file
    onnx.save(model, out_dir / GRAPH, save_as_external_data=True, location=WEIGHTS)
    (out_dir / WEIGHTS).chmod((out_dir / GRAPH).stat().st_mode)  # onnx makes the weights readable by their owner only


def _is_sensitive(name: str, layers: int) -> bool:
    """Whether a product loses much precision in 4 bits: the head, and the value and down projections of the first and
    last eighth of the layers and every third between (llama.cpp's rule for mixed k-quants, `use_more_bits`)."""
    found = _LAYER.search(name)
    if found is None:
        return True
    layer = int(found[1])
    more_bits = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    return more_bits and any(part in name for part in ("qkv_proj", "v_proj", "down_proj"))


def _quantized(model: onnx.ModelProto, bits: int, leave: list[str]) -> onnx.ModelProto:
    """Quantize all products that are still in fp32, except `leave` (the quantizer's `nodes_to_include` adds to the
    operator types, so it selects nothing)."""
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=bits,
        block_size=_BLOCK,
        is_symmetric=True,
        accuracy_level=4,
        nodes_to_exclude=leave,
        quant_format=QuantFormat.QOperator,
        op_types_to_quantize=("MatMul",),
    )
    quantizer.process()
    return quantizer.model.model


def _quantize_embedding(model: onnx.ModelProto) -> None:
    """Look tokens up in 8-bit weights: the head's where the two are tied, else the embedding's own."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    lookup = next(n for n in graph.node if n.op_type == "Gather" and n.input[1] == "input_ids")
    turned = producers.get(lookup.input[0])  # tied: the head's [hidden, vocabulary], transposed
    name = lookup.input[0] if turned is None else turned.input[0]
    vocabulary_first = turned is None
    if tensors[name].dims[1 if vocabulary_first else 0] % _BLOCK:
        return  # the operator supports whole blocks only
    if vocabulary_first or f"{name}_Q8" not in tensors:
        weights = onnx.numpy_helper.to_array(tensors[name])
        config = DefaultWeightOnlyQuantConfig(block_size=_BLOCK, is_symmetric=True, bits=8)
        columns = np.ascontiguousarray(weights.T) if vocabulary_first else weights
        packed, scales, _ = DefaultWeightOnlyQuantizer(config).qbits_block_quant(columns)
        graph.initializer.extend(
            [onnx.numpy_helper.from_array(packed, f"{name}_Q8"), onnx.numpy_helper.from_array(scales, f"{name}_scales")]
        )
        tensors = {tensor.name: tensor for tensor in graph.initializer}
    vocabulary, blocks, _ = tensors[f"{name}_Q8"].dims
    shape = onnx.numpy_helper.from_array(np.array([vocabulary, blocks * _BLOCK]), "embedding_shape")
    flat = onnx.helper.make_node("Reshape", [f"{name}_Q8", shape.name], ["embedding_flat"], "embedding_reshape")
    gather = onnx.helper.make_node(
        "GatherBlockQuantized",
        ["embedding_flat", "input_ids", f"{name}_scales"],
        [lookup.output[0]],
        lookup.name,
        domain="com.microsoft",
        bits=8,
        block_size=_BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )
    graph.initializer.append(shape)
    nodes = [flat, gather, *(n for n in graph.node if n is not lookup and n is not turned)]
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused_weights(graph)


def _drop_unused_weights(graph: onnx.GraphProto) -> None:
    used = {value for node in graph.node for value in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
