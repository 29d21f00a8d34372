"""The common part of tasks whose model predicts the next token: loading, the loss and the scores.

A row's targets are a mask: 1 where the token is predicted from those before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from trainers.data.tokens import Encoded, TargetKind, Tokens
from trainers.metrics.table import Rows
from trainers.tasks.base import Batch, Sums, Task
from trainers.tasks.losses import Loss, cross_entropy

Targets = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Logits [targets, vocabulary], target ids [targets], and the row of each target [targets]."""
SCORED_AT_ONCE = 1024
"""Tokens: their float32 logits over a vocabulary of 128,000, and a copy for the loss, take 1 GB."""


class NextToken(Task):
    """A task for a causal language model."""

    targets: TargetKind = "token"
    loss: Loss = staticmethod(cross_entropy)

    def labels(self, examples: Sequence[Any]) -> list[str]:
        return []

    def measure_row(self, example: Any, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        return {"input_ids": encoded.ids, "loss_mask": list(encoded.targets), "target_bytes": encoded.target_bytes}

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        from transformers import AutoModelForCausalLM

        model, info = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **options)
        return model, sorted(info["missing_keys"])

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        logits, targets, _ = self.target_logits(model, batch)
        return Sums(loss(logits.float(), targets).sum(), len(targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        sums = [token_sums(*chunk, len(batch.input_ids)) for chunk in self.logits(model, batch, SCORED_AT_ONCE)]
        return np.column_stack([np.sum(sums, axis=0), batch.target_bytes.cpu().numpy().astype(np.float64)])

    def target_logits(self, model: torch.nn.Module, batch: Batch) -> Targets:
        """All targets of a batch with their logits."""
        (everything,) = self.logits(model, batch, max(1, batch.targets.numel()))
        return everything

    def logits(self, model: torch.nn.Module, batch: Batch, at_once: int) -> Iterator[Targets]:
        """Yield the targets of a batch with their logits, at most `at_once` tokens at a time."""
        return causal_logits(model, batch, at_once)

    def compared(self, model: Any, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = model(**batch.inputs).logits
        return logits[:, -batch.input_ids.shape[1] :]  # a learned prompt comes before the tokens

    def unit_count(self, tokens: Tokens, row: int) -> int:
        return int(tokens.targets(row)[1:].sum())


def encoded_span(tokenizer: Any, ids: list[int], mask: list[int]) -> list[Encoded]:
    """A row with its mask and the number of bytes to predict; no row where there is nothing to predict."""
    predicted = [token for token, is_target in zip(ids[1:], mask[1:], strict=True) if is_target]
    if not predicted:
        return []
    text = tokenizer.decode(predicted, skip_special_tokens=True)
    return [Encoded(ids, mask, target_bytes=len(text.encode()))]


def mask_of_spans(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """1 for each token inside a span, else 0; tokens and spans must be in order."""
    mask, current = [], 0
    for start, end in offsets:
        while current < len(spans) and start >= spans[current][1]:
            current += 1
        mask.append(int(current < len(spans) and start >= spans[current][0] and end <= spans[current][1]))
    return mask


def token_sums(logits: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor, count: int) -> Rows:
    """Of each of `count` rows: summed negative log-likelihood, tokens, tokens guessed right; [rows, 3]."""
    nll = cross_entropy(logits.float(), targets).double().cpu().numpy()
    hits = (logits.argmax(dim=-1) == targets).double().cpu().numpy()
    index = rows.cpu().numpy()
    return np.stack([np.bincount(index, weights, count) for weights in (nll, np.ones_like(nll), hits)], axis=1)


def causal_logits(model: torch.nn.Module, batch: Batch, at_once: int) -> Iterator[Targets]:
    """Yield the targets with their logits, `at_once` at a time; only positions with a target go through the head."""
    is_target = batch.targets[:, 1:].bool()
    rows, positions = is_target.nonzero(as_tuple=True)
    targets = batch.input_ids[:, 1:][is_target]
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not has_learned_prompt(model) and _head_is_plain(base):
        head, asked = base.get_output_embeddings(), base.base_model(**batch.inputs)[0][rows, positions]
        for hidden, ids, of_row in zip(asked.split(at_once), targets.split(at_once), rows.split(at_once), strict=True):
            yield head(hidden), ids, of_row
        return
    logits = model(**batch.inputs).logits
    # A learned prompt comes before the tokens: the last positions are the row's.
    asked = logits[:, -batch.input_ids.shape[1] :][rows, positions]
    yield from zip(asked.split(at_once), targets.split(at_once), rows.split(at_once), strict=True)


def has_learned_prompt(model: Any) -> bool:
    """Whether the method puts vectors before the tokens (prompt or prefix tuning)."""
    config = getattr(model, "active_peft_config", None)
    return config is not None and bool(config.is_prompt_learning)


def _head_is_plain(model: Any) -> bool:
    """Whether logits are the output embedding applied to hidden states; tested once per model on three tokens."""
    known = getattr(model, "_hpo_head_is_plain", None)
    if known is None:
        was_training = model.training
        model.eval()
        with torch.no_grad():
            probe = torch.arange(3, device=next(model.parameters()).device)[None]
            body = model.base_model if model.base_model is not model else None
            known = body is not None and torch.equal(
                model.get_output_embeddings()(body(input_ids=probe)[0]), model(input_ids=probe).logits
            )
        model.train(was_training)
        model._hpo_head_is_plain = known
    return bool(known)
