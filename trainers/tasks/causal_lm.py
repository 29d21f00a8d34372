"""Causal language modelling on plain text: texts one after the other, cut into blocks of equal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainers.sources import Row
from trainers.spec import Finding
from trainers.splits import Keyed
from trainers.tasks import columns as read
from trainers.tasks.next_token import NextToken, encoded_span
from trainers.tokens import Encoded


class CausalLM(NextToken):
    name = "causal-lm"

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[str] | Finding:
        text = read.text(row, columns)
        return text if isinstance(text, Finding) else Keyed(text, key=text.strip(), stratum=None)

    def check_all(self, train: Sequence[Keyed[str]], where: str) -> list[Finding]:
        return []

    def encode(
        self, tokenizer: Any, examples: Sequence[str], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        """Every text ends with the end-of-text token; the last block is as long as it comes."""
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        blocks: list[list[Encoded]] = []
        buffer: list[int] = []
        for ids in tokenizer(list(examples), add_special_tokens=False)["input_ids"]:
            buffer += ids + end
            full = len(buffer) // max_length * max_length
            blocks.append(
                [e for i in range(0, full, max_length) for e in _block(tokenizer, buffer[i : i + max_length])]
            )
            buffer = buffer[full:]
        blocks[-1] += _block(tokenizer, buffer)
        return blocks


def _block(tokenizer: Any, ids: list[int]) -> list[Encoded]:
    return encoded_span(tokenizer, ids, [1] * len(ids))
