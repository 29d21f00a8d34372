"""Keys of the YAML, each declared once: name, default, bounds, one line of help.

A section of the file is a tuple of keys. From them follow the reading of the section with every problem at once
(`read_all`), the JSON Schema (`hpo/config/schema.py`) and the tables of the grammar page (`python -m tests.grammar`).
These are declarations of our own and not pydantic's, because a value here knows its file and line, an empty key differs
from null, and the messages are ours. Where reading a value takes code (a path that must exist, a metric of the task),
the section keeps its code, and a `Described` key says what may be written there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.config.yaml_source import Section
from hpo.paths import NAME_PATTERN

EXPONENT = r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"
"""`1e-6`: a number in YAML 1.2, as here, but text to tools that read YAML 1.1. The schema takes both."""
SWEEP_NAME = {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$"}
TEXT = {"type": ["string", "null"], "minLength": 1}
_MOST = 1_000_000
"""Of a number without a bound of its own: more is a typing error."""


@dataclass(frozen=True)
class Key(ABC):
    """One key of a section. One with the default None may also be null, unless it is required."""

    name: str
    default: Any
    help: str
    """One line, in Markdown."""
    is_required: bool = field(default=False, kw_only=True)
    shown: str = field(default="", kw_only=True)
    """What the grammar page has as the default, where that is no plain value."""

    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """The JSON Schema of the value, without help and default."""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the value."""
        default = {} if self.default is None or self.is_required else {"default": self.default}
        return {"description": self.help, **self.shape(), **default}

    def default_in_words(self) -> str:
        """The default as the grammar page shows it: `-` for none."""
        if self.is_required:
            return "required"
        if self.shown or self.default is None:
            return self.shown or "-"
        return f"{self.default:g}" if type(self.default) in (int, float) else str(self.default).lower()

    def _types(self, *types: str) -> list[str]:
        return [*types, *(["null"] if self.default is None and not self.is_required else [])]


@dataclass(frozen=True)
class Value(Key):
    """A key that reads itself."""

    @abstractmethod
    def read(self, section: Section) -> Any:
        """The key's value in a section, else its default. A value that cannot be is a problem of the section."""


@dataclass(frozen=True)
class Number(Value):
    """A finite number. `low` is inclusive, `above` and `below` are not; beyond `most` no number is meant."""

    low: float | None = field(default=None, kw_only=True)
    above: float | None = field(default=None, kw_only=True)
    below: float | None = field(default=None, kw_only=True)
    most: int = field(default=_MOST, kw_only=True)

    def read(self, section: Section) -> Any:
        """The number as written, `int` or `float`."""
        value = section.optional(self.name, self.words()) if self.default is None else section.raw(self.name)
        if value is None and self.default is None:
            return None
        is_clock = isinstance(value, str) and ":" in value  # 1:30: hours and minutes, or minutes and seconds
        expected = self.words() + (", e.g. 1.5" if is_clock else "")
        return section.number(self.name, self.default, self.accepts, expected, self.most)

    def accepts(self, value: float) -> bool:
        """Whether a finite number lies within the bounds."""
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def words(self) -> str:
        """What would be right: `a number above 0`, `a share from 0, below 1`."""
        if self.below is not None:
            low = self.low if self.above is None else self.above
            if self.low == 0 and self.below == 1:
                return "a share from 0, below 1"
            return f"a number between {low:g} and {self.below:g}"
        if self.above is not None:
            return f"a number above {self.above:g}"
        return "a number" if self.low is None else f"a number from {self.low:g}"

    def shape(self) -> dict[str, Any]:
        """A number within the bounds; text with an exponent for readers of YAML 1.1."""
        bounds = {"minimum": self.low, "exclusiveMinimum": self.above, "exclusiveMaximum": self.below}
        if self.low is None and self.above is None:
            bounds["minimum"] = -self.most
        if self.below is None:
            bounds["maximum"] = self.most
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        return {"type": self._types("number", "string"), **given, "pattern": EXPONENT}


@dataclass(frozen=True)
class Share(Number):
    """A share of the rows below 1, or a whole number of them."""

    def accepts(self, value: float) -> bool:
        """Whether it is a share, or a number of rows."""
        return 0 < value < 1 or (value >= 1 and value == int(value))

    def words(self) -> str:
        """What would be right."""
        return "a share below 1 or a whole number of rows"

    def shape(self) -> dict[str, Any]:
        """A number above 0."""
        return {**super().shape(), "exclusiveMinimum": 0}


@dataclass(frozen=True)
class Whole(Value):
    """A whole number from `low` to `high`, both included; 1e3 is one."""

    low: int = field(kw_only=True)
    high: int | None = field(default=None, kw_only=True)
    most: int = field(default=_MOST, kw_only=True)
    """In place of `high` where the number has no bound of its own."""

    def read(self, section: Section) -> Any:
        """The number as `int`."""
        if self.default is None and section.optional(self.name, f"a whole number from {self.low}") is None:
            return None
        return section.whole(self.name, self.default or self.low, self.low, self.high, self.most)

    def shape(self) -> dict[str, Any]:
        """A whole number within the bounds; text with an exponent for readers of YAML 1.1."""
        bounds = {"minimum": self.low, "maximum": self.high or self.most}
        return {"type": self._types("integer", "string"), **bounds, "pattern": EXPONENT}


@dataclass(frozen=True)
class Text(Value):
    """A text that is not empty."""

    def read(self, section: Section) -> Any:
        """The text; where there must be one, null is none."""
        return section.text(self.name, "" if self.is_required else self.default) or self.default

    def shape(self) -> dict[str, Any]:
        """A text."""
        return {**TEXT, "type": self._types("string")}


@dataclass(frozen=True)
class Flag(Value):
    """A key that is true or false."""

    def read(self, section: Section) -> Any:
        """The flag as `bool`."""
        return section.flag(self.name, self.default)

    def shape(self) -> dict[str, Any]:
        """A key that is true or false."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class OneOf(Value):
    """One of a few words."""

    choices: Sequence[str] = field(kw_only=True)

    def read(self, section: Section) -> Any:
        """The word."""
        return section.one_of(self.name, self.choices, self.default)

    def shape(self) -> dict[str, Any]:
        """One of the words."""
        return {"enum": list(self.choices)}


@dataclass(frozen=True)
class Described(Key):
    """A key that its section reads with code of its own; here is what the schema says of it."""

    described: Mapping[str, Any] = field(kw_only=True)

    def shape(self) -> dict[str, Any]:
        """As described."""
        return dict(self.described)


@dataclass(frozen=True)
class Group(Key):
    """A section: a mapping of keys."""

    keys: tuple[Key, ...] = field(kw_only=True)
    short: tuple[str, ...] = field(default=(), kw_only=True)
    """JSON types of its short forms: `boolean` for `promote: false`."""
    more: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """What the schema says besides."""

    def shape(self) -> dict[str, Any]:
        """A mapping of these keys and no others, or a short form."""
        required = [key.name for key in self.keys if key.is_required]
        return {
            "type": self._types("object", *self.short),
            "properties": {key.name: key.schema() for key in self.keys},
            "additionalProperties": False,
            **({"required": required} if required else {}),
            **self.more,
        }


def read_all(section: Section, keys: Sequence[Key]) -> dict[str, Any]:
    """The value of every key that reads itself, by name; the caller finishes the section."""
    return {key.name: key.read(section) for key in keys if isinstance(key, Value)}
