"""What a text of the YAML names: a path, or an id of the hub. Decided before any network."""

from __future__ import annotations

import difflib
import glob
import itertools
import re
from pathlib import Path

from hpo.config.yaml_source import Section
from hpo.given_path import given_path
from hpo.quoting import quoted
from trainers.protocol.catalog import DATA_SUFFIXES

_HUB_ID = re.compile(r"(?!.{97})(?!.*(--|\.\.))([A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*(?<![.-])", re.ASCII)
"""NAME or ORG/NAME, as the hub has them."""
_MOST_NEIGHBOURS = 1000
"""Names beside the file that are looked at for one that was meant."""


def look_up(
    section: Section, key: tuple[str, ...], value: str, file: Path, kind: str, *, is_hub: bool = False
) -> Path | str | None:
    """An absolute path (of data, perhaps a pattern), or a hub id; None where it is neither: a problem of `key`.

    `kind` is what is looked for, "folder" or "file". `is_hub`: something is given besides that only a hub id has.
    """
    try:
        path = given_path(value, file.parent)
    except ValueError as error:
        section.problem(f"got {quoted(value)}: {error}", f"expected a {kind}, a hub id or fetch:NAME", *key)
        return None
    start = f"paths start at {file.parent.resolve()}"
    if path.exists():
        return path
    if "*" in value and kind == "file":
        if (why := _why_no_match(path)) is not None:
            section.problem(f"no file matches {quoted(value)}{why}", start, *key)
            return None
        return Path(glob.escape(str(path.parent)), path.name)  # a folder may have a name like `[old]`
    if value.startswith((".", "/", "~")) or path.suffix.lower() in (*DATA_SUFFIXES, ".gguf"):
        section.problem(f"no {kind} {quoted(value)}", start, *key)
        return None
    nothing = f"no such folder{' or file' * (kind == 'file')} {quoted(value)}"
    if not _HUB_ID.fullmatch(value):
        section.problem(nothing, f"{start}; an id of the hub is NAME or ORG/NAME", *key)
        return None
    if not is_hub and (meant := _meant(value, file.parent)):
        hub = f"{{source: {value}, revision: main}}"
        section.problem(f"{nothing}: {meant}", f"{start}; if the hub's is meant, write {hub}", *key)
        return None
    return value


def _why_no_match(pattern: Path) -> str | None:
    """Why a pattern names no file, as the end of a sentence that says so; None where it names some."""
    if "*" in str(pattern.parent) or "**" in pattern.name:
        return ": a pattern has * in the name of its files only, and never **"
    return None if any(pattern.parent.glob(pattern.name)) else ""


def _meant(value: str, folder: Path) -> str | None:
    """What stands beside the file and makes a path of what could be a hub id: its first folder, or a name like it."""
    first, _, rest = value.partition("/")
    if rest and (folder / first).is_dir():
        near = _near(rest, folder / first)
        return (
            f"did you mean {quoted(f'{first}/{near}')}?"
            if near
            else f"the folder {quoted(first)} has none of that name"
        )
    near = _near(first, folder)
    if near is None or (rest and not (folder / near / rest).exists()):
        return None
    return f"did you mean {quoted(f'{near}/{rest}' if rest else near)}?"


def _near(name: str, folder: Path) -> str | None:
    """A folder of nearly this name: one or two letters more, fewer or other."""
    try:
        names = [p.name for p in itertools.islice(folder.iterdir(), _MOST_NEIGHBOURS) if p.is_dir()]
    except OSError:  # it may not be read: then it says nothing
        return None
    close = difflib.get_close_matches(name, [n for n in names if abs(len(n) - len(name)) <= 2], n=1, cutoff=0.8)
    return close[0] if close else None
