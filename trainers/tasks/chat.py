"""Chat: conversations in the model's own chat template, with loss on assistant turns only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from trainers.metrics.table import Rows
from trainers.sources import DataProblem, Row
from trainers.spec import Finding
from trainers.splits import Keyed
from trainers.tasks.base import Batch, Sums
from trainers.tokens import Encoded, Tokens

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Conversation:
    messages: list[dict[str, str]]
    where: str


class Chat:
    name = "chat"

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Conversation] | Finding:
        name = columns["messages"]
        if name not in row.values:
            has = ", ".join(row.values) or "nothing"
            return Finding(row.where, f"has no column {name!r} for data.messages", f"the row has: {has}")
        messages = row.values[name]
        if why := _refuse(messages):
            return Finding(row.where, why, 'expected [{"role": "user", "content": ...}, {"role": "assistant", ...}]')
        kept = [{"role": m["role"], "content": m["content"]} for m in messages]
        return Keyed(Conversation(kept, row.where), key=json.dumps(kept), stratum=None)

    def check_all(self, train: Sequence[Keyed[Conversation]], where: str) -> list[Finding]:
        return []

    def labels(self, examples: Sequence[Conversation]) -> list[str]:
        return []

    def encode(
        self, tokenizer: Any, examples: Sequence[Conversation], labels: Sequence[str], max_length: int
    ) -> list[Encoded | None]:
        if not tokenizer.chat_template:
            raise DataProblem([Finding("model", "its tokenizer has no chat template", "a chat model for task: chat")])
        rendered = [_render(tokenizer, _first_turns(tokenizer, e, max_length), e.where) for e in examples]
        batch = tokenizer([text for text, _ in rendered], add_special_tokens=False, return_offsets_mapping=True)
        encoded: list[Encoded | None] = []
        for ids, offsets, (_, spans) in zip(batch["input_ids"], batch["offset_mapping"], rendered, strict=True):
            mask = _mask(offsets, spans)
            ids, mask = ids[:max_length], mask[:max_length]
            encoded.append(Encoded(ids, mask) if sum(mask[1:]) else None)
        return encoded

    def measure_row(self, example: Conversation, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        return {"input_ids": encoded.ids, "loss_mask": encoded.targets}

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        from transformers import AutoModelForCausalLM

        model, info = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **options)
        return model, sorted(info["missing_keys"])

    def sums(self, model: torch.nn.Module, batch: Batch) -> Sums:
        logits, targets, _ = _target_logits(model, batch)
        return Sums(F.cross_entropy(logits.float(), targets, reduction="sum"), len(targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        logits, targets, rows = _target_logits(model, batch)
        nll = F.cross_entropy(logits.float(), targets, reduction="none").double().cpu().numpy()
        hits = (logits.argmax(dim=-1) == targets).double().cpu().numpy()
        index, count = rows.cpu().numpy(), len(batch.input_ids)
        sums = [np.bincount(index, weights, count) for weights in (nll, np.ones_like(nll), hits)]
        return np.stack(sums, axis=1).astype(np.float64)

    def unit_count(self, tokens: Tokens, row: int) -> int:
        return int(tokens.targets(row)[1:].sum())


def _refuse(messages: Any) -> str | None:
    """Why `messages` is no conversation to learn from, or None."""
    if not isinstance(messages, list) or not messages:
        return "messages is not a list of turns"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return f"turn {number} has no text content"
        if message.get("role") not in ROLES:
            return f"turn {number} has the role {message.get('role')!r}, none of {', '.join(ROLES)}"
    if messages[-1]["role"] != "assistant":
        return f"the last turn is the {messages[-1]['role']}'s, not the assistant's"
    return None


def _first_turns(tokenizer: Any, conversation: Conversation, max_length: int) -> list[dict[str, str]]:
    """The turns that reach into the first `max_length` tokens: rendering is quadratic in the turns, so cut early."""
    messages, count = conversation.messages, 8
    while count < len(messages):
        text = tokenizer.apply_chat_template(messages[:count], tokenize=False)
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) > max_length:
            break
        count *= 2
    return messages[:count]


def _render(tokenizer: Any, messages: list[dict[str, str]], where: str) -> tuple[str, list[tuple[int, int]]]:
    """The text the model sees, and the character spans of what the assistant says, its end of turn included."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True)
        after = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
        if not (text.startswith(after) and after.startswith(before)):
            found = "the chat template rewrites earlier turns, so what the assistant said cannot be told apart"
            raise DataProblem([Finding(where, found, "a template that only appends")])
        spans.append((len(before), len(after.rstrip("\n"))))
    return text, spans


def _mask(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """1 for tokens inside a span. Both are in order, so one pass is enough."""
    mask, current = [], 0
    for start, end in offsets:
        while current < len(spans) and start >= spans[current][1]:
            current += 1
        mask.append(int(current < len(spans) and start >= spans[current][0] and end <= spans[current][1]))
    return mask


def _target_logits(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [targets, vocabulary] of the positions that predict a target, the targets, and each one's row.

    Only those positions are multiplied with the vocabulary: elsewhere nobody asks.
    """
    is_target = batch.targets[:, 1:].bool()
    rows, positions = is_target.nonzero(as_tuple=True)
    targets = batch.input_ids[:, 1:][is_target]
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if _head_is_plain(base):
        hidden = base.base_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0]
        return base.get_output_embeddings()(hidden[rows, positions]), targets, rows
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return logits[rows, positions], targets, rows


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
