"""Answers of writing models in OpenAI's shapes: whole, or as the chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from hpo.serving.answer import TokenScore
from hpo.serving.filters import Decision, as_json


@dataclass
class Choice:
    """One answer, as far as it has come."""

    text: str = ""
    scores: list[TokenScore] = field(default_factory=list)
    finish_reason: str | None = None
    filtered: Mapping[str, Decision] | None = None
    """What filters decided, by category; None where there are none, or the answer has not ended."""


@dataclass(frozen=True)
class Shape:
    """How the answers to one request are written down."""

    model: str
    tokenizer: Tokenizer
    is_chat: bool
    has_scores: bool
    created: int = field(default_factory=lambda: int(time.time()))
    token: str = field(default_factory=lambda: secrets.token_hex(12))

    def whole(self, choices: Sequence[Choice], usage: dict[str, int]) -> dict[str, Any]:
        """The answer to a request without `stream`."""
        kind = "chat.completion" if self.is_chat else "text_completion"
        entries = [
            self._choice(index, {"message": {"role": "assistant", "content": choice.text}}, choice)
            for index, choice in enumerate(choices)
        ]
        return {**self._head(kind), "choices": entries, "usage": usage}

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of an answer to a chat, which says who speaks."""
        return self._chunk([self._choice(index, {"delta": {"role": "assistant", "content": ""}}, Choice())])

    def chunk(self, index: int, choice: Choice) -> dict[str, Any]:
        """The next chunk of an answer."""
        delta = {"content": choice.text} if choice.text or choice.scores else {}
        return self._chunk([self._choice(index, {"delta": delta}, choice)])

    def closing(self, usage: dict[str, int]) -> dict[str, Any]:
        """The last chunk, with the usage."""
        return {**self._chunk([]), "usage": usage}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk" if self.is_chat else "text_completion"), "choices": choices}

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        return {"id": f"{prefix}-{self.token}", "object": kind, "created": self.created, "model": self.model}

    def _choice(self, index: int, said: dict[str, Any], choice: Choice) -> dict[str, Any]:
        scores = None
        if self.has_scores:
            scores = self._chat_scores(choice.scores) if self.is_chat else self._plain_scores(choice.scores)
        text = said if self.is_chat else {"text": choice.text}
        filtered = {} if choice.filtered is None else {"content_filter_results": as_json(choice.filtered)}
        return {"index": index, **text, "logprobs": scores, "finish_reason": choice.finish_reason, **filtered}

    def _chat_scores(self, scores: Sequence[TokenScore]) -> dict[str, Any]:
        def entry(token: int, logprob: float) -> dict[str, Any]:
            text = self._spelled(token)
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

        return {
            "content": [
                {**entry(s.token, s.logprob), "top_logprobs": [entry(*other) for other in s.likeliest]} for s in scores
            ]
        }

    def _plain_scores(self, scores: Sequence[TokenScore]) -> dict[str, Any]:
        return {
            "tokens": [self._spelled(s.token) for s in scores],
            "token_logprobs": [s.logprob for s in scores],
            "top_logprobs": [{self._spelled(token): logprob for token, logprob in s.likeliest} for s in scores],
        }

    def _spelled(self, token: int) -> str:
        return str(self.tokenizer.decode([token], skip_special_tokens=False))
