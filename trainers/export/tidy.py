"""A traced graph as the quantizer knows graphs: each product a MatMul with its weight, and no weight twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from trainers.export.blocks import drop_unused_weights, lookup_of, save

_PLAIN: Mapping[str, float] = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transBatchA": 0, "transBatchB": 0}
"""What attributes of a product are where it is one of two matrices and nothing else, but for `transB`."""


def tidy(path: Path) -> None:
    """Rewrite the graph at `path` and its weights."""
    model = onnx.load(path)
    _as_products(model.graph)
    _share_head(model.graph)
    save(model, path)


def _as_products(graph: onnx.GraphProto) -> None:
    """Weights are traced transposed, within the product or before it, and GPT-2's layers as Gemm."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    turned = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        flags = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        is_transposed = bool(flags.pop("transB", 0))
        weight = node.input[1] if len(node.input) > 1 else ""
        if weight in turned and not is_transposed:
            weight, is_transposed = turned[weight], True
        is_product = node.op_type in ("Gemm", "MatMul", "FusedMatMul") and weight in weights
        if not is_product or len(weights[weight].dims) != 2 or any(_PLAIN.get(n) != v for n, v in flags.items()):
            nodes.append(node)
            continue
        right = _transposed(weights, weight) if is_transposed else weight
        nodes += _product(node, right)
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.output[0] in read or node.output[0] not in turned)
    graph.initializer.extend([*weights.values()][len(graph.initializer) :])
    drop_unused_weights(graph)


def _product(node: onnx.NodeProto, weight: str) -> list[onnx.NodeProto]:
    """The node as a product, and a sum where it adds a bias."""
    has_bias = len(node.input) > 2 and bool(node.input[2])
    output = f"{node.output[0]}_product" if has_bias else node.output[0]
    product = onnx.helper.make_node("MatMul", [node.input[0], weight], [output], node.name)
    if not has_bias:
        return [product]
    return [product, onnx.helper.make_node("Add", [output, node.input[2]], node.output, f"{node.name}_bias")]


def _transposed(weights: dict[str, Any], name: str) -> str:
    """The name of a weight transposed, which is then among the weights."""
    other = f"{name}_transposed"
    if other not in weights:
        values = onnx.numpy_helper.to_array(weights[name])
        weights[other] = onnx.numpy_helper.from_array(np.ascontiguousarray(values.T), other)
    return other


def _share_head(graph: onnx.GraphProto) -> None:
    """Look tokens up in the head's weight where it is the embedding transposed: tracing writes both."""
    lookup, weights = lookup_of(graph), {tensor.name: tensor for tensor in graph.initializer}
    if lookup is None or lookup.input[0] not in weights:
        return
    embedding = weights[lookup.input[0]]
    values = onnx.numpy_helper.to_array(embedding)
    for node in graph.node:
        head = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if head is not None and np.array_equal(onnx.numpy_helper.to_array(head).T, values):
            name = embedding.name
            graph.initializer.remove(embedding)
            graph.node.insert(
                0, onnx.helper.make_node("Transpose", [head.name], [name], "shared_embedding", perm=[1, 0])
            )
            return
