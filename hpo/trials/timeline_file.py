"""The timeline of a sweep as a file: a line of JSON for each attempt that has ended, only ever appended to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from hpo.errors import HpoError
from hpo.results.timeline import Stint


def note_attempt(path: Path, stint: Stint) -> None:
    """Append one attempt. Not synced: a power cut may lose the last ones, from which nothing else follows."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(asdict(stint))}")  # the line end first: a line that a kill cut stays alone


def read_timeline(path: Path) -> list[Stint]:
    """All attempts in the order in which they ended; none where an earlier hpo ran the sweep.

    A line that a kill cut is left out. Raises `HpoError` where another program wrote in the file.
    """
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            continue
        try:
            found.append(Stint(**{name: content[name] for name in Stint.__dataclass_fields__}))
        except (LookupError, TypeError) as error:
            raise HpoError(f"{path}: {line[:80]} is no attempt at a trial; move the file away: the sweep goes on "
                           "without it, and its report has no timeline") from error  # fmt: skip
    return found
