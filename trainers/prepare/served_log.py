"""Reads prediction logs of a server: what was asked, and what was predicted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.data.formats.base import MAX_PLACES, DataProblem
from trainers.protocol.events import Finding
from trainers.runtime.inputs import from_json
from trainers.runtime.messages import as_message
from trainers.tasks.instruct import parse_template

OUTSIDE = "O"
"""The tag of a word that is in no entity."""
PROMPTS: Mapping[str, Mapping[str, str]] = {"causal-lm": {"text": "prompt"}}
"""Task -> what a log calls a column otherwise than its role."""


@dataclass(frozen=True)
class Asked:
    """The input of a row."""

    whole: str
    """All of it; of a chat every message before the answer."""
    said: str
    """What people wrote of it: of a chat the user's messages."""


@dataclass(frozen=True)
class Prediction:
    """A row of a log."""

    characters: int
    labels: frozenset[str]
    asked: Asked | None
    """None where the log has no texts."""


@dataclass
class Log:
    """What prediction logs say of one task."""

    rows: list[Prediction] = field(default_factory=list)
    others: int = 0
    """Rows of other tasks."""
    refused: int = 0
    """Prompts that a filter refused."""
    refused_by: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    """Filter -> category -> prompts."""

    def add(self, values: Mapping[str, Any], task: str, columns: Mapping[str, str]) -> None:
        """Take a row. Raises `ValueError`, `TypeError`, `KeyError` or `AttributeError` for a damaged one."""
        if values.get("task") != task:
            self.others += 1
        elif "refused" in values:
            refused = values["refused"]
            self.refused += 1
            for category in refused["categories"]:
                self.refused_by[str(refused["filter"])][str(category)] += 1
        else:
            self.rows.append(_prediction(values, task, columns))


def read_logs(files: Sequence[str], task: str, columns: Mapping[str, str]) -> Log:
    """What logs say of a task. Raises `DataProblem` for a file that is not a prediction log."""
    log = Log()
    problems: list[Finding] = []
    for file in files:
        for where, values in _lines(Path(file)):
            if not isinstance(values, dict) or not (
                isinstance(values.get("predicted"), dict) or isinstance(values.get("refused"), dict)
            ):
                problems.append(Finding(where, "is not a row of a prediction log", "a file that hpo serve has written"))
                continue
            try:
                log.add(values, task, columns)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                problems.append(Finding(where, f"is damaged: {error}", "a row as hpo serve has written it"))
    if problems:
        raise DataProblem(problems[:MAX_PLACES])
    return log


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{file}:{number}", _value(line)
    except (OSError, UnicodeDecodeError) as error:
        found = f"cannot be read: {type(error).__name__}"
        raise DataProblem([Finding(str(file), found, "a file that hpo serve has written")]) from error


def _value(line: str) -> Any:
    """The value of a line of JSON; None where a text in it has NUL or half a character."""
    try:
        return from_json(line)
    except ValueError:
        return None


def _prediction(values: Mapping[str, Any], task: str, columns: Mapping[str, str]) -> Prediction:
    """A log names the columns of a template as the data does, and all others by their roles."""
    own = columns if task == "instruct" else {**{role: role for role in columns}, **PROMPTS.get(task, {})}
    asked = asked_of(values, own, task)
    return Prediction(int(values.get("characters", 0)), _labels(values["predicted"]), asked if asked.whole else None)


def _labels(predicted: Mapping[str, Any]) -> frozenset[str]:
    parts = [*predicted.get("entities", ()), *({"label": one["tag"]} for one in predicted.get("tags", ()))]
    given = [*predicted.get("labels", ()), *(one["label"] for one in parts)]
    return frozenset(map(str, [*given, predicted["label"]] if "label" in predicted else given)) - {OUTSIDE}


def asked_of(values: Mapping[str, Any], columns: Mapping[str, str], task: str) -> Asked:
    """The input of a training row, or of one of a log."""
    if task == "chat":
        return _asked_in_chat(from_json(values.get(columns["messages"])))
    if task == "instruct":
        every = [name for _, name in parse_template(columns["text_template"]) if name is not None]
        names = every[: every.index(columns.get("answer", every[-1]))]
    elif task == "token-classification":
        names = [columns[role] for role in ("words", "text") if columns.get(role) in values][:1]
    else:
        names = [columns[role] for role in ("text", "text_pair", "input") if role in columns]
    text = "\n".join(_text(values.get(name)) for name in names)
    return Asked(text, text)


def _text(value: Any) -> str:
    """The text of a column; words are a list, and a cell may have any value."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _asked_in_chat(given: Any) -> Asked:
    messages = [as_message(one) for one in given or ()]
    if messages and messages[-1]["role"] == "assistant":
        messages.pop()
    said = [_text(one["content"]) for one in messages if one["role"] == "user"]
    return Asked("\n".join(_text(one["content"]) for one in messages), "\n".join(said))
