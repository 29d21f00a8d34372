"""`hpo releases`: the released versions in a table."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.results.released import ListedVersion
from hpo.results.tables import releases_table
from hpo.terminal import ProgressView


def show_releases(view: ProgressView, versions: Sequence[ListedVersion]) -> None:
    """Show released versions, or that there are none."""
    if versions:
        view.table("releases", *releases_table(versions))
    else:
        view.say("no releases yet")
