"""`hpo releases`: the released versions in a table."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.progress_view import ProgressView
from hpo.results.release_text import release_in_words, releases_table
from hpo.results.released import ListedVersion


def show_releases(view: ProgressView, versions: Sequence[ListedVersion], *, with_origins: bool) -> None:
    """Show released versions, or that there are none; `with_origins` adds where each comes from."""
    if not versions:
        view.say("no releases yet")
        return
    view.table("releases", *releases_table(versions))
    if with_origins:
        view.say("")
        for line in (line for version in versions for line in release_in_words(version)):
            view.say(line)
