"""Fused attention with its packed weights as a product of its own, so that quantizers find them like any others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from trainers.export.blocks import drop_unused_weights

FUSED = ("Attention", "MultiHeadAttention")
"""onnxruntime's own operators for attention in a model that reads a whole text."""
_KEPT = ("num_heads", "scale", "mask_filter_value", "unidirectional")


def attention_of(graph: onnx.GraphProto) -> str:
    """`fused` where attention is one operator a layer, else `plain`."""
    return "fused" if any(node.op_type in FUSED for node in graph.node) else "plain"


def unpack(graph: onnx.GraphProto) -> None:
    """Replace each `Attention` by a product with its packed weight, a split and `MultiHeadAttention`; equal numbers."""
    _join_weights(graph)
    nodes = [part for node in graph.node for part in (_parts(node) if node.op_type == "Attention" else [node])]
    del graph.node[:]
    graph.node.extend(nodes)


def _join_weights(graph: onnx.GraphProto) -> None:
    """Weights that the graph concatenates each time it is loaded become one: the packed ones of attention."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Concat" and all(name in weights for name in n.input)]:
        parts = [onnx.numpy_helper.to_array(weights[name]) for name in node.input]
        joined = np.concatenate(parts, axis=_attributes(node)["axis"])
        graph.initializer.append(onnx.numpy_helper.from_array(joined, node.output[0]))
        graph.node.remove(node)
    drop_unused_weights(graph)


def _parts(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    make, output, kept = onnx.helper.make_node, node.output[0], _attributes(node)
    text, weight, bias, mask, _, attention_bias = [*node.input, *[""] * 6][:6]
    packed, *three = (f"{output}/{name}" for name in ("packed", "query", "key", "value"))
    return [
        make("MatMul", [text, weight], [packed], f"{node.name}/product"),
        make("Split", [packed], three, f"{node.name}/split", axis=-1, num_outputs=3),
        make(
            "MultiHeadAttention", [*three, bias, mask, attention_bias], [output], f"{node.name}/attention",
            domain="com.microsoft", **{name: kept[name] for name in _KEPT if name in kept},
        ),
    ]  # fmt: skip


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
