"""Where data lives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import UsageError
from hpo.paths import Home


def test_what_is_given_wins_over_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "environment"))
    assert Home.locate(tmp_path / "given").dir == tmp_path / "given"
    assert Home.locate().dir == tmp_path / "environment"


@pytest.mark.parametrize("value", [None, ""])
def test_without_either_it_is_mlruns_in_the_current_folder(tmp_path, monkeypatch, value):
    monkeypatch.delenv("HPO_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("HPO_HOME", value)
    monkeypatch.chdir(tmp_path)
    assert Home.locate().dir == tmp_path / "mlruns"


def test_the_person_s_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HPO_HOME", "~/data")
    assert Home.locate().dir == tmp_path / "data"


def test_locating_writes_nothing(tmp_path):
    Home.locate(tmp_path / "home").sweep("a")
    assert list(tmp_path.iterdir()) == []


def test_everything_is_below_the_home(tmp_path):
    home = Home(tmp_path)
    sweep = home.sweep("a")
    for path in (home.mlflow_db, home.artifacts, home.studies_db.file, home.cache, sweep.lock, sweep.host_log,
                 sweep.release, sweep.trial(3).dir):  # fmt: skip
        assert path.is_relative_to(tmp_path)
    assert sweep.trial(3).dir.name == "0003"


def test_two_sweeps_share_no_path(tmp_path):
    home = Home(tmp_path)
    assert home.sweep("a").dir != home.sweep("b").dir
    assert not home.sweep("a").dir.is_relative_to(home.sweep("b").dir)


@pytest.mark.parametrize(
    "name", ["..", ".", "../x", "a/b", "/etc", "", " a", "a b", "a\n", "-x", ".hidden", "ä", "a\0", "x" * 101]
)
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="is not a sweep name"):
        Home(tmp_path).sweep(name)


@pytest.mark.parametrize("name", ["a", "movie-sentiment", "v1.2_x", "0", "x" * 100])
def test_ordinary_names_are_folders(tmp_path, name):
    assert Home(tmp_path).sweep(name).dir == tmp_path / "sweeps" / name


@given(st.text())
def test_no_accepted_name_escapes(name):
    home = Home.locate()
    try:
        folder = home.sweep(name).dir
    except UsageError:
        return
    assert folder.resolve().parent == home.dir / "sweeps"


@pytest.mark.parametrize("name", ["what?", "a#b", "100%"])
def test_a_home_that_a_database_url_cannot_name_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="without"):
        Home.locate(tmp_path / name)
