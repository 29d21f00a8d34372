"""transformers' tokenizer as training and releases use it, so that both make the same tokens of a text."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers

from trainers.runtime.chat_template import ChatTemplate


def part_control_tokens(tokenizer: Any) -> None:
    """Make a tokenizer never find a control token in text that must not contain any, in place.

    Unigram and word-level vocabularies contain control tokens as ordinary pieces, so "</s>" in a text becomes T5's end
    of text even with `encode_special_tokens`. So such a piece is split after its first character. Texts without control
    tokens keep their tokens, and `tokenizer.json` keeps the split.
    """
    backend = tokenizer.backend_tokenizer
    was, backend.encode_special_tokens = backend.encode_special_tokens, True
    found = []
    for index, token in backend.get_added_tokens_decoder().items():
        can_be_parted = token.special and len(token.content.strip()) > 1
        if can_be_parted and index in backend.encode(token.content, add_special_tokens=False).ids:
            found.append(token.content)
    backend.encode_special_tokens = was
    if not found:
        return
    pattern = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in sorted(found))
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    before = backend.pre_tokenizer
    backend.pre_tokenizer = cut if before is None else pre_tokenizers.Sequence([before, cut])


def control_tokens(tokenizer: Any) -> list[str]:
    """The texts of a tokenizer's special tokens that are more than one character."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    return sorted({token.content for token in added if token.special and len(token.content.strip()) > 1})


def frozen(tokenizer: Any, max_length: int | None = None) -> Tokenizer:
    """A copy of a fast tokenizer for `tokenizers` that truncates at `max_length` tokens, or not, and never pads.

    transformers sets truncation and padding at each call, and the setting of the last call stays in the file.
    """
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    if max_length is not None:
        copy.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    return copy


def reading(tokenizer: Any) -> Callable[[str], str] | None:
    """A function that makes texts equal which differ only in what a tokenizer drops before it looks for tokens: case,
    accents, the width of characters, spaces after a space. None for a tokenizer that drops nothing."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a b", "a  b"))
    joins_spaces = one == two
    if normalizer is None and not joins_spaces:
        return None

    def read(text: str) -> str:
        text = text if normalizer is None else normalizer.normalize_str(text)
        return " ".join(filter(None, text.split(" "))) if joins_spaces else text

    return read


def chat_template_of(tokenizer: Any) -> str | None:
    """The chat template that conversations are rendered with, of several the default one; None without one."""
    template: str | Mapping[str, str] | None = tokenizer.chat_template
    return template.get("default") if isinstance(template, Mapping) else template or None


def template_tokens(tokenizer: Any) -> dict[str, Any]:
    """Special tokens by name as plain strings (transformers may have `AddedToken` objects)."""
    special: Mapping[str, Any] = tokenizer.special_tokens_map
    return {
        name: [str(token) for token in value] if isinstance(value, (list, tuple)) else str(value)
        for name, value in special.items()
    }


def end_tokens(tokenizer: Any, *configs: Any, is_chat: bool) -> list[int]:
    """Every token id that ends an answer: those that the tokenizer and the model's configs name as end of text, and in
    a chat what the template writes after an answer. The tokenizer of a base model often names only the end of a
    document."""
    found: set[int] = set()
    for owner in (tokenizer, *configs):
        ids = getattr(owner, "eos_token_id", None)
        if ids is not None:
            found.update(ids if isinstance(ids, Sequence) else [ids])
    return sorted(found | (_ends_of_turn(tokenizer) if is_chat else set()))


def _ends_of_turn(tokenizer: Any) -> set[int]:
    """The control token that the chat template writes right after an answer; empty where it writes none there."""
    answer, found, after = "answer", "", ""
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    with contextlib.suppress(ValueError):  # a template that refuses such a chat does not show it
        text = ChatTemplate(chat_template_of(tokenizer) or "", template_tokens(tokenizer)).render(chat, asks=False)
        _, found, after = text.rpartition(answer)
    special = [(t.content, i) for i, t in tokenizer.backend_tokenizer.get_added_tokens_decoder().items() if t.special]
    fitting = [(len(content), i) for content, i in special if found and after.lstrip().startswith(content)]
    return {max(fitting)[1]} if fitting else set()
