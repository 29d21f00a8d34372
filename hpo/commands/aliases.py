"""`hpo approve` and `hpo rollback`: who is champion of a name, decided by a person."""

from __future__ import annotations

from hpo.errors import HpoError, UsageError
from hpo.paths import Home
from hpo.release.aliases import Aliases, aliases_of, approve, roll_back
from hpo.release.versions import Version, check_name, version_of


def approve_challenger(home: Home, given: str) -> str:
    """Make the challenger of `NAME`, or the version of `NAME/VERSION`, the champion; returns what to say.

    The sweep and the night that it comes from learn of it. Raises `UsageError` for a name or version that does not
    exist, a name without a challenger, and a version without its files.
    """
    name, version = split_name(given)
    check_name(home, name)
    wanted = aliases_of(home, name).challenger if version is None else version
    found = None if wanted is None else _checked_version(home, name, wanted)
    now = approve(home, name, version)
    return _said(name, now) + (_noted(home, found.sweep, name, str(now.champion)) if found and found.sweep else "")


def _noted(home: Home, sweep: str, name: str, version: str) -> str:
    """Have the sweep of a new champion, and the page of its night, say so; returns why that failed, to be said."""
    from hpo.commands.session import plain_errors  # late: study and page take their libraries
    from hpo.nights.page import rewrite_page
    from hpo.release.later_decision import note_decision

    try:
        with plain_errors():
            note_decision(home, sweep, name, version, "champion")
            rewrite_page(home, sweep)
    except HpoError as error:
        return f"; its sweep or its night does not show it: {error}"
    return ""


def roll_back_champion(home: Home, name: str) -> str:
    """Swap champion and previous champion of a name; returns what to say.

    Raises `UsageError` where one is missing, or where the files of the previous one are gone.
    """
    check_name(home, name)
    if (previous := aliases_of(home, name).previous) is not None:
        _checked_version(home, name, previous)
    return _said(name, roll_back(home, name))


def split_name(given: str) -> tuple[str, str | None]:
    """`NAME` or `NAME/VERSION`."""
    name, slash, version = given.partition("/")
    return name, version if slash else None


def _checked_version(home: Home, name: str, version: str) -> Version:
    found = version_of(home, name, version)
    if found is None:
        raise UsageError(f"no version {version!r} of {name!r}; hpo releases {name} lists its versions")
    if not found.has_files():
        raise UsageError(f"the files of version {version} of {name!r} are gone: it cannot become the champion")
    return found


def _said(name: str, now: Aliases) -> str:
    before = f"; version {now.previous} is previous" if now.previous else ""
    return f"version {now.champion} of {name!r} is the champion{before}"
