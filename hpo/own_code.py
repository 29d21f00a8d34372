"""The user's own files that a sweep names: below the YAML's folder, known by their hash, never run here."""

from __future__ import annotations

from pathlib import Path

from hpo.yaml_source import Section
from trainers.files import file_fingerprint


def own_file(root: Section, name: str, folder: Path, *key: str) -> str | None:
    """The hash of the file that `FILE.py:FUNCTION` names; None, and a problem at `key`, where it is of no use."""
    file = name.partition(":")[0]
    path = (folder / file).resolve()
    if not path.is_relative_to(folder):
        root.problem(f"got {name!r}", f"expected a file below {folder}", *key)
    elif not path.is_file():
        root.problem(f"no file {file!r}", f"paths start at {folder}", *key)
    else:
        return file_fingerprint([path])
    return None
