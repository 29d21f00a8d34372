"""What is decided about a release after the end of its sweep, by its night or by a person: the sweep notes it too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hpo.paths import Home
from hpo.release.aliases import CHAMPION
from hpo.results.released import Decision
from hpo.study.one_writer import has_strange_folder, holders_of_leases, is_running, one_writer
from hpo.study.store import stored_state, write_state


def note_decision(home: Home, sweep: str, name: str, version: str, decision: Decision) -> None:
    """Write into a sweep what has become of the challenger that it has released, as `challenge` does.

    A sweep that is gone, or has another challenger, stays as it is. So does one that runs: at its end it finds the
    alias by itself. Raises `HpoError` where the study cannot be read or written.
    """
    if has_strange_folder(home, sweep) or is_running(home, sweep, holders_of_leases(home)):
        return
    state = stored_state(home.studies_db, sweep)
    known = state.challenger if state else None
    if known is None or (known.name, known.version) != (name, version):
        return
    changes: dict[str, Any] = {"challenger": replace(known, decision=decision)}
    if decision == "champion":
        release = replace(known, uri=f"models:/{name}@{CHAMPION}", decision=decision)
        changes = {"release": release, "refusal": None, "challenger": None}
    with one_writer(home, sweep, needs_files=False):
        write_state(home.studies_db, sweep, **changes)
