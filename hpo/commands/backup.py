"""`hpo backup` and `hpo restore`: a home copied while it is in use, and a home made of such a copy."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.care.backup import make_backup
from hpo.care.manifest import Manifest
from hpo.care.restore import Restored, restore_backup
from hpo.errors import UsageError
from hpo.given_path import given_path
from hpo.migrations import mlflow_migrations, optuna_migrations
from hpo.paths import Home
from hpo.quoting import clipped
from trainers.protocol.codec import to_json


def back_up(home: Home, folder: Path, since: Path | None = None) -> Manifest:
    """Make a backup of a home in a new folder. Raises as `make_backup` does."""
    return make_backup(home, _absolute(folder), None if since is None else _absolute(since))


def restore(home: Home, backup: Path) -> Restored:
    """Make a home of a backup. Raises as `restore_backup` does."""
    return restore_backup(home, _absolute(backup))


def _absolute(path: Path) -> Path:
    try:
        return given_path(path, Path.cwd())
    except ValueError as error:
        raise UsageError(f"{clipped(str(path))}: {error}; expected the path of a folder") from error


def backup_line(folder: Path, manifest: Manifest) -> str:
    """One line about a new backup, for people."""
    return (
        f"{folder}: {_amount(manifest)}, with its studies ({manifest.studies}); hpo restore {shlex.quote(str(folder))}"
    )


def restored_lines(restored: Restored) -> Iterator[str]:
    """What is there now, and what a person does next."""
    manifest, home = restored.manifest, f"hpo --home {shlex.quote(restored.home)}"
    yield f"{restored.home}: {_amount(manifest)}, as they were at {manifest.made} in {manifest.home}"
    yield f"studies: {restored.studies}; sweeps: {', '.join(restored.sweeps) or 'none'}"
    yield ""
    yield "next:"
    yield f"  {home} list                  # what is there; a sweep that was running is interrupted"
    yield f"  {home} sweep FILE            # continues it, with the same file and the same data"
    yield "  hpo fetch NAME              # demo models and data again: the cache is in no backup"
    current = {"studies.db": optuna_migrations().head, "mlflow.db": mlflow_migrations().head}
    if any(current[name] != revision for name, revision in manifest.schemas.items()):
        yield f"  {home} upgrade               # first: the databases were made by earlier versions"


def manifest_json(manifest: Manifest) -> dict[str, Any]:
    """As `hpo backup --json` prints it: without the list of files, which is in the manifest."""
    return {**to_json(replace(manifest, files=[])), "files": len(manifest.files), "size_bytes": manifest.size}


def restored_json(restored: Restored) -> dict[str, Any]:
    """As `hpo restore --json` prints it."""
    return {
        **to_json(replace(restored, manifest=replace(restored.manifest, files=[]))),
        "manifest": manifest_json(restored.manifest),
    }


def _amount(manifest: Manifest) -> str:
    count = len(manifest.files)
    return f"{count:,} file{'s' * (count != 1)}, {manifest.size / 1e6:,.1f} MB"
