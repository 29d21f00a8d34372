"""Champion against challenger: two released artifacts answer the same rows, and the alias goes to who earned it."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.paths import Home
from hpo.release.aliases import Aliases, aliases_of, approve, roll_back
from hpo.release.promote import challenge
from hpo.results.release_text import challenger_line
from hpo.tracking.mlflow_store import client
from tests.hpo.builders import INSPECTION, Recording, Sweep, trial_record
from tests.hpo.release.rivals import LABELS, ROWS, measuring, registered
from trainers.protocol.requests import Measure


@pytest.fixture
def contest(tmp_path, home_with_store):
    """A sweep that releases models of a known quality as `shared`."""

    class Contest:
        home = Home(home_with_store)

        def release(
            self, quality, seed=0, sweep="second", again=None, promote=None, measure=measuring, of_a_night=False,
            trial=0, **card
        ):  # fmt: skip
            """Register a version (or take one of before) and let it challenge; returns the state of its sweep."""
            self.sweep = Sweep(tmp_path, name=sweep, search_space={}, promote={"name": "shared", **(promote or {})})
            self.sweep.config = dataclasses.replace(self.sweep.config, is_certified_later=of_a_night)
            rows = {**INSPECTION.rows, "validation": ROWS}
            self.sweep.inspection = dataclasses.replace(INSPECTION, rows=rows, labels=list(LABELS))
            self.made = again or registered(self.home, sweep, quality, seed, **card)
            running = self.sweep.running(Recording(measure))
            running.study.copy(trial_record(trial))
            challenge(running, self.made)
            return running.study.state

        @property
        def aliases(self):
            return aliases_of(self.home, "shared")

        @property
        def measured(self):
            return [request for request in self.sweep.executor.others if isinstance(request, Measure)]

    contest = Contest()
    first = contest.release(0.9, 1, sweep="first")
    assert (first.release.version, first.release.uri, first.refusal) == ("1", "models:/shared@champion", None)
    assert not contest.measured  # nobody to compare with
    return contest


def test_a_much_worse_model_does_not_take_the_alias(contest):
    state = contest.release(0.5, 2)
    assert contest.aliases == Aliases("1", None, "2")
    assert state.release is None
    assert (state.challenger.version, state.challenger.decision) == ("2", "refused")
    assert state.refusal.startswith(
        "models:/shared@champion stays version 1 of sweep 'first': f1_macro 0.8999 on these"
    )
    assert "worse beyond noise; version 2 is registered: hpo approve shared/2 makes it the champion" in state.refusal
    assert state.challenger.rivalry.lead.high < 0
    assert "Against the champion: version 1" in client(contest.home).get_model_version("shared", "2").description
    assert [request.labels for request in contest.measured] == [list(LABELS)] * 2
    assert not contest.sweep.home.sweep("second").release.exists()


def test_one_that_ties_does_not_take_it_either(contest):
    for seed in (1, 2):  # the same answers; as many right ones on other rows
        state = contest.release(0.9, seed, sweep=f"tie-{seed}")
        assert contest.aliases.champion == "1"
        assert "within noise" in state.refusal


def test_a_better_one_takes_it_and_leaves_the_old_one_as_previous(contest):
    state = contest.release(0.97, 2)
    assert contest.aliases == Aliases("2", "1")
    assert (state.refusal, state.challenger) == (None, None)
    assert (state.release.version, state.release.uri) == ("2", "models:/shared@champion")
    assert contest.sweep.said.lines[-1].startswith("version 2 replaces version 1 of sweep 'first': f1_macro 0.8999")
    assert roll_back(contest.home, "shared") == Aliases("1", "2")


@pytest.mark.parametrize(
    ("promote", "quality", "champion"),
    [
        ({"require": "not_worse", "max_drop": 0.1}, 0.9, "2"),
        ({"require": "not_worse", "max_drop": 0.001}, 0.9, "1"),
        ({"require": "always"}, 0.3, "2"),
        ({"replace": True}, 0.3, "2"),
    ],
)
def test_what_the_file_requires(contest, promote, quality, champion):
    contest.release(quality, 2, promote=promote)
    assert contest.aliases.champion == champion


def test_the_file_may_ask_a_person(contest):
    state = contest.release(0.97, 2, promote={"approve": "ask"})
    assert contest.aliases == Aliases("1", None, "2")
    assert (state.refusal, state.challenger.decision, state.release) == (None, "waits", None)
    assert contest.sweep.said.lines[-1] == (
        "version 2 of 'shared' waits for your approval: hpo approve shared/2 makes it the champion"
    )
    assert approve(contest.home, "shared", None) == Aliases("2", "1")
    state = contest.release(0, again=contest.made, promote={"approve": "ask"})  # the sweep goes on: it knows
    assert (state.release.version, state.challenger) == ("2", None)
    assert not contest.measured


def test_one_that_is_refused_while_another_waits_is_named_by_its_number(contest):
    contest.release(0.97, 2, promote={"approve": "ask"})
    state = contest.release(0.5, 3, sweep="third")
    assert contest.aliases == Aliases("1", None, "2")
    assert "version 3 is registered: hpo approve shared/3 makes it the champion" in state.refusal
    assert state.challenger.uri == "models:/shared/3"


def test_a_night_s_release_leaves_the_alias_to_one_that_waits_and_is_compared_with_nobody(contest):
    contest.release(0.97, 2, promote={"approve": "ask"})
    state = contest.release(0.5, 3, sweep="third", of_a_night=True)
    assert contest.aliases == Aliases("1", None, "2")
    assert (state.challenger.version, state.refusal, contest.measured) == ("3", None, [])
    assert challenger_line(state.challenger).endswith(" version 3 (fp32) is judged by its night (hpo nights)")


def test_a_first_release_waits_too_where_a_person_is_asked(contest, tmp_path):
    release = registered(contest.home, "second", 0.9, name="other")
    state = contest.release(0, again=release, promote={"name": "other", "approve": "ask"})
    assert aliases_of(contest.home, "other") == Aliases(None, None, "1")
    assert state.challenger.decision == "waits"


@pytest.mark.parametrize(("quality", "decision"), [(0.97, "champion"), (0.9, "waits"), (0.6, "refused")])
def test_a_person_is_asked_only_where_it_is_close(contest, quality, decision):
    state = contest.release(quality, 2, promote={"approve": "when_close"})
    assert (state.release or state.challenger).decision == decision
    assert contest.aliases.champion == ("2" if decision == "champion" else "1")


def test_within_a_sweep_the_new_champion_takes_over_unless_it_is_shown_to_be_worse(contest):
    contest.release(0.9, 2, sweep="first")
    assert contest.aliases == Aliases("2", "1")
    state = contest.release(0.4, 3, sweep="first")
    assert "worse beyond noise" in state.refusal
    assert contest.aliases == Aliases("2", "1", "3")


def test_a_new_champion_is_a_challenger_like_any_other_where_an_edit_has_left_the_old_one_s_trial_out(contest):
    state = contest.release(0.9, 2, sweep="first", trial=1)
    assert contest.aliases == Aliases("1", None, "2")
    assert "within noise" in state.refusal


def test_the_same_training_under_another_gate_is_not_compared(contest):
    release = registered(contest.home, "first", 0.9, 1)
    run_id = client(contest.home).get_model_version("shared", "1").run_id
    contest.release(0, again=dataclasses.replace(release, run_id=run_id), sweep="first")
    assert contest.aliases == Aliases("2", "1")
    assert not contest.measured


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("gone", "the files of 'shared' version 2 are gone"),
        ("card", "release.json is damaged"),
        ("labels", "crash: it has no label 'unheard of'"),
        ("task", "it is a model for regression"),
    ],
)
def test_who_cannot_be_compared_keeps_the_name(contest, damage, told):
    contest.release(0.95, 4, sweep="damaged", promote={"require": "always"},
                    **({"task": "regression"} if damage == "task" else {}))  # fmt: skip
    from hpo.release.versions import champion_of

    folder = champion_of(contest.home, "shared").folder()
    if damage == "gone":
        folder.rename(folder.parents[1] / "elsewhere")
    elif damage == "card":
        (folder / "release.json").write_text("{")
    elif damage == "labels":
        (folder / "answers.npy").unlink()
    state = contest.release(0.99, 5)
    assert told in state.refusal
    assert "version 3 cannot be compared with it" in state.refusal
    assert contest.aliases.champion == "2"
    contest.release(0, again=contest.made, promote={"approve": "when_close"})
    assert contest.aliases == Aliases("2", "1", "3")
    contest.release(0, again=contest.made, promote={"require": "always"})
    assert contest.aliases == Aliases("3", "2")


def test_a_champion_that_changes_meanwhile_is_compared_again(contest):
    better = registered(contest.home, "third", 0.99, 5)
    approved = []

    def meanwhile(request):
        if not approved:
            approved.append(approve(contest.home, "shared", better.version))
        return measuring(request)

    state = contest.release(0.95, 2, measure=meanwhile)
    assert "stays version 2 of sweep 'third'" in state.refusal
    assert contest.aliases == Aliases("2", "1", "3")
