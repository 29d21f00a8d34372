"""Causal language modelling on plain text: texts one after the other, cut into blocks of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainers.data.running_text import Text
from trainers.data.sources import Row
from trainers.data.splits import Keyed
from trainers.data.tokens import Encoded
from trainers.protocol.events import Finding
from trainers.tasks import columns as read
from trainers.tasks.next_token import NextToken, encoded_span

_CHARACTERS_AT_ONCE = 1_000_000
"""Characters that are tokenized together: meanwhile the tokenizer needs ten times their memory."""


class CausalLM(NextToken):
    """Language modelling on texts that are joined and cut into blocks."""

    name = "causal-lm"

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Text] | Finding:
        text = read.text(row, columns)
        if isinstance(text, Finding):
            return text
        # Running text has no duplicates: a line may occur twice.
        return Keyed(Text(text), key=None if row.is_document else text.strip(), stratum=None)

    def check_all(self, train: Sequence[Keyed[Text]], where: str) -> list[Finding]:
        return []

    def encode(
        self, tokenizer: Any, examples: Sequence[Text], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        """Blocks of `max_length` tokens, which continue from one document to the next; the last block is shorter.

        Every document ends with the end-of-text token; those that it contains are kept.
        """
        end = tokenizer.eos_token_id
        blocks: list[list[Encoded]] = []
        buffer: list[int] = []
        for text, ids in zip(examples, _tokenized(tokenizer, [e.text for e in examples]), strict=True):
            buffer += ids
            if end is not None and text.is_whole and ids[-1:] != [end]:
                buffer.append(end)
            full = len(buffer) // max_length * max_length
            blocks.append(
                [e for i in range(0, full, max_length) for e in _block(tokenizer, buffer[i : i + max_length])]
            )
            buffer = buffer[full:]
        blocks[-1] += _block(tokenizer, buffer)
        return blocks

    def lengths(self, one: Encoded, max_length: int) -> list[tuple[int, int]]:
        return []


def _tokenized(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[int]]:
    """The token ids of each text, a few texts at a time."""
    start = 0
    while start < len(texts):
        stop, characters = start + 1, len(texts[start])
        while stop < len(texts) and (characters := characters + len(texts[stop])) <= _CHARACTERS_AT_ONCE:
            stop += 1
        yield from tokenizer(list(texts[start:stop]), add_special_tokens=False)["input_ids"]
        start = stop


def _block(tokenizer: Any, ids: list[int]) -> list[Encoded]:
    return encoded_span(tokenizer, ids, [1] * len(ids))
