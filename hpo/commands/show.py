"""`hpo show` and `hpo list`: sweeps as they are stored, summed up."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.errors import HpoError
from hpo.lock import is_locked
from hpo.paths import Home
from hpo.results.summary import SweepSummary, summarize
from hpo.study.store import study_names, unreadable, view_study


@dataclass(frozen=True)
class UnreadableSweep:
    """A sweep whose records cannot be read, and why."""

    sweep: str
    problem: str

    def to_json(self) -> dict[str, str]:
        """As `hpo list --json` prints it."""
        return {"sweep": self.sweep, "state": "unreadable", "problem": self.problem}


def read_sweep(home: Home, name: str) -> SweepSummary:
    """A sweep, summed up. Raises `UsageError` for a name that is none, `HpoError` for a damaged study."""
    stored = view_study(home.studies_db, name)
    state: str = stored.state.state
    if is_locked(home.sweep(name).lock):
        state = "running"
    elif state == "running":  # whoever wrote that was killed
        state = "interrupted"
    files = sorted(home.sweep(name).champion.glob("*")) if state == "complete" else []
    try:
        return summarize(stored, state, {file.name: str(file) for file in files})
    except (LookupError, TypeError, ValueError) as error:
        raise unreadable(name, home.studies_db, error) from error


def list_sweeps(home: Home) -> list[SweepSummary | UnreadableSweep]:
    """Every sweep by name; one that cannot be read does not hide the others.

    Raises `HpoError` where there are sweeps and none of them can be read.
    """
    found = [_read_or_problem(home, name) for name in study_names(home.studies_db)]
    problems = [sweep.problem for sweep in found if isinstance(sweep, UnreadableSweep)]
    if problems and len(problems) == len(found):
        raise HpoError("\n".join(problems[:10]))
    return found


def _read_or_problem(home: Home, name: str) -> SweepSummary | UnreadableSweep:
    try:
        return read_sweep(home, name)
    except HpoError as error:
        return UnreadableSweep(name, str(error))
