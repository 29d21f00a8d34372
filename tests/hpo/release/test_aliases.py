"""Champion, previous and challenger in a real registry: moved, rolled back, clicked in the UI, killed in between."""

from __future__ import annotations

import pytest

from hpo.errors import UsageError
from hpo.paths import Home
from hpo.release.aliases import Aliases, Seats, aliases_of, approve, roll_back, seats
from hpo.tracking.mlflow_store import client
from tests.hpo.builders import Killed


@pytest.fixture
def registry(home_with_store):
    """A home with five versions of `shared`."""
    registry = Home(home_with_store)
    store = client(registry)
    store.create_registered_model("shared")
    for _ in range(5):
        store.create_model_version("shared", source="file:///nowhere")
    return registry


def crown(registry, version):
    with seats(registry, "shared") as held:
        held.crown(version)


def challenge(registry, version, waits=False):
    with seats(registry, "shared") as held:
        held.challenge(version, waits=waits)


def now(registry):
    """As hpo sees it, which is what MLflow has once something was moved."""
    return aliases_of(registry, "shared")


def in_mlflow(registry):
    return {alias: str(v) for alias, v in client(registry).get_registered_model("shared").aliases.items()}


def test_a_new_champion_leaves_the_old_one_as_previous(registry):
    assert now(registry) == Aliases()
    assert aliases_of(registry, "unheard of") == Aliases()
    crown(registry, "1")
    assert now(registry) == Aliases("1")
    challenge(registry, "2")
    assert now(registry) == Aliases("1", None, "2")
    crown(registry, "2")
    assert now(registry) == Aliases("2", "1")
    crown(registry, "3")
    crown(registry, "3")
    assert now(registry) == Aliases("3", "2")
    assert in_mlflow(registry) == {"champion": "3", "previous": "2"}


def test_rolling_back_swaps_and_swaps_again(registry):
    for missing in ("it has no champion", "version 1 is its only champion so far"):
        with pytest.raises(UsageError, match=missing):
            roll_back(registry, "shared")
        crown(registry, "1")
    crown(registry, "2")
    assert roll_back(registry, "shared") == Aliases("1", "2")
    assert roll_back(registry, "shared") == Aliases("2", "1")


def test_approving_the_challenger_or_a_version(registry):
    with pytest.raises(UsageError, match="no challenger; name a version: hpo approve shared/VERSION"):
        approve(registry, "shared", None)
    crown(registry, "1")
    challenge(registry, "2", waits=True)
    assert approve(registry, "shared", None) == Aliases("2", "1")
    assert "hpo.waits" not in client(registry).get_model_version("shared", "2").tags
    assert approve(registry, "shared", "4") == Aliases("4", "2")
    with pytest.raises(UsageError, match="version 4 is the champion of 'shared' already"):
        approve(registry, "shared", "4")


def test_a_click_on_the_alias_in_mlflow_counts_as_approval(registry):
    crown(registry, "1")
    challenge(registry, "2", waits=True)
    client(registry).set_registered_model_alias("shared", "champion", "2")
    assert now(registry) == Aliases("2", "1")
    assert roll_back(registry, "shared") == Aliases("1", "2")
    assert in_mlflow(registry) == {"champion": "1", "previous": "2"}


def test_a_refused_one_leaves_the_alias_to_one_that_waits(registry):
    crown(registry, "1")
    challenge(registry, "2")
    challenge(registry, "3", waits=True)
    challenge(registry, "4")
    assert now(registry).challenger == "3"
    challenge(registry, "5", waits=True)
    assert now(registry).challenger == "5"


def test_a_deleted_champion_is_nobody_s_previous(registry):
    crown(registry, "1")
    client(registry).delete_model_version("shared", "1")
    assert now(registry) == Aliases()
    crown(registry, "2")
    assert now(registry) == Aliases("2")


@pytest.mark.parametrize("step", range(7))
def test_a_kill_between_two_steps_forgets_nobody(registry, monkeypatch, step):
    crown(registry, "1")
    crown(registry, "2")
    challenge(registry, "3", waits=True)
    store, calls = client(registry), 0
    names = ("set_registered_model_alias", "set_registered_model_tag", "delete_registered_model_alias",
             "delete_model_version_tag")  # fmt: skip

    class Dying:
        def __getattr__(self, name):
            def call(*arguments):
                nonlocal calls
                if name in names:
                    calls += 1
                    if calls > step:
                        raise Killed
                return getattr(store, name)(*arguments)

            return call

    try:
        Seats(Dying(), "shared").crown("3")
    except Killed:
        assert now(registry) in (Aliases("2", "1", "3"), Aliases("3", "2"))
    crown(registry, "3")
    assert now(registry) == Aliases("3", "2")
    assert in_mlflow(registry) == {"champion": "3", "previous": "2"}
    assert roll_back(registry, "shared") == Aliases("2", "3")
