"""The timeline of a sweep: how long workers trained and waited, and the file that keeps it."""

from __future__ import annotations

import pytest

from hpo.errors import HpoError
from hpo.results.timeline import Stint, idle_share, phases, workers
from hpo.trials.timeline_file import note_attempt, read_timeline, timeline_or_why


def stint(trial, slot, began, ended, phase=0.0, workers=2, repeat=None, how="complete"):
    return Stint(trial, repeat, slot, workers, phase, began, ended, how)


SEARCH = [stint(0, 0, 0, 40), stint(1, 1, 10, 50), stint(2, 0, 50, 100)]
FINALS = [stint(2, 0, 1000, 1100, phase=1000.0, repeat=0)]


def test_a_worker_waits_where_it_trains_nothing_and_time_between_phases_is_nobody_s():
    search, finals = phases([*SEARCH, *FINALS])
    assert (search.began, search.ended, search.trained, search.waited) == (0, 100, 130, 70)
    assert (finals.trained, finals.waited) == (100, 100)
    assert [(w.slot, w.attempts, w.trained, w.waited) for w in workers([*SEARCH, *FINALS])] == [
        (0, 3, 190, 10),
        (1, 1, 40, 160),
    ]
    assert idle_share(SEARCH) == 70 / 200
    assert idle_share([]) is None


def test_trials_that_share_a_process_are_counted_once():
    together = [stint(0, 0, 0, 60, workers=1), stint(1, 0, 0, 80, workers=1)]
    assert phases(together)[0].trained == 80
    assert idle_share(together) == 0


def test_a_machine_that_joins_brings_workers_that_are_counted():
    joined = [stint(0, 0, 0, 50, workers=1), stint(1, 1, 20, 60, workers=2), stint(2, 2, 30, 100, workers=3)]
    (search,) = phases(joined)
    assert (search.workers, search.trained, search.waited) == (3, 160, 140)
    assert [(w.slot, w.trained, w.waited) for w in workers(joined)] == [(0, 50, 50), (1, 40, 60), (2, 70, 30)]


def test_the_file_keeps_every_attempt_and_a_kill_in_a_line_costs_that_line(tmp_path):
    path = tmp_path / "timeline.jsonl"
    assert read_timeline(path) == []
    note_attempt(path, SEARCH[0])
    with path.open("a") as file:
        file.write('\n{"trial": 1, "rep')
    note_attempt(path, FINALS[0])
    assert read_timeline(path) == [SEARCH[0], FINALS[0]]
    path.write_text('{"later": 1}')
    with pytest.raises(HpoError, match="move the file away"):
        read_timeline(path)
    assert timeline_or_why(path)[0] == []
    path.write_bytes(b"\xff")
    assert "move the file away" in timeline_or_why(path)[1][0]
