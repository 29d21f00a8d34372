"""Smaller graphs of models that read whole texts, made of the fp32 graph.

Measured on the demo's champion (MiniLM, 2 labels, 500 validation rows, CPU with VNNI), against fp32; ms at the rows'
own lengths, the least of 72 calls in turns, two threads, others running:

    variant                                              MB    logit diff  same answers  F1      ms    neighbours count
    fp32                                                 90.9                            0.8393  4.79  no
    int8: weights per channel, activations per call      23.0  0.69        97.0 %        0.8211  2.48  yes
      the same, traced with attention in 12 nodes        23.0  0.69        97.0 %        0.8211  2.91  yes
    int8-32: weights in blocks of 32                     26.3  0.06        99.8 %        0.8372  3.00  no
    int8-64                                              25.6  0.07        99.4 %        0.8331  2.31  no
    blocks of 128                                        25.3  0.08        98.8 %        0.8311  2.11  yes   <- not made
    int4: blocks of 32, asymmetric                       21.1  0.38        98.4 %        0.8434  2.81  no
      the same, symmetric                                20.9  0.44        96.8 %        0.8231  2.34  no    <- not made
    int8 static (QDQ, min and max of 200 training rows)  23.0  1.15        93.4 %                      no    <- not made

Blocks scale each token's activations on their own, so that texts can share a batch; so does static quantization, but it
lost most, and took longest to make. fp16 is for GPUs, and was measured on none.

On a CPU without VNNI the int8 graph needs onnxruntime's option against overflow: `runtime/options.py` sets it there.
Measured on such a CPU (EPYC Milan, shared; a trained MiniLM, 1 thread, p50 in ms), with 7-bit weights, which never
overflow, for comparison:

    variant              1x16  1x32  1x128  8x64  32x16
    fp32                 8.8   14.2  47.7   178   179
    int8, overflowing    5.5   9.5   34.5   128   122
    int8, option set     5.9   10.6  39.5   145   142   <- chosen: full accuracy
    int8, 7-bit weights  5.4   9.2   34.9   126   124

Elsewhere that option costs much, so it is not set. On a CPU with AMX (Xeon, 1 thread, medians of five turns, in ms),
where weights in blocks are no faster than fp32:

    variant              1x32  8x64  32x128
    fp32                 10.8  91    818
    int8, option set     9.5   117   965
    int8                 3.6   34    397
    int8-64              9.9   111   937
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from trainers.export.attention import unpack
from trainers.export.blocks import in_blocks, quantize_embedding, save
from trainers.export.quiet import quiet
from trainers.export.release import GRAPH, ExportError
from trainers.export.tidy import tidy
from trainers.export.tracing import first_line


@dataclass(frozen=True)
class _Blocks:
    """How weights are kept in blocks."""

    bits: int
    size: int
    is_symmetric: bool = True


_BLOCKS = {"int8-64": _Blocks(8, 64), "int8-32": _Blocks(8, 32), "int4": _Blocks(4, 32, is_symmetric=False)}
"""By variant."""


def quantize_reading(fp32_dir: Path, out_dir: Path, variant: str) -> None:
    """Write `variant` of the graph in `fp32_dir`. Raises `ExportError`."""
    if not (fp32_dir / GRAPH).is_file():
        raise ExportError("there is no fp32 graph to make it from")
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=out_dir) as scratch, quiet():
            plain = Path(scratch)
            _as_products(fp32_dir / GRAPH, plain / GRAPH)
            if variant == "fp16":
                save(convert_float_to_float16(onnx.load(plain / GRAPH), keep_io_types=True), out_dir / GRAPH)
            elif variant == "int8":
                _quantize_calls(plain / GRAPH, out_dir / GRAPH)
            else:
                _quantize_blocks(plain / GRAPH, out_dir / GRAPH, _BLOCKS[variant])
    except Exception as error:  # protobuf and the quantizers each raise their own errors
        for file in out_dir.iterdir():
            file.unlink()
        raise ExportError(f"it could not be made smaller: {first_line(error)}") from error


def _as_products(source: Path, path: Path) -> None:
    """Write the graph with every weight in a product of its own, which is what quantizers look for."""
    model = onnx.load(source)
    unpack(model.graph)
    save(model, path)
    tidy(path)


def _quantize_calls(source: Path, path: Path) -> None:
    """Weights in 8 bits, a scale for each channel; activations in 8 bits, a scale for each call."""
    scratch = source.with_name("quantized.onnx")
    quantize_dynamic(
        source, scratch, op_types_to_quantize=["MatMul", "Gather"], per_channel=True, weight_type=QuantType.QInt8
    )
    save(onnx.load(scratch), path)


def _quantize_blocks(source: Path, path: Path, how: _Blocks) -> None:
    """Weights in blocks, each with a scale; activations in 8 bits, a scale for each block of a token."""
    model = in_blocks(onnx.load(source), how.bits, block=how.size, is_symmetric=how.is_symmetric)
    quantize_embedding(model)
    save(model, path)
