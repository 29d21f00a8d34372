"""The text of an answer while it is written: what is certain of it, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Sequence

from trainers.runtime.prompts import Prompts

# Enough to show whether a space comes first (see `Prompts.decoded`) and to complete a character's bytes.
_PROMPT_TOKENS = 8
_BROKEN = "\ufffd"
"""What the bytes of half a character become."""


class AnswerText:
    """Turns tokens into text, in pieces that later tokens cannot change."""

    def __init__(self, prompts: Prompts, prompt_ids: Sequence[int], stops: Sequence[str]) -> None:
        self._prompts = prompts
        self._before = list(prompt_ids[-_PROMPT_TOKENS:])
        self._stops = tuple(stops)
        after = prompts.card.after_answer
        self._held = (*self._stops, after, after.strip())
        self._ids: list[int] = []
        self._given = 0
        self.is_stopped = False
        """Whether a stop string, or the template's next column, has ended it."""

    def add(self, token: int) -> str:
        """Append a token; return the text that is certain now and was not before."""
        self._ids.append(token)
        text = self._cut(self._prompts.decoded(self._before, self._ids))
        self.is_stopped = self.is_stopped or self._prompts.is_over(self._ids)
        return self._piece(text if self.is_stopped else text[: len(text) - self._uncertain(text)])

    def end(self) -> str:
        """The rest of the text."""
        return self._piece(self._cut(self._prompts.decoded(self._before, self._ids)))

    def _cut(self, text: str) -> str:
        """The text before the first stop string."""
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if not places:
            return text
        self.is_stopped = True
        return text[: min(places)]

    def _piece(self, text: str) -> str:
        piece = text[self._given :]
        self._given += len(piece)
        return piece

    def _uncertain(self, text: str) -> int:
        """How many characters at the end may still become another character, or belong to a stop string."""
        broken = len(text) - len(text.rstrip(_BROKEN))
        sizes = range(1, min(len(text) + 1, max(map(len, self._held))))
        return max([broken, *(n for n in sizes for stop in self._held if n < len(stop) and text.endswith(stop[:n]))])
