"""What tasks share whose model predicts the next token: loading, the loss, the scores.

A row's targets are a mask: 1 where the token is to be predicted from those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainers.losses import Loss, cross_entropy
from trainers.metrics.table import Rows
from trainers.tasks.base import Batch, Sums
from trainers.tokens import Encoded, TargetKind, Tokens


class NextToken:
    """A causal language model."""

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
        logits, targets, rows = self.target_logits(model, batch)
        return token_rows(logits, targets, rows, batch)

    def target_logits(self, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits [targets, vocabulary], the targets, and each one's row."""
        return causal_logits(model, batch)

    def unit_count(self, tokens: Tokens, row: int) -> int:
        return int(tokens.targets(row)[1:].sum())


def encoded_span(tokenizer: Any, ids: list[int], mask: list[int]) -> list[Encoded]:
    """A row with its mask and the bytes of what is predicted; none where that is nothing."""
    predicted = [token for token, is_target in zip(ids[1:], mask[1:], strict=True) if is_target]
    if not predicted:
        return []
    text = tokenizer.decode(predicted, skip_special_tokens=True)
    return [Encoded(ids, mask, target_bytes=len(text.encode()))]


def mask_of_spans(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """1 for tokens inside a span. Both are in order, so one pass is enough."""
    mask, current = [], 0
    for start, end in offsets:
        while current < len(spans) and start >= spans[current][1]:
            current += 1
        mask.append(int(current < len(spans) and start >= spans[current][0] and end <= spans[current][1]))
    return mask


def token_rows(logits: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor, batch: Batch) -> Rows:
    """Per row of the batch: summed negative log-likelihood, tokens, tokens guessed right, bytes; [rows, 4]."""
    nll = cross_entropy(logits.float(), targets).double().cpu().numpy()
    hits = (logits.argmax(dim=-1) == targets).double().cpu().numpy()
    index, count = rows.cpu().numpy(), len(batch.input_ids)
    sums = [np.bincount(index, weights, count) for weights in (nll, np.ones_like(nll), hits)]
    return np.stack([*sums, batch.target_bytes.cpu().numpy()], axis=1).astype(np.float64)


def causal_logits(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [targets, vocabulary] of the positions that predict a target, the targets, and each one's row.

    Only those positions are multiplied with the vocabulary: elsewhere nobody asks.
    """
    is_target = batch.targets[:, 1:].bool()
    rows, positions = is_target.nonzero(as_tuple=True)
    targets = batch.input_ids[:, 1:][is_target]
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not has_learned_prompt(model) and _head_is_plain(base):
        hidden = base.base_model(**batch.inputs)[0]
        return base.get_output_embeddings()(hidden[rows, positions]), targets, rows
    logits = model(**batch.inputs).logits
    # Learned prompts come before the tokens: the last positions are the row's.
    logits = logits[:, -batch.input_ids.shape[1] :]
    return logits[rows, positions], targets, rows


def has_learned_prompt(model: Any) -> bool:
    """Whether something is put before the tokens (a learned prompt, a prefix)."""
    config = getattr(model, "active_peft_config", None)
    return config is not None and bool(config.is_prompt_learning)


def _head_is_plain(model: Any) -> bool:
    """Whether logits are just hidden states times the output embedding: probed once per model on three tokens."""
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
