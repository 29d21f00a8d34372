"""int8 and int4 of a graph that writes: its weights in blocks, each with a scale.

They are made here from any route's fp32 graph, for three reasons: the builder's own int8 leaves the embedding in fp32,
its asymmetric int4 graph does not load, and one build then serves three variants. Perplexity of 40 chats
(SmolLM2-135M-Instruct, 6,854 target tokens), MatMulNBits in blocks of 32, symmetric, accuracy level 4 (activations in
int8):

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

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    DefaultWeightOnlyQuantizer,
    MatMulNBitsQuantizer,
)

from trainers.export.quiet import quiet
from trainers.export.release import GRAPH

_BLOCK = 32
_LAYER = re.compile(r"[/.](?:layers|h)\.(\d+)[/.]")
"""The number of a layer in the name of a product (the builder's) or of its weight (a traced one's)."""
_VALUE_AND_DOWN = (
    "qkv_proj", "v_proj", "down_proj", "attn.c_attn", "mlp.c_proj", "query_key_value", "dense_4h_to_h", "fc2",
)  # fmt: skip
"""Names of value and down projections, of all families."""


BlockVariant = Literal["int8", "int4"]


def quantize(fp32_dir: Path, out_dir: Path, variant: BlockVariant, graphs: Sequence[str] = (GRAPH,)) -> None:
    """Write smaller `graphs` of those in `fp32_dir`, each with its weights in a file beside it."""
    for name in graphs:
        model = onnx.load(fp32_dir / name)
        weights = {tensor.name for tensor in model.graph.initializer}
        products = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
        layers = 1 + max((layer for node in products if (layer := _layer_of(node)) is not None), default=0)
        eight = [node.name for node in products if variant == "int8" or _is_sensitive(node, layers)]
        four = {node.name for node in products} - set(eight)
        with quiet():
            if four:
                model = in_blocks(model, 4, leave=eight)
            model = in_blocks(model, 8)
            quantize_embedding(model)
        save(model, out_dir / name)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph, and its weights into a file beside it."""
    weights = path.with_name(f"{path.name}.data")
    for old in (path, weights):
        old.unlink(missing_ok=True)  # onnx appends to an existing weights file
    onnx.save(model, path, save_as_external_data=True, location=weights.name)
    weights.chmod(path.stat().st_mode)  # onnx makes the weights readable by their owner only


def lookup_of(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """The node that looks the tokens of `input_ids` up in the embedding; None for a graph that does it otherwise."""
    producers = {output: node for node in graph.node for output in node.output}

    def is_of_ids(name: str) -> bool:
        while (node := producers.get(name)) is not None and node.op_type in ("Reshape", "Cast"):
            name = node.input[0]
        return name == "input_ids"

    return next((n for n in graph.node if n.op_type == "Gather" and is_of_ids(n.input[1])), None)


def _is_sensitive(node: onnx.NodeProto, layers: int) -> bool:
    """Whether a product loses much precision in 4 bits: the head, and the value and down projections of the first and
    last eighth of the layers and every third between (llama.cpp's rule for mixed k-quants, `use_more_bits`). So does
    one whose layer is not known, because tracing has packed its weight with others."""
    layer = _layer_of(node)
    if layer is None:
        return True
    more_bits = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    return more_bits and any(part in f"{node.name} {node.input[1]}" for part in _VALUE_AND_DOWN)


def _layer_of(node: onnx.NodeProto) -> int | None:
    found = _LAYER.search(f"{node.name} {node.input[1]}")
    return int(found[1]) if found else None


def in_blocks(
    model: onnx.ModelProto, bits: int, *, leave: Sequence[str] = (), block: int = _BLOCK, is_symmetric: bool = True
) -> onnx.ModelProto:
    """Quantize all products that are still in fp32, except `leave` (the quantizer's `nodes_to_include` adds to the
    operator types, so it selects nothing)."""
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=bits,
        block_size=block,
        is_symmetric=is_symmetric,
        accuracy_level=4,
        nodes_to_exclude=list(leave),
        quant_format=QuantFormat.QOperator,
        op_types_to_quantize=("MatMul",),
    )
    quantizer.process()
    return quantizer.model.model


def quantize_embedding(model: onnx.ModelProto) -> None:
    """Look tokens up in 8-bit weights: the head's where the two are tied, else the embedding's own."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    lookup = lookup_of(graph)
    if lookup is None:
        return
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
        ["embedding_flat", lookup.input[1], f"{name}_scales"],
        [lookup.output[0]],
        lookup.name,
        domain="com.microsoft",
        bits=8,
        block_size=_BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )
    graph.initializer.append(shape)
    nodes = [node for n in graph.node if n is not turned for node in ((flat, gather) if n is lookup else (n,))]
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused_weights(graph)


def drop_unused_weights(graph: onnx.GraphProto) -> None:
    """Remove the weights that no node reads."""
    used = {value for node in graph.node for value in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
