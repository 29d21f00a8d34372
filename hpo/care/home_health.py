"""A home's own health: its databases, sweeps that nobody runs, what kills and deletions have left."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from hpo.care.finding import Finding
from hpo.databases.migrations import Migrations, mlflow_migrations, optuna_migrations, revision_of
from hpo.databases.sqlite import usable
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError
from hpo.garbage import half_deleted
from hpo.nights.record import NightFiles, read_night
from hpo.paths import Home
from hpo.quoting import listed
from hpo.study.one_writer import is_running
from hpo.study.store import stored_state, study_names
from trainers.protocol.counted import counted

_BUSY_S = 2.0


def look_at_home(home: Home, studies: StudiesDatabase | None) -> Iterator[Finding]:
    """Databases, sweeps, nights and leftovers; studies that are not in a file are looked at elsewhere."""
    if not home.dir.is_dir():
        yield Finding("ok", "home", f"{home.dir} does not exist yet; the first sweep creates it")
        return
    yield Finding("ok", "home", str(home.dir))
    yield database_finding("MLflow's store", home.mlflow_db, mlflow_migrations())
    if studies is not None and studies.file is not None:
        found = database_finding("studies", studies.file, optuna_migrations())
        yield found
        if found.mark == "ok":
            yield from _sweeps(home, studies)
    yield from _nights(home)
    yield from _leftovers(home)


def database_finding(what: str, file: Path, migrations: Migrations) -> Finding:
    """A SQLite database: whether it is whole, and has the schema of the installed library."""
    try:
        if not usable(file):
            return Finding("ok", what, f"none yet ({file.name})")
        with closing(sqlite3.connect(f"file:{file}?mode=ro", timeout=_BUSY_S, uri=True)) as database:
            answer = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
        if answer != "ok":
            return Finding("problem", what, f"{file} is damaged: {answer}", "restore a backup: hpo restore")
        revision = revision_of(file)
        migrations.check(str(file), revision)
    except (HpoError, sqlite3.Error) as error:
        return Finding("problem", what, str(error))
    return Finding(
        "ok", what, f"{file.name}, {file.stat().st_size / 1e6:,.1f} MB, schema {revision} of {migrations.library}"
    )


def _sweeps(home: Home, studies: StudiesDatabase) -> Iterator[Finding]:
    running, orphans, unreadable = [], [], []
    names = study_names(studies)
    for name in names:
        if is_running(home, name, {}):
            running.append(name)
            continue
        try:
            state = stored_state(studies, name)
        except HpoError as error:
            unreadable.append(str(error))
            continue
        if state is not None and state.state == "running":
            orphans.append(name)
    yield Finding("ok", "sweeps", f"{len(names)}" + (f"; running now: {listed(running)}" if running else ""))
    ways = {False: "hpo sweep FILE continues one", True: "hpo nightly FILE continues that of tonight"}
    for is_of_night, way in ways.items():
        if found := [name for name in orphans if _is_of_night(home, name) is is_of_night]:
            yield Finding("note", "sweeps", f"interrupted by a kill: {listed(found)}",
                          f"{way}, hpo delete --sweep NAME removes it")  # fmt: skip
    for problem in unreadable:
        yield Finding("problem", "sweeps", problem)


def _nights(home: Home) -> Iterator[Finding]:
    """Records that cannot be read: where `hpo nightly` needs one, no night of that name runs."""
    for folder in sorted(home.dir.glob("nights/*")):
        for path in NightFiles(folder).paths():
            try:
                read_night(path)
            except HpoError as error:
                yield Finding("problem", "nights", str(error))


def _is_of_night(home: Home, sweep: str) -> bool:
    """Whether a sweep was begun by a night, which alone continues it."""
    return (home.dir / "nights" / sweep[: -len("-2026-11-28")] / f"{sweep[-len('2026-11-28') :]}.json").exists()


def _leftovers(home: Home) -> Iterator[Finding]:
    ways = [
        (half_deleted(home.sweeps), "hpo gc removes it"),
        ([*home.dir.glob("mlflow.new")], "remove it while no hpo runs in this home"),
        ([*home.dir.glob(".restored")], "remove it; if the home was not used since, empty it and restore again"),
    ]
    for left, way in ways:
        if left:
            names = listed(path.relative_to(home.dir) for path in left)
            yield Finding("note", "leftovers", f"{names}: left by a command that was killed", way)
    waiting = sorted(home.dir.glob("nights/*/outbox/*.json"))
    if waiting:
        yield Finding("note", "notices", f"{counted(len(waiting), 'notice has', 'notices have')} not been delivered",
                      "hpo nights NAME DATE says why; the next hpo nightly tries again")  # fmt: skip
