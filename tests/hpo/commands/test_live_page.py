"""What watches a sweep under way: the page is written at a bounded cost, and nothing of it ends the sweep."""

from __future__ import annotations

import pytest

from hpo.commands import live_page, session
from hpo.commands.live_page import EVERY_S, LivePage
from hpo.paths import Home
from hpo.progress_view import Silent
from hpo.results.timeline import Stint
from hpo.tracking.base import Untracked
from hpo.trials.slots import Slots
from hpo.trials.timeline_file import read_timeline
from tests.hpo.builders import Sweep


class Watch:
    """A page whose writing takes as long as it is said, on a clock of its own."""

    def __init__(self, folder, took, failing=None):
        self.now, self.writes, self.said = 0.0, [], []
        self.page = LivePage(Home(folder), "s", Untracked(), self.said.append, lambda: self.now)

        def write():
            self.writes.append(self.now)
            self.now += took
            if failing:
                raise failing

        self.page._write = write

    def run(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.page.looked()
            self.now += 1


@pytest.mark.parametrize("took", [0.01, 0.5, 5.0])
def test_it_costs_a_hundredth_of_the_time_and_comes_each_minute_at_most(tmp_path, took):
    watch = Watch(tmp_path, took)
    watch.run(7200)
    assert len(watch.writes) >= 2
    assert watch.writes[0] >= EVERY_S
    assert min(b - a for a, b in zip(watch.writes, watch.writes[1:], strict=False)) >= EVERY_S
    assert (len(watch.writes) - 1) * took <= live_page.SHARE * watch.now


def test_what_goes_wrong_with_the_page_is_said_once(tmp_path):
    watch = Watch(tmp_path, 0.1, failing=ValueError("why"))
    watch.run(600)
    assert watch.said == ["report.html is not refreshed any more until the sweep ends: why"]


def test_attempts_go_to_the_timeline(tmp_path):
    watch = Watch(tmp_path, 0.1)
    home = Home(tmp_path)
    home.sweep("s").dir.mkdir(parents=True)
    stint = Stint(3, None, 0, 1, 0.0, 1.0, 2.0, "complete")
    watch.page.attempted(stint)
    assert read_timeline(home.sweep("s").timeline) == [stint]


class Noting(Untracked):
    """Notes what is put beside the sweep's run, and how that ends."""

    def __init__(self):
        self.noted = []

    def artifact(self, name, text):
        self.noted.append(name)

    def abandon(self, status):
        self.noted.append(status)


def test_the_page_says_how_a_sweep_ended_before_its_run_does(tmp_path, database, monkeypatch):
    """Files are copied to a server when their run changes: a page that came later would stay at home."""
    tracker, given = Noting(), Sweep(tmp_path, database)
    monkeypatch.setattr(session, "tracker_of", lambda *_: tracker)
    with pytest.raises(KeyboardInterrupt), session.open_run(given.specs, given.executor, Silent(), Slots(1, 1)):
        raise KeyboardInterrupt
    assert tracker.noted == ["report.html", "KILLED"]
