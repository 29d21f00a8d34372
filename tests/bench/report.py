"""Pages of `hpo report`: how long they take to write, how heavy they are, how fast a browser shows and filters them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from hpo.report.page import html_page
from tests.bench.tables import Row
from tests.hpo.report.test_browser import DRAWN, FILTERED
from tests.hpo.report.test_page import facts_of, searched
from tests.hpo.serving import browser

BOUNDS = {200: ("2 s", "1 MB"), 10_000: ("-", "6 MB")}
"""Trials -> of writing, of the file."""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


def rows() -> list[Row]:
    """One line each; those of the browser only where there is one, or one line that says what to do."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for trials, (seconds, size) in BOUNDS.items():
            began = time.perf_counter()
            file = Path(folder, f"{trials}.html")
            facts = facts_of(*searched(trials))  # type: ignore[no-untyped-call]  # tests have no types
            file.write_text(html_page(facts), encoding="utf-8")
            took = time.perf_counter() - began
            found.append(Row(f"report of {trials:,} trials: written, from records in memory", f"{took:.2f} s", seconds))
            found.append(Row(f"report of {trials:,} trials: file", f"{file.stat().st_size / 1e6:.2f} MB", size))
            if (path := browser.installed()) is not None:
                found += _shown(path, Path(folder, f"profile-{trials}"), file, trials)
    return found if browser.installed() else [*found, Row("in a browser", "left out: apt-get install chromium")]


def _shown(path: str, profile: Path, file: Path, trials: int) -> list[Row]:
    with browser.opened(path, profile) as page:
        page.open(file.as_uri(), 1600)
        page.until(DRAWN)
        page.until(f"({PAINTED}) > 0")
        painted = page.of(PAINTED)
        filtered = sorted(page.of(FILTERED)[1] for _ in range(5))[2]
    return [
        Row(f"report of {trials:,} trials: first paint in a browser", f"{painted / 1000:.2f} s", "1 s"),
        Row(f"report of {trials:,} trials: a filter, median of five", f"{filtered:.0f} ms", "100 ms"),
    ]
