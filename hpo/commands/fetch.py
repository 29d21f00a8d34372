"""`hpo fetch --list`: the demo models and data that there are."""

from __future__ import annotations

from collections.abc import Mapping

from hpo.demo.assets import Asset
from hpo.progress_view import ProgressView


def show_assets(view: ProgressView, assets: Mapping[str, Asset], fetched: Mapping[str, bool]) -> None:
    """Show the demo models and data in a table; `fetched` says by name which are in the cache."""
    columns = ["name", "kind", "download", "licence", "fetched", "description"]
    rows = [
        [a.name, a.kind, f"{a.download_mb} MB", a.licence, "yes" if fetched[a.name] else "no", a.description]
        for a in assets.values()
    ]
    view.table("demo models and data", columns, rows)
