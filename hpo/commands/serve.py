"""`hpo serve`: released models behind HTTP, in a process without torch and MLflow."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hpo.config.serve_config import LogSpec, ServeConfig
from hpo.errors import UsageError
from hpo.given_path import given_path
from hpo.paths import Home
from hpo.quoting import clipped
from hpo.serving.keys import read_keys
from hpo.serving.order import Order


def serve(
    home: Home, names: Sequence[str], host: str, port: int, key_file: Path | None, config: Path | None = None,
    log_dir: Path | None = None,
) -> None:  # fmt: skip
    """Replace this process by the server of released models.

    Raises `UsageError` for names without a release, listing all of them, two models of one name, and a host that needs
    a key; `ConfigError` for a serve configuration with problems.
    """
    read_keys(key_file, host)
    keys = None if key_file is None else key_file.resolve()
    order = Order(_folders(home, names), host, port, keys, _config(home, config, log_dir))
    command = [sys.executable, "-m", "hpo.serving", order.to_json()]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  # our own interpreter with a fixed argument list


def _config(home: Home, file: Path | None, log_dir: Path | None) -> ServeConfig:
    """What the server filters and writes down; `log_dir` comes before the file's."""
    config = ServeConfig()
    if file is not None:
        from hpo.config.serve_file import load_serve_config  # late: most servers need no YAML

        config = load_serve_config(file, partial(_registered, home))
    if log_dir is None:
        return config
    try:
        folder = str(given_path(log_dir, Path()))
    except ValueError as error:
        raise UsageError(f"--log-predictions {clipped(str(log_dir))}: {error}; name a folder") from error
    return replace(config, log=replace(config.log or LogSpec(folder), dir=folder))


def _folders(home: Home, names: Sequence[str]) -> dict[str, Path]:
    """The release folder of each name, by what requests call the model."""
    folders: dict[str, Path] = {}
    problems = []
    for given in names:
        try:
            called, folder = _release(home, given)
        except UsageError as error:
            problems.append(str(error))
            continue
        if called in folders:
            problems.append(f"{clipped(given)}: there is a model {called!r} already; expected different names")
        folders[called] = folder
    if problems:
        raise UsageError("\n".join(problems))
    return folders


def _release(home: Home, given: str) -> tuple[str, Path]:
    """What requests call a model, and its release folder: given as a path, or by its name in the registry."""
    folder = Path(given)
    if "\0" not in given and (folder / "release.json").is_file():
        return folder.resolve().name, folder.resolve()
    return given, _registered(home, given)


def _registered(home: Home, given: str) -> Path:
    """The folder of a release by its name in the registry."""
    from hpo.release.reference import folder_of  # late: MLflow takes two seconds, and a folder needs none of it

    return folder_of(home, given)
