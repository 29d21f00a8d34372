"""JSON and JSON Lines; the content of a file decides which of them it is, because many files have the other suffix.

A `.json` is also read where its rows certainly are inside one object: in its only list of objects, or by columns, by
rows or split as pandas writes them.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.data.formats.base import Entry, Reading, names, refused
from trainers.data.formats.json_text import NotJson, Parser, has_half_characters, named_twice, row_of
from trainers.data.formats.text_files import opened
from trainers.protocol.events import Finding

LINES = "one object a line"
LIST = "expected a list of objects"
WAY_OUT = f'{LIST}, or {LINES}; pandas writes it with df.to_json(FILE, orient="records", lines=True)'


def read_lines(path: Path, reading: Reading) -> Iterator[Entry]:
    """The rows of a `.jsonl`: one object per line, or one list, or objects of several lines each."""
    with opened(path) as file:
        first = next((line for line in file if line.strip()), "")
    if _is_object(first):
        return _lines(path, reading)
    try:
        whole = _text(path)
        values = list(Parser().parse_each(whole))
    except NotJson:
        return _lines(path, reading)
    is_list = len(values) == 1 and isinstance(values[0][1], list)
    return _whole(path, whole, reading) if is_list or _are_objects(values) else _lines(path, reading)


def read_whole(path: Path, reading: Reading) -> Iterator[Entry]:
    """The rows of a `.json`: a list of objects, or one object per line, or objects one after the other.

    Raises `DataProblem` where it is none of these, and not an object with rows inside.
    """
    whole = _text(path)
    lines = list(itertools.islice((line for line in io.StringIO(whole) if line.strip()), 2))
    if len(lines) > 1 and any(_is_object(line) for line in lines) and not _is_json(whole):
        return _lines(path, reading)
    return _whole(path, whole, reading)


def _text(path: Path) -> str:
    with opened(path) as file:
        return file.read()


def _is_json(text: str) -> bool:
    try:
        Parser().parse(text)
    except NotJson:
        return False
    return True


def _is_object(line: str) -> bool:
    try:
        return isinstance(Parser().parse(line), dict)
    except NotJson:
        return False


def _are_objects(values: list[tuple[int, Any]]) -> bool:
    return len(values) > 0 and all(isinstance(value, dict) for _, value in values)


def _lines(path: Path, reading: Reading) -> Iterator[Entry]:
    parser = Parser()
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _row_of_line(parser, line, f"{path}:{number}")
    _note_nans(path, parser, reading)


def _row_of_line(parser: Parser, line: str, where: str) -> Entry:
    try:
        return row_of(parser.parse(line), where, LINES, has_half_characters(line))
    except NotJson as error:
        if not error.column:
            return [Finding(where, f"cannot be read as JSON: {error}", LINES)]
        return [Finding(where, f"is not JSON: {error} (column {error.column})", LINES)]


def _whole(path: Path, whole: str, reading: Reading) -> Iterator[Entry]:
    """The rows of a file that is one value, or several objects one after the other."""
    parser = Parser()
    may_be_half = has_half_characters(whole)
    try:
        values = list(parser.parse_each(whole))
    except NotJson as error:
        if not error.line:
            raise refused(path, f"cannot be read as JSON: {error}") from error
        raise refused(f"{path}:{error.line}", f"is not JSON: {error}") from error
    if len(values) > 1 and _are_objects(values):
        for line, value in values:
            yield row_of(value, f"{path}:{line}", LINES, may_be_half)
    elif len(values) == 1:
        for number, value in enumerate(_rows_inside(path, values[0][1], reading), 1):
            yield row_of(value, f"{path} item {number}", LIST, may_be_half)
    elif values:
        raise refused(f"{path}:{values[1][0]}", "is not JSON: Extra data", WAY_OUT)
    _note_nans(path, parser, reading)


def _note_nans(path: Path, parser: Parser, reading: Reading) -> None:
    if parser.nans:
        reading.notes.append(f"{path} contains NaN ({parser.nans:,}), which is read as null: a missing value")


def _rows_inside(path: Path, value: Any, reading: Reading) -> list[Any]:
    """The rows of a value that is a list, or an object that certainly contains rows."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise refused(path, f"contains {type(value).__name__}", WAY_OUT)
    if twice := named_twice(value):
        raise refused(path, f"has several values with the same name: {names(twice)}", "each name once")
    if (rows := _pandas_split(value)) is not None:
        return rows
    lists = [name for name, inner in value.items() if _is_list_of_objects(inner)]
    if len(lists) == 1:
        reading.notes.append(f"{path} is an object; its rows are read from the list {lists[0]!r}")
        return list(value[lists[0]])
    if len(lists) > 1:
        found = f"is an object with several lists of rows: {names(lists)}"
        raise refused(path, found, "expected one list; write each into its own file, such as train.json and test.json")
    if (rows := _pandas_columns(value)) is not None or (rows := _pandas_index(value)) is not None:
        return rows
    raise refused(path, f"is one object, with {names(list(value)) or 'nothing in it'}", WAY_OUT)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(one, dict) for one in value)


def _pandas_split(value: dict[str, Any]) -> list[Any] | None:
    """`{"columns": ["text"], "index": [0], "data": [["a"]]}`"""
    columns, data = value.get("columns"), value.get("data")
    if not set(value) <= {"columns", "index", "data"} or not isinstance(columns, list) or not isinstance(data, list):
        return None
    is_table = all(isinstance(row, list) and len(row) == len(columns) for row in data)
    if not is_table or not all(isinstance(name, str) for name in columns) or len(set(columns)) != len(columns):
        return None
    return [dict(zip(columns, row, strict=True)) for row in data]


def _pandas_columns(value: dict[str, Any]) -> list[Any] | None:
    """`{"text": {"0": "a", "1": "b"}}`"""
    inner = _tables(value)
    if inner is None or _are_numbers(value) or not _are_numbers(inner[0]):
        return None
    return [{name: cells[number] for name, cells in value.items()} for number in inner[0]]


def _pandas_index(value: dict[str, Any]) -> list[Any] | None:
    """`{"0": {"text": "a"}, "1": {"text": "b"}}`"""
    inner = _tables(value)
    return None if inner is None or not _are_numbers(value) or _are_numbers(inner[0]) else list(inner)


def _tables(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The objects inside an object, where all have the same names."""
    inner = list(value.values())
    if not inner or not all(isinstance(one, dict) and one.keys() == inner[0].keys() and one for one in inner):
        return None
    return inner


def _are_numbers(given: dict[str, Any]) -> bool:
    return all(name.isdecimal() for name in given)
