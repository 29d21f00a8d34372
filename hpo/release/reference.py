"""A released version as people name it: NAME, NAME@ALIAS or NAME/VERSION"""

from __future__ import annotations

import re

from hpo.errors import UsageError
from hpo.paths import Home
from hpo.quoting import listed, quoted
from hpo.release.registry import released_version
from hpo.release.versions import Version, check_name, holder_of, version_of, versions_of
from hpo.tracking.mlflow_store import client

_REFERENCE = re.compile(r"(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<version>[0-9]+))")


def version_named(home: Home, reference: str) -> Version:
    """A released version; a plain NAME is NAME@champion. Raises `UsageError` when there is none."""
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        return released_version(home, reference)
    name, alias, version = parts.group("name", "alias", "version")
    check_name(home, name)
    found = holder_of(home, name, alias) if alias else version_of(home, name, version)
    if found is None:
        raise UsageError(f"no released model {quoted(reference)}; {_known(home, name)}")
    return found


def _known(home: Home, name: str) -> str:
    """The versions and aliases of a name."""
    versions = sorted(int(found.version) for found in versions_of(home, name))
    aliases = [f"@{alias}" for alias in sorted(client(home).get_registered_model(name).aliases)]
    return f"{name!r} has the versions {listed([*versions, *aliases])}"
