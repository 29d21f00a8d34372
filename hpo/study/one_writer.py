"""One process runs a sweep: it holds the lock of the sweep's folder and, with studies on a server, a lease there.

A home can outlive its studies, and `HPO_STUDIES` can name another database than yesterday: a folder says which one has
its study, and no sweep of that name in another database may use its files, or have them freed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hpo.errors import UsageError
from hpo.lock import is_locked, sweep_lock
from hpo.paths import NAME_PATTERN, Home
from hpo.study.store import study_names
from trainers.protocol.files import write_atomically

if TYPE_CHECKING:
    from hpo.study.lease import Holder


@contextmanager
def one_writer(home: Home, name: str, *, needs_files: bool = True) -> Iterator[int]:
    """Hold a sweep, and yield the file descriptor of its lock, for child processes to keep.

    Raises `SweepError` with the holder where another process runs it, here or on another machine, and `UsageError`
    where the folder's study is in another database or, with `needs_files`, the study's files in another home.
    """
    refuse_strange_folder(home, name)
    if needs_files and not home.studies_db.file:
        _refuse_other_home(home, name)
    with sweep_lock(home.sweep(name).lock) as lock_fd:
        if home.studies_db.file:
            yield lock_fd
            return
        from hpo.study.lease import held_lease  # late: it takes SQLAlchemy

        with held_lease(home.studies_db, name, home.dir):
            write_atomically(home.sweep(name).studies, f"{home.studies_db.address}\n")
            yield lock_fd


def refuse_strange_folder(home: Home, name: str) -> None:
    """Raises `UsageError` where the study of a sweep's folder is in another database than the one in use."""
    if not has_strange_folder(home, name):
        return
    paths = home.sweep(name)
    known = paths.studies.read_text(encoding="utf-8").strip() if paths.studies.exists() else f"{home.dir}/studies.db"
    way = f"if the studies were moved to where HPO_STUDIES says, write that address into {paths.studies}"
    raise UsageError(
        f"{paths.dir} has files of a sweep whose study is in {known}, not in {home.studies_db}: let HPO_STUDIES name "
        f"that one, or give the sweep another name; {way}"
    )


def _refuse_other_home(home: Home, name: str) -> None:
    """Raises `UsageError` where another home has the files of a sweep; while a process runs it, its lease says so."""
    from hpo.study.lease import holders  # late, as above

    if home.sweep(name).studies.exists() or name not in study_names(home.studies_db):
        return
    last = holders(home.studies_db).get(name)
    if last and last.is_running and not last.is_dead:
        return
    where = f"home {last.home} of {last.host}" if last else "another home"
    raise UsageError(
        f"sweep {name!r} was run in {where}, which has its adapters and checkpoints; {home.dir} has none of them: "
        "continue it there, share that home, or give the sweep another name"
    )


def has_strange_folder(home: Home, name: str) -> bool:
    """Whether a sweep's folder has files of a study that is in another database than the one in use."""
    paths, studies = home.sweep(name), home.studies_db
    if paths.studies.exists():
        return paths.studies.read_text(encoding="utf-8").strip() != studies.address
    return studies.file is None and any(paths.dir.glob("*/*/result.json"))


def sweeps_of_server(home: Home) -> Mapping[str, set[str]]:
    """Address of a server -> the sweeps of this home that have their studies there; an address without any has none."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for mark in sorted(home.sweeps.glob("*/studies")):
        found[mark.read_text(encoding="utf-8").strip()].add(mark.parent.name)
    return found


def has_other_studies(home: Home) -> bool:
    """Whether a folder of the home has a study in another database than the one in use."""
    names = [folder.name for folder in home.sweeps.glob("*") if NAME_PATTERN.fullmatch(folder.name)]
    return any(has_strange_folder(home, name) for name in names)


def is_running(home: Home, name: str, holders: Mapping[str, Holder]) -> bool:
    """Whether a process runs a sweep, here or elsewhere; `holders` is what `holders_of_leases` gives."""
    return is_locked(home.sweep(name).lock) or name in holders


def holders_of_leases(home: Home) -> Mapping[str, Holder]:
    """Sweep -> the process that has its lease, on whichever machine; nothing for studies in the home."""
    if home.studies_db.file:
        return {}
    from hpo.study.lease import holders  # late, as above

    return {name: holder for name, holder in holders(home.studies_db).items() if holder.is_running}
