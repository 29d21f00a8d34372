"""`hpo sync`: the runs of sweeps copied to a team's tracking server, as far as it does not have them yet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hpo.databases.sqlite import usable
from hpo.errors import SweepError, UsageError
from hpo.lock import held_if_free
from hpo.paths import Home
from hpo.quoting import listed
from hpo.study.store import study_names
from hpo.tracking.mlflow_places import experiments_of_sweeps
from hpo.tracking.remote.server import VARIABLE, TrackingServer

if TYPE_CHECKING:
    from hpo.tracking.remote.delivery import Delivery
    from hpo.tracking.remote.problems import Unavailable

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 4.0
"""Before a failed request is tried again; a server that fails for longer is left alone."""


@dataclass(frozen=True)
class SyncedSweep:
    """What was copied of a sweep, and what was not."""

    sweep: str
    server: str
    runs: int
    """In all."""
    copied_runs: int
    """Of which something was copied now."""
    copied_files: int
    waiting_runs: int
    """That the server does not have as a whole."""
    problems: tuple[str, ...] = ()
    """Why they wait."""
    busy: bool = False
    """Whether another process copies them now: that of the sweep, say."""

    def to_json(self) -> dict[str, Any]:
        """As `hpo sync --json` prints it."""
        return asdict(self)


def sync_sweeps(home: Home, names: Sequence[str], done: Callable[[SyncedSweep], object]) -> list[SyncedSweep]:
    """Copy the runs of sweeps, or of all that have some here; `done` gets each sweep when its turn is over.

    After a kill the same command continues. Where the server does not answer, the rest waits. Raises `UsageError` for a
    sweep that does not exist or has its runs in another home, and where the environment names no server.
    """
    server = TrackingServer.named(os.environ)
    if server is None:
        raise UsageError(f"no server to copy to; set {VARIABLE} to its address, as in http://HOST:5000")
    known = study_names(home.studies_db)
    if unknown := [name for name in names if name not in known]:
        there = f"there are: {listed(known)}" if known else "there are none yet"
        raise UsageError(f"no sweep {', '.join(map(repr, unknown))}; {there}")
    if not usable(home.mlflow_db):
        raise UsageError(f"nothing to copy yet: there is no store at {home.mlflow_db}; run a sweep first")
    here = {found.sweep for found in experiments_of_sweeps(home)}  # a database on a server has those of other homes too
    if absent := [name for name in names if name not in here]:
        raise UsageError(f"{listed(absent)}: no runs in {home.mlflow_db}; --home names the home that a sweep ran in")
    synced: list[SyncedSweep] = []
    down: str | None = None
    with server.for_this_process():
        for name in dict.fromkeys(names or (name for name in known if name in here)):
            sweep, down = _synced(home, name, server.url, down)
            synced.append(sweep)
            done(sweep)
    return synced


def said(synced: SyncedSweep) -> str:
    """One line about a sweep, for people."""
    runs, waiting = f"{synced.runs} run{'s' * (synced.runs != 1)}", synced.waiting_runs
    files = f"{synced.copied_files} file{'s' * (synced.copied_files != 1)}"
    copied = f"{synced.copied_runs} of {runs} and {files} copied" if synced.copied_runs else "nothing copied"
    if synced.busy:
        return f"{synced.sweep}: another process copies its runs now ({waiting} of {runs} wait)"
    if waiting or synced.problems:
        return f"{synced.sweep}: {copied}, {waiting} wait{'s' * (waiting == 1)}"
    return f"{synced.sweep}: {copied}; {synced.server} has all of it"


def raise_waiting(synced: Sequence[SyncedSweep]) -> None:
    """Raises `SweepError` where something waits, with every reason."""
    problems = list(dict.fromkeys(problem for sweep in synced for problem in sweep.problems))
    if problems:
        waiting = [sweep.sweep for sweep in synced if sweep.problems]
        raise SweepError("\n".join([f"{listed(waiting)}: not everything is copied; hpo sync continues", *problems]))


def _synced(home: Home, name: str, url: str, down: str | None) -> tuple[SyncedSweep, str | None]:
    """A sweep copied, and why the server is down: then it is not asked about the next sweep."""
    from hpo.tracking.remote.delivery import opened_delivery  # late: MLflow takes two seconds, which no error needs
    from hpo.tracking.remote.problems import Forbidden

    home.sweep(name).dir.mkdir(parents=True, exist_ok=True)
    with held_if_free(home.sweep(name).remote_lock) as is_mine, opened_delivery(home, name, url) as delivery:
        problem = _delivered(delivery) if is_mine and down is None else None
        if problem is not None and not isinstance(problem, Forbidden):
            down = f"{url} {problem}"
        reason = f"{url} {problem}" if problem else down
        problems = [reason] if is_mine and reason else []
        sweep = SyncedSweep(
            name, url, delivery.total, len(delivery.sent_runs), delivery.sent_files, delivery.waiting,
            (*problems, *delivery.refusals), busy=not is_mine,
        )  # fmt: skip
    return sweep, down


def _delivered(delivery: Delivery) -> Unavailable | None:
    """Deliver everything that the server takes; why it takes nothing more, or None."""
    from hpo.tracking.remote.problems import NotAllowed, Silent, Unavailable

    wait_s, written = 0.0, 0
    while True:
        try:
            delivery.records()
            for _ in delivery.files():
                pass
            return None
        except Unavailable as problem:
            before, written = written, delivery.written
            wait_s = _FIRST_WAIT_S if written > before else max(_FIRST_WAIT_S, 2 * wait_s)
            if isinstance(problem, (NotAllowed, Silent)) or wait_s > _LONGEST_WAIT_S:
                return problem
            time.sleep(wait_s)
