"""The timeline of a sweep as a file: a line of JSON for each attempt that has ended, only ever appended to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from hpo.errors import HpoError
from hpo.results.timeline import Stint

_WAY_ON = "move the file away: the sweep goes on without it, and its report has no timeline"


def note_attempt(path: Path, stint: Stint) -> None:
    """Append one attempt. Not synced: a power cut may lose the last ones, from which nothing else follows."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(asdict(stint))}")  # the line end first: a line that a kill cut stays alone


def read_timeline(path: Path) -> list[Stint]:
    """All attempts in the order in which they ended; none where an earlier hpo ran the sweep.

    A line that a kill cut is left out. Raises `HpoError` where another program wrote in the file, or it is unreadable.
    """
    if not path.exists():
        return []
    found = []
    for line in _text(path).split("\n"):
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            continue
        try:
            found.append(Stint(**{name: content[name] for name in Stint.__dataclass_fields__}))
        except (LookupError, TypeError) as error:
            raise HpoError(f"{path}: {line[:80]} is not an attempt at a trial; {_WAY_ON}") from error
    return found


def timeline_or_why(path: Path) -> tuple[list[Stint], list[str]]:
    """The same, and none with the reason where the file cannot be read: nothing else follows from it."""
    try:
        return read_timeline(path), []
    except HpoError as error:
        return [], [str(error)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise HpoError(f"{path} cannot be read ({str(error)[:100]}); {_WAY_ON}") from error
