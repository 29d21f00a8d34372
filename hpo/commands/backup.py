"""`hpo backup` and `hpo restore`: a home copied while it is in use, and a home made of such a copy."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.care.backup import make_backup
from hpo.care.manifest import SCHEMAS, Manifest
from hpo.care.restore import Restored, restore_backup
from hpo.errors import UsageError
from hpo.given_path import given_path
from hpo.paths import Home
from hpo.quoting import clipped, listed
from hpo.signals import terminate_as_interrupt
from trainers.protocol.codec import to_json


def back_up(home: Home, folder: Path, since: Path | None = None) -> Manifest:
    """Make a backup of a home in a new folder. Raises as `make_backup` does."""
    with terminate_as_interrupt():  # then nothing half-written stays
        return make_backup(home, _absolute(folder), None if since is None else _absolute(since))


def restore(home: Home, backup: Path) -> Restored:
    """Make a home of a backup. Raises as `restore_backup` does."""
    with terminate_as_interrupt():
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
    yield f"studies in {restored.studies}; sweeps: {listed(restored.sweeps) or 'none'}"
    yield "\nnext:"
    current = {name: migrations().head for name, migrations in SCHEMAS.items()}
    if any(current[name] != revision for name, revision in manifest.schemas.items()):
        yield f"  {home} upgrade      first: the databases were made by earlier versions"
    yield f"  {home} list         sweeps that were running are interrupted"
    yield f"  {home} sweep FILE   continues one, with the same file and data"
    if (Path(restored.home) / "nights").is_dir():
        yield f"  {home} nightly FILE continues tonight's, where a night was running"
    yield f"  {home} fetch NAME   demo models and data again: no backup has the cache"


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
