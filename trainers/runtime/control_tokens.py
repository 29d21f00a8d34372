"""Tokens that control a model: only a template may write them, and in the text of people they are text"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from tokenizers import Tokenizer, pre_tokenizers

from .messages import Message

BREAK = "\ufdd0"
"""Splits a control token that people wrote in a text, so that no tokenizer finds the token there. Unicode reserves this
character for a program's internal use; in people's text it is left out."""


class Spelled(NamedTuple):
    """The tokens of a text."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """In characters of the text with its breaks."""
    is_added: list[int]
    """1 for tokens that the tokenizer adds around a text."""


class ControlTokens:
    """The tokens that control a model, such as `<|im_end|>`; only the template may write them.

    They are the tokenizer's special tokens, and those of its other added tokens that the template writes itself
    (`<think>`, `<tool_call>`). In the assistant's messages the latter stay tokens, because the model writes them too.
    """

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        """`tokenizer` must neither truncate nor pad."""
        self._tokenizer = tokenizer
        # A token of one character is ordinary text, and whitespace is in every template.
        added = [t for t in tokenizer.get_added_tokens_decoder().values() if len(t.content.strip()) > 1]
        self._special = _beginnings(t.content for t in added if t.special)
        self._all = _beginnings(t.content for t in added if t.special or t.content in template)

    def apart(self, written: Any, *, is_said: bool = False) -> Any:
        """A text, or lists and mappings of texts, with a `BREAK` in each control token, safe to fill into a template.

        `is_said` marks text of the assistant.
        """
        if isinstance(written, str):
            pattern = self._special if is_said else self._all
            return pattern.sub(rf"\1{BREAK}", written.replace(BREAK, ""))
        if isinstance(written, Mapping):
            return {
                # Templates look up keys that are identifiers.
                key if key.isidentifier() else self.apart(key, is_said=is_said): self.apart(item, is_said=is_said)
                for key, item in written.items()
            }
        if isinstance(written, (list, tuple)):
            return [self.apart(item, is_said=is_said) for item in written]
        return written

    def in_messages(self, messages: Sequence[Message]) -> list[Message]:
        """Messages with `apart` applied to everything except their roles."""
        return [
            {**self.apart(message, is_said=message["role"] == "assistant"), "role": message["role"]}
            for message in messages
        ]

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[Spelled]:
        """Tokenize texts and leave breaks out; a text without breaks gets its usual tokens."""
        tokenizer = self._with_cuts if any(BREAK in text for text in texts) else self._tokenizer
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return [Spelled(e.ids, e.offsets, e.special_tokens_mask) for e in encodings]

    @cached_property
    def _with_cuts(self) -> Tokenizer:
        """A tokenizer that, as its last pre-tokenization step, splits words at a `BREAK` and leaves it out."""
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        before = tokenizer.pre_tokenizer
        # Byte-level tokenizers replace its bytes with other characters; some put a space before a text.
        pieces = [] if before is None else [piece for piece, _ in before.pre_tokenize_str(f"a{BREAK}")]
        spelled = "".join(pieces).rpartition("a")[2] or BREAK
        cut = pre_tokenizers.Split(spelled, "removed")
        tokenizer.pre_tokenizer = cut if before is None else pre_tokenizers.Sequence([before, cut])
        return tokenizer


def _beginnings(tokens: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds the first character of each of `tokens` in a text, also of overlapping ones."""
    spelled = sorted({re.escape(token) for token in tokens}, key=len, reverse=True)
    return re.compile(rf"(?=(?:{'|'.join(spelled)}))(.)", re.DOTALL) if spelled else re.compile("(?!)()")


def template_text(template: str) -> str:
    """The literal text of a template with columns in braces, its parts joined by NUL."""
    return "\0".join(literal for literal, *_ in string.Formatter().parse(template))
