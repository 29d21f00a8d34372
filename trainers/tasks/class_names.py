"""Names from `data.label_names` for classes that the data gives as numbers. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassNames:
    """The names of classes in the order of their numbers from 0; empty where the data has names itself."""

    names: tuple[str, ...]

    def name(self, given: str) -> str | None:
        """The name for a row's label, which is a number or one of the names; None where it is neither."""
        if not self.names or given in self.names:
            return given
        return self.names[int(given)] if is_number(given) and int(given) < len(self.names) else None

    @property
    def expected(self) -> str:
        """What a finding says would be right."""
        return f"one of the {len(self.names)} names of data.label_names, or its number from 0"


def is_number(given: str) -> bool:
    """Whether a label can be the number of a class."""
    return given.isascii() and given.isdecimal() and len(given) < 10
