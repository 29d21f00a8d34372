"""What a filter is: it sees a prompt or an answer and lets it pass, changes it, or refuses it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hpo.config.serve_config import Hold

Decision = Literal["allowed", "redacted", "refused"]
DECISIONS: tuple[Decision, ...] = ("allowed", "redacted", "refused")
"""From the mildest to the hardest."""
_CLOSED = "[\"'\u201d\u2019\u300d\u300f)\\]]*"
"""Quotes and brackets that end with a sentence."""
_SENTENCE_END = re.compile(rf"[.!?\u2026]{_CLOSED}(?=\s)|[\u3002\uff01\uff1f]{_CLOSED}|\n")


@dataclass(frozen=True)
class Verdict:
    """What a filter makes of a text."""

    text: str
    """What may pass; nothing where the text is refused."""
    decisions: Mapping[str, Decision]
    """By category."""

    @property
    def hardest(self) -> Decision:
        """What was decided of the text as a whole."""
        return max(self.decisions.values(), key=DECISIONS.index, default="allowed")


@dataclass(frozen=True)
class Exchange:
    """A text that asks to pass: what a filter function gets. Its answer is what one of the three methods returns."""

    model: str
    prompt: str
    completion: str | None = None
    """None where the prompt itself is judged; else the answer, or its next sentence."""
    filter: str = ""
    """The name of the filter that is asked."""

    @property
    def text(self) -> str:
        """What is judged: the completion, or where there is none the prompt."""
        return self.prompt if self.completion is None else self.completion

    def allow(self) -> Verdict:
        """Let the text pass."""
        return Verdict(self.text, {self.filter: "allowed"})

    def redact(self, text: str) -> Verdict:
        """Let another text pass in its place."""
        if not isinstance(text, str):
            raise TypeError(f"redact: expected a text, got {type(text).__name__}")
        return Verdict(text, {self.filter: "allowed" if text == self.text else "redacted"})

    def refuse(self, category: str) -> Verdict:
        """Let nothing pass; the client sees the category."""
        if not isinstance(category, str) or not category:
            raise TypeError("refuse: expected the name of a category")
        return Verdict("", {category: "refused"})


class Filter(ABC):
    """One filter of a server. Its methods are called for many requests at once."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def certain(self, text: str) -> int:
        """How many characters at the beginning of an unfinished answer can be judged now; the rest is held back."""

    @abstractmethod
    async def judge(self, exchange: Exchange) -> Verdict:
        """What may pass of a text. What it raises ends the request, and nothing passes."""

    def close(self) -> None:
        """End what works for it."""
        return


def certain_by(hold: Hold, text: str) -> int:
    """How much of an unfinished answer is whole sentences; none of it where the whole answer is judged at once."""
    if hold == "answer":
        return 0
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return ends[-1] if ends else 0


def as_json(decisions: Mapping[str, Decision]) -> dict[str, Any]:
    """Decisions in the shape of Azure's `content_filter_results`."""
    redacted: Mapping[Decision, dict[str, bool]] = {"redacted": {"redacted": True}}
    return {
        category: {"filtered": decision == "refused", **redacted.get(decision, {})}
        for category, decision in decisions.items()
    }
