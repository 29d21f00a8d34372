"""Exports decoder-only language models to ONNX: the first route whose graph has torch's logits, and variants of it.

Two tools give a graph with a KV cache; measured on SmolLM2-135M-Instruct (2 threads, 100 tokens of prompt):

    tool                                   seconds  peak GB  MB   max logit diff  prefill ms  tokens/s
    torch, fp32                                              538                              19
    transformers.exporters                 78       1.5      539  1.1e-4          150         48      <- second
    onnxruntime_genai's model builder      12       1.2      540  1.5e-4          85          82      <- first

Both run in plain onnxruntime and give logits at all positions. The builder is six times faster and supports batches.
Its graph is smaller, and its attention operator writes the cache in place; the other graph passes an attention bias,
which prevents that, but it can be traced from any architecture, and from one with an adapter beside its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainers.export.blocks import quantize
from trainers.export.builder import build
from trainers.export.cached import export_with_cache
from trainers.export.parity import LENGTHS, check_parity
from trainers.export.release import GRAPH, ExportError
from trainers.export.tracing import first_line
from trainers.model.source import positions_of
from trainers.prepare.release_routes import Route
from trainers.tasks.next_token import has_learned_prompt


def export_decoder(model: Any, tokenizer: Any, out_dir: Path, tried: Sequence[Route]) -> Route:
    """Write a causal language model in fp32 as `out_dir/model.onnx` and `model.onnx.data`; the route that was taken.

    The inputs are int64 `input_ids` and `attention_mask`, and the cache; the outputs are `logits`, float32 [batch,
    tokens, vocabulary] at all positions, and the cache. `model` is a transformers model in float32, or PEFT's around
    one with a learned prompt. Of `tried` the first is taken whose graph has torch's logits. Raises `ExportError` with
    the reason of each where none has; then no graph is left.
    """
    reasons = []
    for route in tried:
        out_dir.mkdir(parents=True, exist_ok=True)
        try:
            if route.name == "builder":
                build(model, tokenizer, out_dir)
            else:
                export_with_cache(model, out_dir / GRAPH)
            check_parity(out_dir, partial(_logits, model), _vocabulary(model), _longest(model), route.name != "builder")
            return route
        except Exception as error:  # noqa: BLE001  # saving, tracing and protobuf each raise their own errors
            reasons.append(f"{route.name}: {error if isinstance(error, ExportError) else first_line(error)}")
            for file in out_dir.iterdir():
                file.unlink()
    raise ExportError(f"{type(model).__name__} could not be exported ({'; '.join(reasons) or 'there is no route'})")


def quantize_decoder(fp32_dir: Path, out_dir: Path, variant: str, route: Route) -> None:
    """Write `variant` of a graph in `fp32_dir` that `route` made. Raises `ExportError`."""
    if variant not in route.made["cpu"]:
        raise ExportError(f"the route {route.name!r} makes {', '.join(route.made['cpu'])}")
    if not (fp32_dir / GRAPH).is_file():
        raise ExportError("there is no fp32 graph to make it from")
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        quantize(fp32_dir, out_dir, variant)  # type: ignore[arg-type]  # a variant of the route
    except Exception as error:  # protobuf and the quantizer each raise their own errors
        raise ExportError(f"it could not be made smaller: {first_line(error)}") from error


def _vocabulary(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _longest(model: Any) -> int:
    """How many tokens of a row are compared: with a learned prompt all must have a position."""
    learned = model.active_peft_config.num_virtual_tokens if has_learned_prompt(model) else 0
    return (positions_of(model) or max(LENGTHS) + learned) - learned


def _logits(model: Any, ids: list[int]) -> npt.NDArray[np.float32]:
    """Torch's logits of a row alone; a learned prompt comes before its tokens."""
    given = torch.tensor([ids])
    with torch.inference_mode():
        logits = model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0, -len(ids) :]
    values: npt.NDArray[np.float32] = logits.numpy()
    return values
