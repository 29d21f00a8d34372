"""What a release is made of: the content of `release.json`, and the tasks that there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

FORMAT_VERSION = 1
CLASSIFYING = ("text-classification", "multi-label-classification", "regression", "token-classification")
"""Tasks whose models classify a text, a pair of texts or words, or give a number for it."""
GENERATIVE = ("chat", "instruct", "causal-lm")
"""Tasks whose models continue a text."""
SIMILARITY = "text-similarity"
"""The task whose models give a vector for a text."""
REWRITING = "text-to-text"
"""The task whose models read a whole text and then write another one."""
CUTTING = (*CLASSIFYING, SIMILARITY, REWRITING)
"""Tasks whose input is cut at `max_length`, and in whose texts control tokens are text."""


class ReleaseError(Exception):
    """This runtime cannot serve the folder; the message names the folder and what is wrong with it.

    Promote the model again to repair it.
    """


@dataclass(frozen=True)
class Card:
    """The content of `release.json`: what the runtime needs besides the graph and the tokenizer."""

    task: str
    variant: str
    labels: tuple[str, ...]
    """Labels in the order of the logits; empty for a task without labels."""
    max_length: int
    """In tokens: where a text is cut, or a generative model's context window for prompt and answer."""
    pad_token_id: int
    eos_token_ids: tuple[int, ...] = ()
    chat_template: str | None = None
    template_tokens: Mapping[str, Any] = field(default_factory=dict)
    """Special tokens by name (`bos_token`, `eos_token`, ...), as the chat template reads them."""
    generation: Mapping[str, Any] = field(default_factory=lambda: {"strategy": "greedy", "max_new_tokens": 64})
    columns: tuple[str, ...] = ("text",)
    """The parts of an input: the texts of a pair, or the columns of the prompt."""
    prompt_template: str | None = None
    """The text before an answer, with columns in braces."""
    after_answer: str = ""
    """The template's text after an answer, up to the next column; it is not part of the answer."""
    is_followed: bool = False
    """Whether there is a next column."""
    route: str = ""
    """How the graph was made: the name of a route of the project that exported it; empty in older releases."""
    cache: str = "in place"
    """How a graph that writes gives back its cache: written into what it was given, or as new, longer arrays
    (`appended`)."""
    start_token_id: int | None = None
    """The token that every answer of `text-to-text` begins with; it is not part of the answer."""
    forced_tokens: Mapping[str, int] = field(default_factory=dict)
    """Of `text-to-text`: the token that is always the `first` or the `last` one of an answer."""
    adapters: tuple[str, ...] = ()
    """Of a bundle: names of its adapters, which are folders below `adapters/` with a card each; else empty."""
    champion: str = ""
    """Of a bundle that a sweep released: the adapter that answers what names none. Its labels are the card's."""
    adapter_hash: str = ""
    """Of an adapter: SHA-256 of its weights. What is remembered of answers is remembered by it, not by a name."""
    target: str = "cpu"
    """What it was measured on: `cpu` or `cuda`."""
    attention: str = ""
    """How a graph that reads texts attends: `fused` into onnxruntime's operator, or `plain`; empty where unknown."""
    session: Mapping[str, Any] = field(default_factory=dict)
    """Options of onnxruntime's session that were measured to be faster, on a machine with so many `cores`."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Size in bytes of every other file, to notice an incomplete copy."""
    format_version: int = FORMAT_VERSION

    @property
    def example(self) -> str:
        """An example of an input, as text."""
        if self.adapters and not self.champion:
            return json.dumps({"adapter": self.adapters[0], "input": "some text"})
        return "some text" if len(self.columns) <= 1 else json.dumps(dict.fromkeys(self.columns, "some text"))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the card of a release folder.

        Raises `ReleaseError` where `release.json` is missing, damaged or of another format, or a file is incomplete.
        """
        path = folder / "release.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format_version"] != FORMAT_VERSION:
                raise ReleaseError(
                    f"{path}: has format {data['format_version']}; this runtime reads format {FORMAT_VERSION}"
                )
            values = {f.name: data[f.name] for f in fields(cls) if f.name in data}  # older cards have fewer
            values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            card = cls(**values)
        except FileNotFoundError:
            raise ReleaseError(f"{folder} is not a release: it has no release.json") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        if card.task not in (known := (*CUTTING, *GENERATIVE)):
            raise ReleaseError(f"{path}: unknown task {card.task!r}; expected one of {', '.join(known)}")
        for name, size in card.files.items():
            found = (folder / name).stat().st_size if (folder / name).is_file() else None
            if found != size:
                state = "is missing" if found is None else f"has {found} bytes instead of {size}"
                raise ReleaseError(f"{folder / name} {state}: the release is damaged")
        return card
