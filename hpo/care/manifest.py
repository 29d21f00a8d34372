"""What a backup says of itself: when and from what it was made, and the hash of every file in it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hpo.care.tree_copy import FileEntry
from hpo.databases.migrations import Migrations, mlflow_migrations, optuna_migrations
from hpo.errors import MOST_PROBLEMS, HpoError, Problem, UsageError
from hpo.quoting import clipped
from trainers.protocol.codec import from_file, to_file
from trainers.protocol.files import file_hash, write_atomically

MANIFEST = "manifest.json"
CONTENT = "home"
"""The folder of a backup that has the home's files, each at its own place."""
STUDIES = "studies.db"
"""The studies, also those of a server."""
OWN_STUDIES = "studies-of-home.db"
"""The home's own file of studies, where `STUDIES` has those of a server."""
SCHEMAS = {STUDIES: optuna_migrations, OWN_STUDIES: optuna_migrations, "mlflow.db": mlflow_migrations}
"""The databases of a home, each with the library that decides its schema."""


@dataclass(frozen=True)
class Manifest:
    """The first page of a backup."""

    made: str
    """ISO time with its offset, at which the backup began."""
    home: str
    """Where the home was."""
    host: str
    versions: dict[str, str]
    """Package -> version, of hpo and of those that made the databases."""
    schemas: dict[str, str]
    """Database -> the revision of its schema."""
    studies: str = ""
    """What the studies were in; without a password."""
    server: str = ""
    """The address of their server, as the sweeps' folders name it; empty for studies in the home."""
    files: list[FileEntry] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def write(self, backup: Path) -> None:
        """Write it into a backup."""
        write_atomically(backup / MANIFEST, to_file(self))


def read_manifest(backup: Path) -> Manifest:
    """The manifest of a backup. Raises `UsageError` for what is none, `HpoError` for one that is damaged."""
    file = backup / MANIFEST
    if not file.is_file():
        raise UsageError(f"{backup}: is not a backup (it has no {MANIFEST}); expected a folder that hpo backup made")
    try:
        manifest = from_file(Manifest, file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HpoError(f"{file} cannot be read: {clipped(str(error))}; use another backup") from error
    for entry in manifest.files:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise HpoError(
                f"{file}: {entry.path!r} leads out of the backup: hpo did not write that; use another backup"
            )
    return manifest


def check_backup(backup: Path, manifest: Manifest) -> None:
    """Compare every file of a backup with its hash, and its schemas with the installed libraries.

    Raises `HpoError` with every difference, or for a schema that the installed library does not know yet.
    """
    with ThreadPoolExecutor(2) as threads:  # hashing releases the interpreter's lock
        found = list(threads.map(lambda entry: _problem(backup, entry), manifest.files))
    problems = [*filter(None, found), *_foreign(backup, manifest)]
    if problems:
        lines = [f"  {problem}" for problem in problems[:MOST_PROBLEMS]]
        lines += [f"  and {more:,} more"] if (more := len(problems) - len(lines)) else []
        raise HpoError("\n".join([f"{backup} is damaged, nothing was restored; use another backup", *lines]))
    for name, revision in manifest.schemas.items():
        migrations = _migrations_of(name)
        if migrations.age(revision) == "later":
            migrations.check(f"{backup / CONTENT / name}", revision)


def _migrations_of(name: str) -> Migrations:
    if name not in SCHEMAS:
        raise HpoError(f"{MANIFEST}: {name!r} is not a database of a home; a newer hpo wrote it: use that one")
    return SCHEMAS[name]()


def _problem(backup: Path, entry: FileEntry) -> Problem | None:
    file = backup / CONTENT / entry.path
    if not file.is_file():
        return Problem(str(file), "is missing")
    if file.stat().st_size != entry.size:
        return Problem(str(file), f"has {file.stat().st_size:,} bytes", f"expected {entry.size:,}")
    return None if file_hash(file) == entry.sha256 else Problem(str(file), "has changed since the backup was made")


def _foreign(backup: Path, manifest: Manifest) -> Iterator[Problem]:
    """Files that no backup wrote."""
    known = {entry.path for entry in manifest.files}
    for file in sorted((backup / CONTENT).rglob("*")):
        if (file.is_symlink() or not file.is_dir()) and file.relative_to(backup / CONTENT).as_posix() not in known:
            yield Problem(str(file), "is not in the manifest")
