"""Exports encoder-decoders to ONNX: one graph that reads a text once, and one that writes with a cache.

The first gives the keys and values of the decoder's cross-attention, so that the second needs nothing else of the text.
Both are traced from the whole model, so that they fit any architecture with transformers' cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import EncoderDecoderCache

from trainers.export.blocks import quantize
from trainers.export.cached import TOKENS, Tensors, axes_of, cache_of, tensors_of
from trainers.export.parity import compare, random_rows, session_of
from trainers.export.release import ENCODER, GRAPH, ExportError
from trainers.export.tidy import tidy
from trainers.export.tracing import first_line, trace
from trainers.runtime.cache import AppendedCache
from trainers.runtime.rewrite import read_text


class _Reading(torch.nn.Module):
    """Reads a text: `cross`, keys and values of each layer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, Any]:
        start = torch.full_like(input_ids[:, :1], self.config.decoder_start_token_id)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "decoder_input_ids": start}
        cache = self.model(**given, use_cache=True).past_key_values
        return {"cross": tensors_of(cache.cross_attention_cache)}


class _Writing(torch.nn.Module):
    """Writes an answer to a text that was read."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(
        self, input_ids: torch.Tensor, encoder_attention_mask: torch.Tensor, cross: Tensors, past_key_values: Tensors
    ) -> dict[str, Any]:
        """`logits`, float32 [batch, tokens, vocabulary], and `present`."""
        cache = EncoderDecoderCache(cache_of(past_key_values), cache_of(cross))
        cache.is_updated = {int(number): True for number in cross}
        # Of the text only its shape is read: the cache has its keys and values.
        shape = (*encoder_attention_mask.shape, self.model.get_input_embeddings().weight.shape[1])
        text = torch.zeros(shape, dtype=torch.float32, device=input_ids.device)
        out = self.model(
            encoder_outputs=(text,), attention_mask=encoder_attention_mask, decoder_input_ids=input_ids,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        return {"logits": out.logits, "present": tensors_of(cache.self_attention_cache)}


def export_rewriter(model: Any, out_dir: Path) -> None:
    """Write an encoder-decoder in float32 as `out_dir/encoder.onnx` and `out_dir/model.onnx`, each with its weights.

    The encoder takes int64 `input_ids` and `attention_mask`, and gives `cross.N.key` and `cross.N.value`. The other
    graph takes those, `encoder_attention_mask`, the answer's `input_ids` and its cache; it gives `logits`, float32
    [batch, tokens, vocabulary], and the longer cache. Raises `ExportError`, also where logits differ from torch's.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        _trace(model.eval(), out_dir)
        _check(model, out_dir)
    except ExportError as error:
        raise ExportError(f"{type(model).__name__} could not be exported: {error}") from error
    except Exception as error:  # the tracer raises whatever the model's own code raises
        raise ExportError(f"{type(model).__name__} could not be exported: {first_line(error)}") from error


def quantize_rewriter(fp32_dir: Path, out_dir: Path) -> None:
    """Write both graphs with weights in 8 bits. Raises `ExportError`."""
    if not (fp32_dir / ENCODER).is_file():
        raise ExportError("there are no fp32 graphs to make it from")
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        quantize(fp32_dir, out_dir, "int8", (GRAPH, ENCODER))
    except Exception as error:  # protobuf and the quantizer each raise their own errors
        raise ExportError(f"it could not be made smaller: {first_line(error)}") from error


def _trace(model: Any, out_dir: Path) -> None:
    # Two rows of different lengths, and an answer half written: see `export_with_cache`.
    ids = torch.arange(14).reshape(2, 7) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    text = {"input_ids": ids, "attention_mask": mask}
    trace(_Reading(model), text, dict.fromkeys(text, TOKENS), out_dir / ENCODER)
    tidy(out_dir / ENCODER)
    with torch.no_grad():
        cache = model(**text, decoder_input_ids=ids[:, :3], use_cache=True).past_key_values
    cross, past = tensors_of(cache.cross_attention_cache), tensors_of(cache.self_attention_cache)
    inputs = {
        "input_ids": ids[:, :2].clone(), "encoder_attention_mask": mask, "cross": cross, "past_key_values": past,
    }  # fmt: skip
    axes = {
        "input_ids": TOKENS, "encoder_attention_mask": TOKENS, "cross": axes_of(cross),
        "past_key_values": axes_of(past),
    }  # fmt: skip
    trace(_Writing(model), inputs, axes, out_dir / GRAPH)
    tidy(out_dir / GRAPH)


def _check(model: Any, folder: Path) -> None:
    """Compare answers to random texts with torch's, written at once and token by token."""
    encoder, decoder = session_of(folder / ENCODER), session_of(folder / GRAPH)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    rows = random_rows(vocabulary)
    for text, answer in zip(rows, [rows[-1], *rows], strict=False):
        with torch.inference_mode():
            wanted = model(input_ids=torch.tensor([text]), decoder_input_ids=torch.tensor([answer])).logits[0].numpy()
        what = f"an answer of {len(answer)} tokens to a text of {len(text)}"
        for steps in ([answer], [[token] for token in answer]):
            cache = AppendedCache(decoder, read_text(encoder, text))
            ours: npt.NDArray[np.float32] = np.concatenate([logits for step in steps for logits in cache.feed(step)])
            compare(ours, wanted, what)
