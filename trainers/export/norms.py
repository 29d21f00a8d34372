"""A traced graph's norms as onnxruntime runs them fastest: the sum before a norm is an operator of its own.

`transformers.exporters` joins both to SkipLayerNormalization, which takes longer than the two (MiniLM, one thread, 8
texts of 64 tokens, Xeon with AMX: 1.14 ms instead of 0.23; releases.md of the benches has whole models).
"""

from __future__ import annotations

import onnx_ir as ir

JOINED = "SkipLayerNormalization"


def split_norms(graph: ir.Graph) -> None:
    """Replace each joined norm by its sums and a `LayerNormalization`; equal numbers."""
    for node in [node for node in graph if node.op_type == JOINED]:
        parts = _parts(node)
        old = [node.outputs[0], *(value for value in node.outputs[3:] if value.uses())]
        new = [parts[-1].outputs[0], parts[-2].outputs[0]][: len(old)]
        ir.convenience.replace_nodes_and_values(graph, node, [node], parts, old, new)


def _parts(node: ir.Node) -> list[ir.Node]:
    """Its outputs are: the norm, two that only training reads, and the sum."""
    one, other, weight, *rest = node.inputs
    shift, bias = [*rest, None, None][:2]
    summands = [value for value in (bias, other) if value is not None]
    sums: list[ir.Node] = []
    for summand in summands:
        sums.append(ir.node("Add", [sums[-1].outputs[0] if sums else one, summand]))
    norm = ir.node(
        "LayerNormalization",
        [sums[-1].outputs[0], weight, *([shift] if shift is not None else [])],
        {"axis": -1, "epsilon": node.attributes["epsilon"].as_float()},
    )
    return [*sums, norm]
