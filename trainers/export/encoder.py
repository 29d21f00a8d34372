"""Exports models that read a whole text (BERT and similar: classifiers, embeddings) to ONNX, in fp32.

It uses `transformers.exporters`, whose graphs have onnxruntime's own operators: one Attention for each layer where the
model is traced with eager attention. Measured (MiniLM, 2 labels, 2 threads, p50 in ms at batch x length):

    variant  attention  MB    max logit diff  1x16  1x32  1x128  8x64  32x128
    torch    sdpa                             8.2   13.8  23.3   99.8  648
    fp32     sdpa       91.2  4.6e-7          2.7   4.0   11.5   43.8  870
    fp32     eager      91.1  3.7e-7          2.2   3.5   10.4   38.9  341     <- chosen

`onnxruntime.transformers.optimizer` finds no attention in either graph. Models with GPT-2's transposed layers use sdpa,
because onnxruntime does not load their eager graph. Smaller variants are made of this graph: see `reading.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainers.export.parity import check_texts, random_rows
from trainers.export.release import GRAPH, ExportError
from trainers.export.tracing import first_line, trace
from trainers.model.source import positions_of
from trainers.tasks.text_similarity import embeddings


class Embedding(torch.nn.Module):
    """An encoder whose output is the embedding of each text."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """`embedding`, float32 [texts, size]."""
        return {"embedding": embeddings(self.model, input_ids, attention_mask)}


def export_encoder(model: Any, tokenizer: Any, out_dir: Path) -> None:
    """Write a classifier as `out_dir/model.onnx` (and `.data`).

    The inputs are int64 [batch, tokens], the output `logits` is float32 [batch, labels] or [batch, tokens, tags]; batch
    and tokens are dynamic. `model` is a transformers classifier of texts or tokens in float32 on the CPU, and is not
    changed. `token_type_ids` is an input where both the model and the tokenizer use it. Raises `ExportError`.
    """
    _export(model, model, sample_inputs(model, tokenizer), out_dir)


def export_embedding(model: Any, out_dir: Path) -> None:
    """Write an encoder of texts as `export_encoder` does; the output `embedding` is float32 [batch, size], of length 1.

    The mean over tokens and the norm are those of `text-similarity`, and part of the graph. Raises `ExportError`.
    """
    _export(model, Embedding(model), sample_tokens(model), out_dir)


def _export(model: Any, module: torch.nn.Module, inputs: dict[str, torch.Tensor], out_dir: Path) -> None:
    attention, was_training = model.config._attn_implementation, model.training
    model.eval()
    module.eval()
    try:
        model.set_attn_implementation(attention_for(model))
        trace(module, inputs, None, out_dir / GRAPH)
        pad = model.config.pad_token_id or 0
        check_texts(out_dir, partial(_output, module, inputs.keys()), rows_for(model), pad)
    except ExportError as error:
        for file in out_dir.iterdir():
            file.unlink()
        raise ExportError(f"{type(model).__name__} could not be exported as fp32: {error}") from error
    except Exception as error:  # the tracer raises whatever the model's own code raises
        raise ExportError(f"{type(model).__name__} could not be exported as fp32: {first_line(error)}") from error
    finally:
        model.set_attn_implementation(attention)
        model.train(was_training)


def rows_for(model: Any) -> list[list[int]]:
    """Rows of random tokens; an encoder-decoder judges a text at its end, and there is one."""
    rows = [row[: positions_of(model)] for row in random_rows(int(model.get_input_embeddings().weight.shape[0]))]
    if not model.config.is_encoder_decoder:
        return rows
    end = model.config.eos_token_id
    return [[*(token for token in row[:-1] if token != end), end] for row in rows]


def _output(
    module: torch.nn.Module, names: Collection[str], ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Torch's logits or embeddings."""
    tokens = torch.from_numpy(ids)
    given = {"input_ids": tokens, "attention_mask": torch.from_numpy(mask), "token_type_ids": torch.zeros_like(tokens)}
    with torch.inference_mode():
        output = next(iter(module(**{name: given[name] for name in names}).values()))
    values: npt.NDArray[np.float32] = output.numpy()
    return values


def attention_for(model: Any) -> str:
    """The attention implementation that a graph is traced with."""
    has_transposed_layers = any(type(module).__name__ == "Conv1D" for module in model.modules())
    return "sdpa" if has_transposed_layers and model._supports_sdpa else "eager"


def sample_inputs(model: Any, tokenizer: Any) -> dict[str, torch.Tensor]:
    """What a classifier is traced with: see `sample_tokens`."""
    inputs = sample_tokens(model)
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    if takes_types and "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    return inputs


def sample_tokens(model: Any) -> dict[str, torch.Tensor]:
    """Two rows of different lengths: an axis of size 1, or a mask of only ones, would be traced as a constant."""
    pad = model.config.pad_token_id or 0
    ids = torch.full((2, 12), (pad + 1) % model.config.vocab_size)
    mask = torch.ones_like(ids)
    ids[1, 7:], mask[1, 7:] = pad, 0
    return {"input_ids": ids, "attention_mask": mask}
