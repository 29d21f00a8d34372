"""`hpo approve` and `hpo rollback`: who is champion of a name, decided by a person."""

from __future__ import annotations

from hpo.errors import UsageError
from hpo.paths import Home
from hpo.release.aliases import Aliases, aliases_of, approve, roll_back
from hpo.release.versions import check_name, version_of


def approve_challenger(home: Home, given: str) -> str:
    """Make the challenger of `NAME`, or the version of `NAME/VERSION`, the champion; returns what to say.

    Raises `UsageError` for a name or version that does not exist, a name without a challenger, and a version whose
    files are gone.
    """
    name, version = split_name(given)
    check_name(home, name)
    wanted = aliases_of(home, name).challenger if version is None else version
    if wanted is not None:
        _check_version(home, name, wanted)
    return _said(name, approve(home, name, version))


def roll_back_champion(home: Home, name: str) -> str:
    """Swap champion and previous champion of a name; returns what to say.

    Raises `UsageError` where one is missing, or where the files of the previous one are gone.
    """
    check_name(home, name)
    if (previous := aliases_of(home, name).previous) is not None:
        _check_version(home, name, previous)
    return _said(name, roll_back(home, name))


def split_name(given: str) -> tuple[str, str | None]:
    """`NAME` or `NAME/VERSION`."""
    name, slash, version = given.partition("/")
    return name, version if slash else None


def _check_version(home: Home, name: str, version: str) -> None:
    found = version_of(home, name, version)
    if found is None:
        raise UsageError(f"no version {version!r} of {name!r}; hpo releases {name} lists its versions")
    if not found.has_files():
        raise UsageError(f"the files of version {version} of {name!r} are gone: it cannot become the champion")


def _said(name: str, now: Aliases) -> str:
    before = f"; version {now.previous} is previous" if now.previous else ""
    return f"version {now.champion} of {name!r} is the champion{before}"
