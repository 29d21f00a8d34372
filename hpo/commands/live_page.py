"""What watches a sweep under way: its timeline is written down, and the report beside its run is kept fresh."""

from __future__ import annotations

import time
from collections.abc import Callable

from hpo.paths import Home
from hpo.results.timeline import Stint
from hpo.tracking.base import RunTracker
from hpo.trials.observer import Observer
from hpo.trials.timeline_file import note_attempt

EVERY_S = 60.0
"""The page is written anew at most so often."""
SHARE = 0.01
"""Of the sweep's time that writing the page may take at most."""


class LivePage(Observer):
    """The observer of one session of a sweep."""

    def __init__(
        self, home: Home, sweep: str, tracker: RunTracker, say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._home = home
        self._sweep = sweep
        self._tracker = tracker
        self._say = say
        self._clock = clock
        self._due = clock() + EVERY_S

    def attempted(self, stint: Stint) -> None:
        """Append it to the timeline."""
        note_attempt(self._home.sweep(self._sweep).timeline, stint)

    def looked(self) -> None:
        """Write the page, when it is due; the longer that takes, the later it is due again.

        Whatever goes wrong with the page is said once and ends its refreshing: it must not end the sweep.
        """
        began = self._clock()
        if began < self._due:
            return
        try:
            self._write()
        except Exception as error:  # noqa: BLE001  # see above
            self._say(f"report.html is not refreshed any more until the sweep ends: {error}")
            self._due = float("inf")
        else:
            took = self._clock() - began
            self._due = began + max(EVERY_S, took / SHARE)

    def ended(self, state: str) -> None:
        """Write the page once more where the sweep has ended before its time, so that it does not say "running".

        What goes wrong is said.
        """
        try:
            self._write(state)
        except Exception as error:  # noqa: BLE001  # the sweep's own end is what counts
            self._say(f"report.html does not show how the sweep ended: {error}")

    def _write(self, state: str | None = None) -> None:
        """`state`: of a sweep that has ended and still holds its lock."""
        from hpo.commands.report_facts import facts_from  # late: the template library would delay the first step
        from hpo.commands.show import read_study
        from hpo.report.page import html_page

        study, summary = read_study(self._home, self._sweep, state)
        self._tracker.artifact("report.html", html_page(facts_from(self._home, study, summary)))
