"""`nightly:`: every problem at once, and nothing else of a sweep depends on it."""

from __future__ import annotations

import datetime

import pytest

from hpo.config.nightly import Keep, Nightly
from hpo.errors import ConfigError
from hpo.study.revision import changes_of
from tests.hpo.builders import make_config


def test_a_file_without_the_section_has_its_defaults_and_is_stored_as_before(tmp_path):
    config = make_config(tmp_path)
    assert config.nightly is None
    assert "nightly" not in config.resolved()
    assert make_config(tmp_path, nightly={}).nightly == Nightly()


def test_the_keys(tmp_path):
    given = {"tz": "Europe/Berlin", "cutoff": "9:30", "missed": "all", "overlap": "queue", "warm_start": 0,
             "error_budget": 0.1, "keep": {"nights": 7, "checkpoints": "all"}}  # fmt: skip
    nightly = make_config(tmp_path, nightly=given).nightly
    assert nightly == Nightly("Europe/Berlin", "09:30", "all", "queue", 0, 0.1, Keep(7, "all"))
    assert nightly.cutoff_time == datetime.time(9, 30)


def test_it_opens_no_revision(tmp_path):
    stored = make_config(tmp_path).resolved()
    assert changes_of(make_config(tmp_path, nightly={"missed": "all"}), stored) == []


def test_every_problem_is_reported_with_its_place(tmp_path):
    given = {"tz": "Europe/Berln", "cutoff": "25:00", "missed": "some", "warm_start": -1, "error_budget": 1,
             "keep": {"nights": 1_000_000, "checkpoint": "best"}, "retries": 3}  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        make_config(tmp_path, nightly=given)
    text = str(caught.value)
    for part in (
        "8 problems", "nightly.tz: got 'Europe/Berln'; expected the name of", "did you mean 'Europe/Berlin'?",
        "nightly.cutoff: got '25:00'", 'a time of day, e.g. "12:00"', "nightly.missed", "nightly.warm_start",
        "nightly.error_budget", "nightly.keep.nights", "nightly.keep.checkpoint: unknown key", "nightly.retries",
    ):  # fmt: skip
        assert part in text, part
