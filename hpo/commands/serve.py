"""`hpo serve`: released models behind HTTP, in a process without torch and MLflow."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hpo.errors import UsageError
from hpo.paths import Home
from hpo.quoting import clipped
from hpo.serving.keys import read_keys
from hpo.serving.order import Order, Place

_FOLLOW_EVERY_S = 2.0
_VERSION = re.compile(r".+/[0-9]+")


def serve(
    home: Home, names: Sequence[str], host: str, port: int, key_file: Path | None, follow: bool = False
) -> None:  # fmt: skip
    """Replace this process by the server of released models.

    Raises `UsageError` for names without a release, listing all of them, two models of one name, a host that needs a
    key, and where `follow` has nothing to follow.
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
    )
    command = [sys.executable, "-m", "hpo.serving", order.to_json()]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  # our own interpreter with a fixed argument list


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
    from hpo.release.reference import version_named  # late: MLflow takes two seconds, and a folder needs none of it

    version = version_named(home, given)
    return given, Place(version.folder(), version.version)
