"""`hpo serve`: released models behind HTTP, in a process without torch and MLflow."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.config.serve_config import LogSpec, ServeConfig
from hpo.errors import UsageError
from hpo.given_path import given_path
from hpo.module_command import module_command
from hpo.paths import Home
from hpo.quoting import clipped
from hpo.serving.keys import read_keys
from hpo.serving.order import Order, Place

if TYPE_CHECKING:
    from hpo.release.versions import Version

_FOLLOW_EVERY_S = 2.0
_VERSION = re.compile(r".+/[0-9]+")


def serve(
    home: Home, names: Sequence[str], host: str, port: int, key_file: Path | None = None, *, follow: bool = False,
    config: Path | None = None, log_dir: Path | None = None,
) -> None:  # fmt: skip
    """Replace this process by the server of released models.

    Raises `UsageError` for names without a release, listing all of them, two models of one name, a host that needs a
    key, and where `follow` has nothing to follow; `ConfigError` for a serve configuration with problems.
    """
    read_keys(key_file, host)
    places = _places(home, names)
    if follow and not any(place.version and not _VERSION.fullmatch(name) for name, place in places.items()):
        raise UsageError(
            "--follow: a folder or a version never changes; expected a NAME or NAME@ALIAS among the models"
        )
    order = Order(
        models={name: place.folder for name, place in places.items()},
        host=host,
        port=port,
        key_file=None if key_file is None else key_file.resolve(),
        versions={name: place.version for name, place in places.items() if place.version},
        home=home.dir,
        follow_every=_FOLLOW_EVERY_S if follow else None,
        config=_config(home, config, log_dir),
    )
    command = module_command("hpo.serving", order.to_json())
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  # our own interpreter with a fixed argument list


def _config(home: Home, file: Path | None, log_dir: Path | None) -> ServeConfig:
    """What the server filters and writes down; `log_dir` comes before the file's."""
    config = ServeConfig()
    if file is not None:
        from hpo.config.serve_file import load_serve_config  # late: most servers need no YAML

        config = load_serve_config(file, lambda name: _registered(home, name).folder())
    if log_dir is None:
        return config
    try:
        folder = str(given_path(log_dir, Path()))
    except ValueError as error:
        raise UsageError(f"--log-predictions {clipped(str(log_dir))}: {error}; name a folder") from error
    return replace(config, log=replace(config.log or LogSpec(folder), dir=folder))


def _places(home: Home, names: Sequence[str]) -> dict[str, Place]:
    """Where each model lies, by what requests call it."""
    places: dict[str, Place] = {}
    problems = []
    for given in names:
        try:
            called, place = _release(home, given)
        except UsageError as error:
            problems.append(str(error))
            continue
        if called in places:
            problems.append(f"{clipped(given)}: there is a model {called!r} already; expected different names")
        places[called] = place
    if problems:
        raise UsageError("\n".join(problems))
    return places


def _release(home: Home, given: str) -> tuple[str, Place]:
    """What requests call a model, and where it lies: given as a path, or by its name in the registry."""
    folder = Path(given)
    if "\0" not in given and (folder / "release.json").is_file():
        return folder.resolve().name, Place(folder.resolve())
    version = _registered(home, given)
    return given, Place(version.folder(), version.version)


def _registered(home: Home, given: str) -> Version:
    """A release by its name in the registry."""
    from hpo.release.reference import version_named  # late: MLflow takes two seconds, and a folder needs none of it

    return version_named(home, given)
