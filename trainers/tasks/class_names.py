"""Classes that data holds as numbers, by the names that `data.label_names` gives them. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassNames:
    """Names in the order of their numbers, from 0; empty where the data has names itself."""

    names: tuple[str, ...]

    def name(self, given: str) -> str | None:
        """The name of what a row has, a number or one of the names; None for what is neither."""
        if not self.names or given in self.names:
            return given
        return self.names[int(given)] if is_number(given) and int(given) < len(self.names) else None

    @property
    def expected(self) -> str:
        return f"one of the {len(self.names)} names of data.label_names, or its number from 0"


def is_number(given: str) -> bool:
    """Whether a label can be the number of a class."""
    return given.isascii() and given.isdecimal() and len(given) < 10
