"""A filter of words and phrases: whole words, whatever their case and however their letters are encoded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hpo.config.serve_config import Action
from hpo.serving.filters import Exchange, Filter, Verdict
from hpo.serving.folded import Folded, folded

_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Letters of scripts that write no blanks between words (Thai, Japanese, Chinese, ...): each is a word by itself."""
_WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+|[^\w\s]")
_LONG = 10_000
"""Characters of a text that is searched in another thread, so that others get their answers meanwhile."""


class _Word(NamedTuple):
    """A word of a text, folded, and its place in the original."""

    text: str
    start: int
    end: int


class _Match(NamedTuple):
    """Which words of a text, from the first to before the last, are a phrase."""

    first: int
    after: int


class Phrases:
    """Words and phrases that are looked for in texts, whatever blanks are between their words."""

    def __init__(self, phrases: Iterable[str]) -> None:
        every = {tuple(word.text for word in _words(phrase)) for phrase in phrases} - {()}
        self._phrases = every
        self._next: dict[tuple[str, ...], set[str]] = {}
        """The beginning of a phrase -> the words that go on with one."""
        for phrase in every:
            for size, word in enumerate(phrase):
                self._next.setdefault(phrase[:size], set()).add(word)
        self._longest = max(map(len, every), default=1)

    def masked(self, text: str) -> str | None:
        """The text with an asterisk for each letter of a phrase, which keeps its places; None without a phrase."""
        equal = folded(text)
        if self._next.get((), set()).isdisjoint(_WORD.findall(equal.text)):
            return None  # almost every text, and quickly
        words = _placed(equal)
        letters = list(text)
        matches = self._matches(words)
        for match in matches:
            for place in range(words[match.first].start, words[match.after - 1].end):
                letters[place] = letters[place] if letters[place].isspace() else "*"
        return "".join(letters) if matches else None

    def certain(self, text: str) -> int:
        """How many characters no later text can make part of a phrase. No phrase is cut in two there."""
        words = _words(text)
        last = len(words) - 1
        held = next((i for i in range(max(0, last + 1 - self._longest), last) if self._may_go_on(words[i:])), last)
        held = _whole_letters(words, held)
        for match in reversed(self._matches(words)):
            if match.first < held < match.after:
                held = _whole_letters(words, match.first)
        return words[held].start if words else 0

    def _may_go_on(self, words: list[_Word]) -> bool:
        """Whether words begin a phrase; the last one may be half a word, whose last letter a mark may still change."""
        *before, last = [word.text for word in words]
        return any(word.startswith(last[:-1]) for word in self._next.get(tuple(before), ()))

    def _matches(self, words: list[_Word]) -> list[_Match]:
        """Phrases from left to right, the longest one of each place."""
        found, place = [], 0
        while place < len(words):
            longest = 0
            for size in range(1, min(self._longest, len(words) - place) + 1):
                part = tuple(word.text for word in words[place : place + size])
                if part in self._phrases:
                    longest = size
                if part not in self._next:
                    break
            if longest:
                found.append(_Match(place, place + longest))
            place += longest or 1
        return found


def _whole_letters(words: list[_Word], place: int) -> int:
    """The last place up to `place` where no letter is cut: one letter may be two words, as the sign for `a/c` is."""
    while 0 < place < len(words) and words[place].start < words[place - 1].end:
        place -= 1
    return place


def _words(text: str) -> list[_Word]:
    return _placed(folded(text))


def _placed(equal: Folded) -> list[_Word]:
    return [_Word(word[0], *equal.span(*word.span())) for word in _WORD.finditer(equal.text)]


class BlockList(Filter):
    """Refuses texts that hold a phrase, or masks it."""

    def __init__(self, name: str, phrases: Phrases, action: Action) -> None:
        super().__init__(name)
        self._phrases = phrases
        self._action = action

    def certain(self, text: str) -> int:
        return self._phrases.certain(text)

    async def judge(self, exchange: Exchange) -> Verdict:
        text = exchange.text
        masked = (
            await asyncio.to_thread(self._phrases.masked, text) if len(text) > _LONG else self._phrases.masked(text)
        )
        if masked is None:
            return exchange.allow()
        return exchange.redact(masked) if self._action == "redact" else exchange.refuse(self.name)


def read_phrases(file: Path) -> list[str]:
    """The words and phrases of a file, one a line. Raises `OSError` and `UnicodeDecodeError`."""
    return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
