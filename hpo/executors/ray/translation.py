"""Paths in messages: those of this machine as a node has them, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Translation:
    """Folders here, each with its place on a node. A path below several of them goes with the innermost."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._there = sorted(folders.items(), key=lambda pair: -len(pair[0]))
        self._here = sorted(((there, here) for here, there in folders.items()), key=lambda pair: -len(pair[0]))

    def there(self, value: Any) -> Any:
        """A message for the node: each text in it that is a path below one of the folders is the node's."""
        return _mapped(value, self._as_there)

    def here(self, value: Any) -> Any:
        """A message of the node: wherever its texts speak of its folders, they speak of those here."""
        return _mapped(value, self._as_here)

    def _as_there(self, text: str) -> str:
        for here, there in self._there:
            if text == here or text.startswith(f"{here}/"):
                return there + text[len(here) :]
        return text

    def _as_here(self, text: str) -> str:
        for there, here in self._here:
            text = text.replace(there, here)
        return text


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return value
