"""Which experiment of MLflow has the runs of a sweep, whatever a person has made of experiments since."""

from __future__ import annotations

import pytest

from hpo.commands.delete import delete_whole_sweep
from hpo.commands.ui_link import comparison_link
from hpo.errors import UsageError
from hpo.lock import held_if_free
from hpo.paths import Home
from hpo.tracking.mlflow_places import COPY_TAG, experiment_of_sweep, experiment_tag, experiments_of_sweeps
from hpo.tracking.mlflow_runs import SweepRuns
from hpo.tracking.mlflow_store import client
from hpo.tracking.mlflow_tracker import Tracker
from tests.hpo.builders import INSPECTION, make_config


@pytest.fixture
def tracked(home_with_store, tmp_path):
    """Opens a sweep's tracker, and returns the name of the experiment that has its run."""
    home = Home(home_with_store)

    def track(name="one", said=None, **changes):
        say = (lambda text: None) if said is None else said.append
        tracker = Tracker(home, make_config(tmp_path, name=name, **changes), INSPECTION, say)
        run = tracker._client.get_run(tracker.parent_id)
        assert run.info.artifact_uri.startswith(home.artifacts.as_uri())
        return tracker._client.get_experiment(run.info.experiment_id).name

    track.home = home
    return track


def test_a_sweep_has_an_experiment_of_its_own_with_its_view(tracked):
    assert [tracked("one"), tracked("two"), tracked("one")] == ["one", "two", "one"]
    found = experiment_of_sweep(tracked.home, "one")
    assert experiment_tag(tracked.home, found, "mlflow.sharedViewState.one")
    assert {each.sweep for each in experiments_of_sweeps(tracked.home)} == {"one", "two"}
    assert comparison_link(tracked.home, "one").endswith(
        f"#/experiments/{found.id}/runs?workflowType=machine_learning&viewStateShareKey=one"
    )
    assert comparison_link(tracked.home, "none") is None


def test_sweeps_that_name_an_experiment_share_it(tracked):
    assert [tracked(name, experiment="team") for name in ("one", "two")] == ["team", "team"]
    assert tracked("one") == "team"  # it stays where its runs are
    for name in ("one", "two"):
        assert experiment_tag(tracked.home, experiment_of_sweep(tracked.home, name), f"mlflow.sharedViewState.{name}")


def test_a_sweep_of_an_earlier_home_stays_in_the_shared_experiment(tracked):
    store = client(tracked.home)
    shared = store.create_experiment("hpo", tracked.home.artifacts.as_uri())
    run = store.create_run(shared, tags={"hpo.sweep": "old", "hpo.kind": "sweep"})
    assert (tracked("old"), tracked("new")) == ("hpo", "new")
    store.delete_run(run.info.run_id)
    assert tracked("old") == "hpo"


def test_a_renamed_experiment_is_found_and_a_deleted_one_comes_back(tracked):
    tracked("one")
    store, found = client(tracked.home), experiment_of_sweep(tracked.home, "one")
    store.rename_experiment(found.id, "called otherwise")
    assert tracked("one") == "called otherwise"
    store.delete_experiment(found.id)
    assert comparison_link(tracked.home, "one") is None
    said = []
    assert tracked("one", said) == "called otherwise"
    assert said == ["the experiment 'called otherwise' was deleted in MLflow: it is restored with all its runs"]


def test_an_experiment_of_somebody_else_is_left_alone(tracked):
    """Its files would lie outside the home: those of MLflow's own `Default` do."""
    assert tracked("Default") == "Default (2)"
    assert tracked("one", experiment="Default") == "Default (3)"


def test_a_renamed_experiment_follows_a_moved_home(tracked, tmp_path, capsys):
    tracked("one")
    client(tracked.home).rename_experiment(experiment_of_sweep(tracked.home, "one").id, "called otherwise")
    moved = Home(tmp_path / "moved")
    tracked.home.dir.rename(moved.dir)
    (run,) = client(moved).search_runs([experiment_of_sweep(moved, "one").id])
    assert run.info.artifact_uri.startswith(moved.artifacts.as_uri())
    assert "the home has moved" in capsys.readouterr().err


def test_a_shared_experiment_is_found_whatever_its_name_is(tracked):
    """`Default` is taken, so the sweeps that name it share another; and a person may rename that."""
    assert [tracked(name, experiment="Default") for name in ("one", "two")] == ["Default (2)", "Default (2)"]
    store = client(tracked.home)
    store.rename_experiment(experiment_of_sweep(tracked.home, "one").id, "called otherwise")
    assert tracked("three", experiment="Default") == "called otherwise"
    store.delete_experiment(experiment_of_sweep(tracked.home, "one").id)
    assert tracked("four", experiment="Default") == "called otherwise"


def test_an_experiment_of_somebody_else_does_not_say_where_the_home_was(tracked, tmp_path, capsys):
    place = (tmp_path / "theirs").as_uri()
    theirs = client(tracked.home).create_experiment("hpo", place)
    tracked("one")
    assert client(tracked.home).get_experiment(theirs).artifact_location == place
    assert "the home has moved" not in capsys.readouterr().err


def test_a_copy_on_the_home_s_own_store_is_no_run_of_the_sweep(tracked):
    tracked("one")
    store, found = client(tracked.home), experiment_of_sweep(tracked.home, "one").id
    (run,) = store.search_runs([found])
    copy = store.create_run(found, tags={**run.data.tags, COPY_TAG: run.info.run_id})
    tracked("one")
    assert {r.info.run_id: r.info.status for r in store.search_runs([found])}[copy.info.run_id] == "RUNNING"
    assert SweepRuns(store, found, "one", print).find(kind="sweep") == run.info.run_id


def test_a_deleted_sweep_is_no_view_of_a_shared_experiment(tracked):
    for name in ("one", "two"):
        tracked(name, experiment="team")
        tracked.home.sweep(name).dir.mkdir(parents=True)
    with held_if_free(tracked.home.sweep("one").remote_lock), pytest.raises(UsageError, match="are being copied"):
        delete_whole_sweep(tracked.home, "one")
    delete_whole_sweep(tracked.home, "one")
    tags = client(tracked.home).get_experiment_by_name("team").tags
    assert [tag for tag in tags if "ViewState" in tag] == ["mlflow.sharedViewState.two"]
