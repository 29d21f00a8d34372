"""The record of a sweep: our numbers, trials that survive a kill, and what is read back."""

from __future__ import annotations

import dataclasses
import math
import sqlite3
from contextlib import ExitStack, closing

import optuna
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import hpo.study.samplers
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError, UsageError
from hpo.results.champion import choose_champion
from hpo.results.records import Attempt
from hpo.study.lease import held_lease
from hpo.study.reader import SCHEMA
from hpo.study.storage import open_storage
from hpo.study.store import (
    delete_unopened,
    newest_study_name,
    open_study,
    stored_state,
    study_names,
    view_study,
)
from hpo.study.study import Study
from hpo.study.tried import points_tried
from tests.hpo.builders import Killed, evaluation, make_config, trial_record, trial_result
from tests.postgres import as_a_process
from trainers.protocol.codec import fingerprint

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "lora_r": {"type": "int", "low": 1, "high": 64, "log": True},
    "batch_size": {"type": "choice", "values": [8, 16, 32]},
    "warmup_ratio": {"type": "float", "low": 0, "high": 0.5, "step": 0.1},
}
TWO = [{"metric": "f1_macro"}, {"metric": "trainable_parameters"}]


@pytest.fixture
def config(tmp_path):
    def config(**changes):
        return make_config(tmp_path, **{"search_space": SPACE, **changes})

    return config


@pytest.fixture(scope="module")
def leased(postgresql, tmp_path_factory):
    """A database on a server, with the leases of all sweeps of these tests."""
    database = StudiesDatabase.on_server(postgresql.url())
    with ExitStack() as leases:
        for sweep in ("sweep", "again", "a", "b", "machine"):
            leases.enter_context(held_lease(database, sweep, tmp_path_factory.getbasetemp()))
        yield database


@pytest.fixture
def on_server(postgresql, leased):
    """A database without studies on a server."""
    with as_a_process():
        yield leased
    postgresql.ask("TRUNCATE studies CASCADE")


@pytest.fixture
def in_file(database):
    """A database without studies in SQLite."""
    return StudiesDatabase.in_file(database)


both = pytest.mark.parametrize("studies", ["in_file", "on_server"], indirect=True)


@pytest.fixture
def studies(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["memory", "in_file", "on_server"])
def reopen(request):
    """Opens a study; called again, opens what is stored, as another process would."""
    if request.param != "memory":
        database = request.getfixturevalue(request.param)
        return lambda config: open_study(config, fingerprint, database)
    memory = optuna.storages.InMemoryStorage()
    return lambda config: Study(config, fingerprint, memory)


def open_new(config):
    return open_study(config, fingerprint, None)


def score(params):
    return 1 / (1 + abs(math.log10(params["learning_rate"] / 1e-3)))


def run(study, number, params):
    study.report(number, 0, 0.5, score(params) / 2)
    study.report(number, 1, 1.0, score(params))
    study.finish(number, trial_result("complete", score(params)))


def begin(study, point=None):
    return study.begin(point)


def tried(study):
    return points_tried(study.records(), study.config)


# --- which point next ----------------------------------------------------------------------------------


def test_trials_are_numbered_from_zero_and_have_the_point_that_was_given(reopen, config):
    study = reopen(config())
    baseline = config().baseline()
    assert begin(study, baseline) == (0, baseline)
    assert begin(study, {**baseline, "lora_r": 64}) == (1, {**baseline, "lora_r": 64})
    assert reopen(config()).next_number == 2


def test_a_sweep_without_a_space_has_the_empty_point(config):
    assert begin(open_new(config(search_space={})), {}) == (0, {})


@pytest.mark.parametrize(("strategy", "count"), [("tpe", 8), ("random", 3)])  # TPE begins with 5 random points
def test_the_same_seed_gives_the_same_points_however_often_the_study_is_reopened(in_file, config, strategy, count):
    given = config(search_strategy={"type": strategy})

    def points(study, again):
        asked = []
        for _ in range(count):
            number, params = begin(study)
            asked.append(params)
            run(study, number, params)
            study = again(study)
        return asked

    kept = points(open_new(given), lambda study: study)
    reopened = points(open_study(given, fingerprint, in_file), lambda _: open_study(given, fingerprint, in_file))
    assert kept == reopened
    assert len({tuple(params.values()) for params in kept}) == count


def test_reopening_among_running_trials_changes_no_point(reopen, config):
    def points(again):
        study = reopen(given)
        asked = []
        for _ in range(3):
            first, second = begin(study), begin(study)
            asked += [first[1], second[1]]
            study.report(second[0], 0, 0.5, score(second[1]) / 2)
            run(study, *first)
            if again:
                study = reopen(given)
        return asked

    given = config(search_strategy={"type": "tpe"})
    kept = points(again=False)
    given = config(search_strategy={"type": "tpe"}, name="again")
    assert points(again=True) == kept


def test_other_seeds_give_other_points(config):
    def first(seed):
        return begin(open_new(config(seed=seed)))[1]

    assert first(0) == first(0)
    assert first(0) != first(1)


@pytest.mark.parametrize("strategy", ["tpe", "random", "nsga2"])
def test_points_are_of_the_space(config, strategy):
    given = config(search_strategy={"type": strategy})
    study = open_new(given)
    for _ in range(12):
        number, params = begin(study)
        assert list(params) == list(SPACE)
        assert given.space.contains(params)
        run(study, number, params)


def test_trials_side_by_side_get_different_points(config):
    study = open_new(config(search_strategy={"type": "tpe"}))
    assert len({tuple(begin(study)[1].values()) for _ in range(8)}) == 8


def test_stepped_dimensions_that_do_not_divide_their_range_are_asked_without_a_warning(config):
    space = {
        "lora_r": {"type": "int", "low": 1, "high": 10, "step": 6},
        "weight_decay": {"type": "float", "low": 0, "high": 1, "step": 0.6},
    }
    study = open_new(config(search_space=space, search_strategy={"type": "random"}))
    points = {tuple(begin(study)[1].values()) for _ in range(30)}
    assert points == {(1, 0.0), (1, 0.6), (7, 0.0), (7, 0.6)}


@both
def test_a_choice_keeps_its_types_in_a_database(studies, config):
    given = config(search_space={"lora_alpha": {"type": "choice", "values": [None, 16, 2.5]}})
    study = open_study(given, fingerprint, studies)
    asked = [begin(study, point)[1]["lora_alpha"] for point in given.space.grid()]
    stored = [r.params["lora_alpha"] for r in open_study(given, fingerprint, studies).records()]
    # 16 and 16.0 are equal, but a spec's fingerprint is of their text.
    assert list(map(repr, asked)) == list(map(repr, stored)) == ["None", "16.0", "2.5"]


# --- equal points --------------------------------------------------------------------------------------


def test_an_equal_point_names_the_trial_that_has_its_result(reopen, config):
    study = reopen(config())
    begin(study, config().baseline())
    begin(study)
    number, _ = begin(study, config().baseline())  # its twin is still under way
    assert (number, study.record(number).reused_from) == (2, "0")
    study.finish(0, trial_result())
    begin(study, config().baseline())
    assert [r.reused_from for r in reopen(config()).records()] == [None, None, "0", "0"]


@pytest.mark.parametrize("cause", ["crash", "timeout", "interrupted"])
def test_a_failure_that_is_not_the_point_s_lends_no_result(config, cause):
    study = open_new(config())
    for _ in range(2):
        number, _ = begin(study, config().baseline())
        assert study.record(number).reused_from is None
        study.finish(number, trial_result("failed", None, cause=cause))


@pytest.mark.parametrize("cause", ["diverged", "oom"])
def test_a_failure_that_is_the_point_s_lends_its_result(config, cause):
    study = open_new(config())
    begin(study, config().baseline())
    study.finish(0, trial_result("failed", None, cause=cause))
    assert study.record(begin(study, config().baseline())[0]).reused_from == "0"


def test_a_trial_taken_over_from_another_sweep_lends_its_result(config):
    study = open_new(config())
    point = config().baseline()
    study.copy(trial_record(0, params=point, fingerprint=fingerprint(point), reused_from="other/7"))
    assert study.record(begin(study, point)[0]).reused_from == "0"


def test_curves_are_those_of_trials_that_were_trained_here(reopen, config):
    """Another sweep's pruner may look at another metric."""
    study = reopen(config())
    study.copy(trial_record(0, params=config().baseline(), reused_from="other/7"))
    run(study, *begin(study))
    begin(study)
    study.report(2, 0, 0.5, 0.1)
    assert set(study.curves) == {1, 2}
    assert reopen(config()).curves == study.curves


# --- interruption --------------------------------------------------------------------------------------


def test_a_trial_left_running_keeps_its_number_and_its_point(reopen, config):
    study = reopen(config())
    for _ in range(3):
        asked = begin(study)
    again = reopen(config())
    assert again.interrupted() == [0, 1, 2]
    assert again.resume(2) == asked[1]
    again.finish(2, trial_result())
    assert reopen(config()).interrupted() == [0, 1]
    assert begin(again)[0] == 3


def test_a_trial_goes_on_with_what_was_known_of_it(reopen, config):
    study = reopen(config())
    begin(study)
    study.set_run_id(0, "run")
    study.report(0, 0, 0.25, 0.1)
    study.set_attempts(0, [Attempt("crash", "broken", 3.0, None, 0)], 7)
    kept = study.record(0)
    again = reopen(config())
    again.resume(0)
    assert again.record(0) == kept
    assert (kept.run_id, kept.resumed_from, len(kept.attempts)) == ("run", 7, 1)


@pytest.mark.parametrize("objective", [{"metric": "f1_macro"}, TWO])
def test_repeated_reports_are_not_written_twice(reopen, config, objective):
    given = config(objective=objective)
    study = reopen(given)
    begin(study)
    study.report(0, 0, 0.25, 0.1)
    study.report(0, 1, 0.5, 0.2)
    again = reopen(given)
    again.resume(0)
    for index, value in enumerate([0.1, 0.2, 0.3, 0.4]):
        again.report(0, index, (index + 1) / 4, value)
    assert again.curves[0] == [(0.25, 0.1), (0.5, 0.2), (0.75, 0.3), (1.0, 0.4)]
    again.finish(0, trial_result(metrics={"f1_macro": 0.5}))
    [record] = reopen(given).records()
    assert record.curve == [(0.25, 0.1), (0.5, 0.2), (0.75, 0.3), (1.0, 0.4)]


@pytest.mark.parametrize("count", [3, 7])
def test_shares_of_the_budget_are_the_same_before_and_after_reopening(reopen, config, count):
    """Rules compare them to within a billionth: a third must not become another third."""
    study = reopen(config())
    begin(study)
    for index in range(count):
        study.report(0, index, (index + 1) / count, 0.5)
    read = reopen(config()).curves[0]
    assert read == study.curves[0]
    assert all(abs(share - (i + 1) / count) < 1e-9 for i, (share, _) in enumerate(read))


def kill_at(patch, where):
    """The process ends at one instant of `begin`."""
    if where == "enqueued":
        enqueue = optuna.Study.enqueue_trial
        patch.setattr(optuna.Study, "enqueue_trial", lambda *args, **kwargs: kill(enqueue(*args, **kwargs)))
    elif where == "asked":
        ask = optuna.Study.ask
        patch.setattr(optuna.Study, "ask", lambda *args, **kwargs: kill(ask(*args, **kwargs)))
    elif where == "half suggested":
        suggest = hpo.study.samplers._suggest
        patch.setattr(
            hpo.study.samplers,
            "_suggest",
            lambda t, name, d: suggest(t, name, d) if name == "learning_rate" else kill(),
        )
    else:
        patch.setattr(Study, "_write_begun", kill)


def kill(*_, **__):
    raise Killed


MOMENTS = ["enqueued", "asked", "half suggested", "suggested"]


def killed_in_begin(study, where, monkeypatch, point):
    with monkeypatch.context() as patch:
        kill_at(patch, where)
        with pytest.raises(Killed):
            begin(study, point)


def go_on(study):
    """As the search does: what was interrupted, then what was lined up, then the next."""
    for number in study.interrupted():
        return number, study.resume(number)
    return begin(study)


@pytest.mark.parametrize("where", MOMENTS)
@pytest.mark.parametrize("done", [0, 2])
def test_a_kill_in_begin_leaves_no_ghost_and_no_second_point(reopen, config, monkeypatch, where, done):
    given = config(search_strategy={"type": "random"})
    study = reopen(given)
    for _ in range(done):
        run(study, *begin(study))
    point = {**given.baseline(), "lora_r": 33}
    killed_in_begin(study, where, monkeypatch, point)
    killed_again = reopen(given)
    if where == "enqueued":
        assert killed_again.waiting() == point
        assert killed_again.interrupted() == []
        killed_in_begin(killed_again, "asked", monkeypatch, None)
    again = reopen(given)
    number, params = go_on(again)
    assert (number, params) == (done, point)
    assert again.record(number).fingerprint == fingerprint(point)
    run(again, number, params)
    assert (again.waiting(), again.interrupted()) == (None, [])
    run(again, *begin(again))
    last = reopen(given)
    assert [r.number for r in last.records()] == list(range(done + 2))
    assert [r.state for r in last.records()] == ["complete"] * (done + 2)
    assert len(last._study.get_trials()) == done + 2
    assert last.records() == again.records()


@pytest.mark.parametrize("point", [None, {"learning_rate": 1e-2, "lora_r": 1, "batch_size": 8, "warmup_ratio": 0.0}])
def test_what_a_kill_left_lined_up_comes_next_whatever_is_given(config, monkeypatch, point):
    memory = optuna.storages.InMemoryStorage()
    killed_in_begin(Study(config(), fingerprint, memory), "enqueued", monkeypatch, config().baseline())
    again = Study(config(), fingerprint, memory)
    assert begin(again, point) == (0, config().baseline())
    assert again.waiting() is None


@pytest.mark.parametrize("where", MOMENTS[1:])
def test_a_point_of_the_sampler_s_that_may_not_be_allowed_is_asked_for_again_after_a_kill(config, monkeypatch, where):
    given, memory = config(search_strategy={"type": "tpe"}), optuna.storages.InMemoryStorage()
    killed_in_begin(Study(given, fingerprint, memory), where, monkeypatch, None)
    again = Study(given, fingerprint, memory)
    assert (again.interrupted(), again.records()) == ([], [])
    refused = []
    number, point = again.begin(None, lambda point: bool(refused) or bool(refused.append(point)))
    assert (number, point in refused) == (0, False)


@pytest.mark.parametrize("where", MOMENTS[1:])
@pytest.mark.parametrize("done", [3, 8])  # before and after TPE's random start
def test_a_point_of_the_sampler_s_that_a_kill_cut_short_is_completed_the_same_way_every_time(
    config, monkeypatch, where, done
):
    given = config(search_strategy={"type": "tpe"})

    def point(is_killed):
        memory = optuna.storages.InMemoryStorage()
        study = Study(given, fingerprint, memory)
        for _ in range(done):
            run(study, *begin(study))
        if is_killed:
            killed_in_begin(study, where, monkeypatch, None)
            study = Study(given, fingerprint, memory)
        number, params = go_on(study)
        assert number == done
        assert given.space.contains(params)
        return params

    killed = point(is_killed=True)
    assert point(is_killed=True) == killed
    if where != "half suggested":
        assert point(is_killed=False) == killed


def test_what_was_known_of_how_a_trial_began_survives_that_its_twin_crashes(reopen, config):
    study = reopen(config())
    for number, lender in ((0, None), (1, "0")):
        point = trial_record(number, "running", None, config().baseline(), fingerprint="same", reused_from=lender)
        study.copy(dataclasses.replace(point, revision=3, has_gone_on=True))
    study.resume(0)
    study.finish(0, trial_result("failed", None, cause="crash"))
    study.resume(1)
    for record in (study.record(1), reopen(config()).record(1)):
        assert (record.reused_from, record.revision, record.has_gone_on) == (None, 3, True)


@pytest.mark.parametrize("result", [
    trial_result("failed", None, cause="timeout"), trial_result("pruned", 0.4, stopped_by="sweep_budget"),
])  # fmt: skip
def test_a_trial_that_was_lost_lends_nothing(reopen, config, result):
    study = reopen(config())
    begin(study, config().baseline())
    study.finish(0, result)
    begin(study, config().baseline())
    assert [r.reused_from for r in study.records()] == [None, None]


def test_a_half_begun_trial_of_a_point_that_was_tried_takes_its_result(config, monkeypatch):
    memory = optuna.storages.InMemoryStorage()
    study = Study(config(), fingerprint, memory)
    run(study, *begin(study, config().baseline()))
    killed_in_begin(study, "half suggested", monkeypatch, config().baseline())
    again = Study(config(), fingerprint, memory)
    again.resume(1)
    assert again.record(1).reused_from == "0"
    assert Study(config(), fingerprint, memory).record(1).reused_from == "0"


def test_a_trial_that_waited_for_one_that_crashed_is_trained_after_all(reopen, config):
    study = reopen(config())
    for _ in range(3):
        begin(study, config().baseline())
    assert [r.reused_from for r in study.records()] == [None, "0", "0"]
    study.finish(0, trial_result("failed", None, cause="crash"))
    again = reopen(config())
    for number in again.interrupted():
        again.resume(number)
    assert [r.reused_from for r in again.records()] == [None, None, "1"]
    assert reopen(config()).records() == again.records()


def test_a_kill_between_constraints_and_state_is_told_again_without_a_warning(reopen, config, monkeypatch):
    given = config(constraints={"max_seconds": 10})
    study = reopen(given)
    begin(study)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", kill)
        with pytest.raises(Killed):
            study.finish(0, trial_result(seconds=20.0))
    again = reopen(given)
    again.resume(0)
    again.finish(0, trial_result(seconds=20.0))
    assert again._study.get_trials()[0].constraints == {"seconds": 1.0}


# --- telling Optuna ------------------------------------------------------------------------------------


def test_constraints_reach_optuna(config):
    study = open_new(config(constraints={"max_seconds": 10, "max_adapter_mb": 4}))
    for seconds in (5.0, 15.0):
        number, _ = begin(study)
        study.finish(number, trial_result(seconds=seconds, adapter_mb=2.0))
    assert [t.constraints for t in study._study.get_trials()] == [
        {"seconds": -0.5, "adapter_mb": -0.5}, {"seconds": 0.5, "adapter_mb": -0.5},
    ]  # fmt: skip


def test_with_one_objective_optuna_has_the_reports(config):
    study = open_new(config())
    begin(study)
    study.report(0, 0, 0.5, 0.25)
    study.finish(0, trial_result("pruned", 0.25))
    [trial] = study._study.get_trials()
    assert (trial.state.name, list(trial.intermediate_values.values())) == ("PRUNED", [0.25])


@pytest.mark.parametrize("state", ["complete", "pruned", "failed"])
def test_with_several_objectives_the_curve_is_kept_without_reports(reopen, config, state):
    given = config(objective=TWO)
    study = reopen(given)
    begin(study)
    study.report(0, 0, 0.5, 0.25)
    study.report(0, 1, 1.0, 0.5)
    metrics = {} if state == "failed" else {"f1_macro": 0.5}
    study.finish(0, trial_result(state, metrics.get("f1_macro"), trainable_parameters=7, metrics=metrics))
    [record] = reopen(given).records()
    assert record == study.record(0)
    assert (record.state, record.curve) == (state, [(0.5, 0.25), (1.0, 0.5)])
    [trial] = study._study.get_trials()
    assert trial.intermediate_values == {}
    assert trial.state.name == ("COMPLETE" if state == "complete" else "FAIL")
    assert trial.values == ([0.5, 7.0] if state == "complete" else None)


def test_a_value_that_is_no_number_is_refused_before_anything_is_written(reopen, config):
    study = reopen(config())
    begin(study)
    with pytest.raises(ValueError, match="trial 0 is complete without a value"):
        study.finish(0, trial_result("complete", math.nan))
    assert reopen(config()).interrupted() == [0]
    study.finish(0, trial_result("failed", None, cause="diverged"))
    assert reopen(config()).record(0).state == "failed"


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_further_objective_that_is_no_number_leaves_the_trial_complete(reopen, config, missing):
    """A function of yours may give it; Optuna, and a model of the objective, have no place for it."""
    study = reopen(config(objective=[{"metric": "f1_macro"}, {"metric": "loss"}]))
    for value, loss in ((0.9, missing), (0.5, 0.25)):
        number, _ = begin(study)
        study.finish(number, trial_result("complete", value, metrics={"f1_macro": value, "loss": loss}))
        assert len(tried(study)) == 2 * number
    again = reopen(study.config)
    assert [(r.state, r.result.value) for r in again.records()] == [("complete", 0.9), ("complete", 0.5)]
    assert [t.state.name for t in again._study.get_trials()] == ["FAIL", "COMPLETE"]
    assert [values for _, values, _ in tried(again)] == [[0.5, 0.25]] * 2


def test_a_report_that_is_no_number_is_kept(reopen, config):
    study = reopen(config())
    begin(study)
    study.report(0, 0, 0.5, math.nan)
    study.finish(0, trial_result("pruned", 0.1))
    [(share, value)] = reopen(config()).record(0).curve
    assert share == 0.5
    assert math.isnan(value)


# --- what a model of the objective learns from ----------------------------------------------------------


def test_a_model_learns_from_pruned_trials_and_shuns_what_cannot_be_trained(config):
    study = open_new(config(search_strategy={"type": "random"}))
    assert tried(study) == []
    for result in (
        trial_result("complete", 0.8), trial_result("pruned", 0.2), trial_result("failed", None, cause="diverged"),
        trial_result("failed", None, cause="crash"), None,
    ):  # fmt: skip
        number, _ = begin(study)
        if result:
            study.finish(number, result)
    begin(study, study.record(0).params)  # reuses: the same point must not count twice
    told = {tried(study)[i][0]["learning_rate"]: tried(study)[i][1] for i in range(4)}
    rates = [study.record(n).params["learning_rate"] for n in range(5)]
    assert told == {rates[0]: [0.8], rates[1]: [0.2], rates[2]: [0.2], rates[4]: [0.5]}
    assert len(tried(study)) == 4


def test_without_a_complete_trial_there_is_nothing_to_model(config):
    study = open_new(config())
    begin(study)
    study.finish(0, trial_result("pruned", 0.2))
    assert tried(study) == []


def test_a_model_with_several_objectives_and_constraints(config):
    study = open_new(config(objective=TWO, constraints={"max_seconds": 2}))
    for value, parameters, state in ((0.8, 100, "complete"), (0.6, 50, "complete"), (0.7, 70, "pruned")):
        number, _ = begin(study)
        study.finish(number, trial_result(state, value, trainable_parameters=parameters))
    assert [(values, excess) for _, values, excess in tried(study)] == [
        ([0.8, 100.0], {"seconds": -0.5}), ([0.6, 50.0], {"seconds": -0.5}), ([0.6, 100.0], {"seconds": 0.0}),
    ]  # fmt: skip


# --- records -------------------------------------------------------------------------------------------


def test_records_come_back_as_they_were_told(reopen, config):
    study = reopen(config())
    results = [
        trial_result("complete", 0.5, evaluations=[evaluation(0, 0.5, 0.4), evaluation(1, 1.0, 0.5)], peak_rss_mb=1.5),
        trial_result("pruned", 0.4),
        trial_result("failed", None, cause="oom", message="out of memory"),
    ]
    asked = []
    for number, result in enumerate(results):
        asked.append(begin(study)[1])
        study.set_run_id(number, f"run{number}")
        study.report(number, 0, 0.5, 0.4)
        study.finish(number, result)
    asked.append(begin(study)[1])

    records = reopen(config()).records()
    assert records == study.records()
    assert [r.number for r in records] == [0, 1, 2, 3]
    assert [r.state for r in records] == ["complete", "pruned", "failed", "running"]
    assert [r.is_over for r in records] == [True, True, True, False]
    assert [r.params for r in records] == asked
    assert [r.result for r in records] == [*results, None]
    assert [r.run_id for r in records] == ["run0", "run1", "run2", None]
    assert [r.curve for r in records] == [[(0.5, 0.4)]] * 3 + [[]]


@pytest.mark.parametrize("objective", [{"metric": "f1_macro"}, TWO])
@pytest.mark.parametrize("state", ["complete", "pruned", "failed", "running"])
def test_a_copy_is_what_it_was_copied_from(reopen, config, state, objective):
    given = config(objective=objective, constraints={"max_seconds": 2})
    study = reopen(given)
    value = 0.4 if state in ("complete", "pruned") else None
    told = {} if state == "running" else {"metrics": {"f1_macro": 0.4}, "cause": None if value else "oom"}
    record = trial_record(
        7, state, value, given.baseline(), attempts=[Attempt("crash", "broken", 3.0, None, 0)], resumed_from=3,
        revision=2, curve=[(0.25, 0.1), (0.5, 0.4)], reused_from="other/2" if value else None, **told,
    )  # fmt: skip
    study.copy(record)
    assert reopen(given).records() == study.records() == [record]
    assert begin(study)[0] == 8


def test_an_interrupted_copy_goes_on_under_its_number(reopen, config):
    study = reopen(config())
    study.copy(trial_record(7, "running", None, config().baseline()))
    assert study.interrupted() == [7]
    again = reopen(config())
    assert again.resume(7) == config().baseline()
    again.report(7, 1, 1.0, 0.5)
    again.finish(7, trial_result())
    [record] = reopen(config()).records()
    assert (record.number, record.run_id, record.curve) == (7, "run7", [(0.5, 0.1), (1.0, 0.5)])


@pytest.mark.parametrize("metric", ["f1_macro", "loss"])
def test_a_pruned_trial_is_never_champion(config, metric):
    given = config(objective={"metric": metric})
    study = open_new(given)
    best = 0.9 if given.objective.direction == "maximize" else 0.1
    for result in [
        trial_result("complete", 0.5, metrics={metric: 0.5}), trial_result("pruned", best, metrics={metric: best}),
        trial_result("failed", None),
    ]:  # fmt: skip
        number, _ = begin(study)
        study.report(number, 0, 0.5, result.value or best)
        study.finish(number, result)
    assert choose_champion(study.records(), given.objective, {}, None).number == 0


class Machine(RuleBasedStateMachine):
    """Whatever is done to a study: another process reads from the database just what this one holds in memory."""

    studies = None
    storage = None
    make_config = None
    count = 0

    @initialize(objective=st.sampled_from([{"metric": "f1_macro"}, TWO]))
    def open(self, objective):
        Machine.count += 1
        self.config = Machine.make_config(
            name=f"machine{Machine.count}", objective=objective, constraints={"max_seconds": 2},
            search_strategy={"type": "random"}, search_space={k: SPACE[k] for k in ("learning_rate", "batch_size")},
        )  # fmt: skip
        self.study = self.reopened()
        self.study.update_state(config=self.config.resolved())

    def reopened(self):
        return Study(self.config, fingerprint, Machine.storage)

    def under_way(self):
        return sorted(self.study._open)

    @rule(is_baseline=st.booleans())
    def begin(self, is_baseline):
        expected = len(self.study.records())
        number, _ = begin(self.study, self.config.baseline() if is_baseline else None)
        assert number == expected

    @rule(pick=st.integers(0, 9), value=st.floats(0, 1), share=st.floats(0.01, 0.2))
    def report(self, pick, value, share):
        if open_ones := self.under_way():
            number = open_ones[pick % len(open_ones)]
            index = len(self.study.record(number).curve)
            self.study.report(number, index, index / 5 + share, value)

    @rule(pick=st.integers(0, 9), resumed_from=st.none() | st.integers(0, 50))
    def try_again(self, pick, resumed_from):
        if open_ones := self.under_way():
            number = open_ones[pick % len(open_ones)]
            attempts = [*self.study.record(number).attempts, Attempt("crash", "broken", 0.5, resumed_from, 0)]
            self.study.set_attempts(number, attempts, resumed_from)
            self.study.set_run_id(number, f"run{number}")

    @rule(pick=st.integers(0, 9), state=st.sampled_from(["complete", "pruned", "failed"]), value=st.floats(-1, 1))
    def finish(self, pick, state, value):
        if open_ones := self.under_way():
            told = {"metrics": {"f1_macro": value}, "cause": "diverged" if state == "failed" else None}
            result = trial_result(state, None if state == "failed" else value, **told)
            self.study.finish(open_ones[pick % len(open_ones)], result)

    @rule()
    def copy(self):
        number = self.study.next_number
        self.study.copy(
            trial_record(
                number, "complete", 0.5, self.config.baseline(), fingerprint=fingerprint(self.config.baseline())
            )
        )

    @rule()
    def restart(self):
        interrupted = self.under_way()
        self.study = self.reopened()
        assert self.study.interrupted() == interrupted
        for number in interrupted:
            self.study.resume(number)

    @invariant()
    def reads_back(self):
        if hasattr(self, "study"):
            read = self.reopened()
            assert read.records() == self.study.records() == view_study(Machine.studies, self.config.name).records
            assert read.next_number == self.study.next_number
            assert len(read._study.get_trials(deepcopy=False)) == len(read.records())


@both
def test_memory_and_database_agree_after_every_operation(studies, config):
    Machine.studies, Machine.storage, Machine.make_config = studies, open_storage(studies, "machine"), config
    Machine.count = 0
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=10 if studies.file else 3, stateful_step_count=12, deadline=None, derandomize=True,
            database=None, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    studies = Machine.storage.get_all_studies()
    assert len(studies) == Machine.count  # and each read back as it was after every step (`reads_back`)


# --- reading a database --------------------------------------------------------------------------------


def test_a_database_that_is_not_there_is_empty_and_not_made(tmp_path):
    database = StudiesDatabase.in_file(tmp_path / "none.db")
    assert study_names(database) == []
    assert stored_state(database, "a") is None
    with pytest.raises(UsageError, match=r"no sweep 'a'; there are none yet"):
        view_study(database, "a")
    assert not database.file.exists()


def test_a_study_counts_once_its_config_is_there(tmp_path, config):
    """The config is written last: without it the process was killed while it made the study."""
    database = StudiesDatabase.in_file(tmp_path / "new.db")
    study = open_study(config(name="a"), fingerprint, database)
    assert study_names(database) == []
    with pytest.raises(UsageError):
        view_study(database, "a")
    study.update_state(config=config(name="a").resolved())
    assert study_names(database) == ["a"]
    assert stored_state(database, "a").config["name"] == "a"


def described(database, given, name=None):
    study = open_study(given, fingerprint, database, name)
    study.update_state(config=given.resolved())
    return study


@both
def test_a_database_is_read_by_name(studies, config):
    for name in ("b", "a"):
        described(studies, config(name=name)).update_state(state="running")
    assert study_names(studies) == ["a", "b"]
    assert stored_state(studies, "a").config["name"] == "a"
    assert stored_state(studies, "c") is None
    view = view_study(studies, "b")
    assert (view.name, view.state.state, view.records) == ("b", "running", [])
    assert (view.objective.metric, view.objective.direction) == ("f1_macro", "maximize")
    with pytest.raises(UsageError, match=r"no sweep 'x'; there are: a, b"):
        view_study(studies, "x")


@both
def test_the_newest_revision_is_read(studies, config):
    given = config(name="a")
    for revision in (1, 2, 10):
        study = described(studies, given, f"a@{revision}" if revision > 1 else None)
        study.update_state(revision=revision)
    assert newest_study_name(studies, "a") == "a@10"
    assert stored_state(studies, "a").revision == 10
    assert study_names(studies) == ["a"]
    open_study(given, fingerprint, studies, "a@11")  # killed before it was whole
    assert newest_study_name(studies, "a") == "a@10"
    delete_unopened(studies, "a@11")
    delete_unopened(studies, "a@10")
    names = {study.study_name for study in optuna.get_all_study_summaries(open_storage(studies, "a"))}
    assert names == {"a", "a@2", "a@10"}


@both
def test_both_ways_of_reading_give_the_same(studies, config):
    """Optuna's objects, and the statements that readers ask instead."""
    space = {**SPACE, "lora_alpha": {"type": "choice", "values": [None, 16, 2.5]}}
    given = config(name="a", search_space=space, search_strategy={"type": "random"})
    study = described(studies, given)
    for value in (math.nan, math.inf, -math.inf, 0.1, 1e-300):
        number, _ = begin(study)
        study.report(number, 0, 1 / 3, value)
        study.report(number, 1, 1.0, 0.5)
        study.set_attempts(number, [Attempt("crash", "50 % {broken} :x", 3.0, None, 0)], 7)
    study.finish(0, trial_result("failed", None, cause="oom"))
    study.finish(1, trial_result("complete", 0.5, metrics={"f1_macro": 0.5, "loss": math.nan}))
    study.replace_run(1, "another")
    study._study.enqueue_trial(given.baseline())
    found = open_study(given, fingerprint, studies).records()
    assert len(found) == 5
    assert repr(view_study(studies, "a").records) == repr(found)


def test_readers_read_the_tables_that_optuna_makes(in_file):
    assert open_storage(in_file, "a").get_head_version() == SCHEMA
    with closing(sqlite3.connect(in_file.file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v9'")
    with pytest.raises(HpoError, match=r"was made by a later optuna \(schema v9"):
        study_names(in_file)


def test_tables_of_another_program_are_no_studies(tmp_path):
    database = StudiesDatabase.in_file(tmp_path / "studies.db")
    with closing(sqlite3.connect(database.file)) as other, other:
        other.execute("CREATE TABLE studies (name TEXT)")
    before = database.file.read_bytes()
    assert study_names(database) == []
    assert database.file.read_bytes() == before


def test_a_damaged_database_is_one_plain_error(in_file):
    content = bytearray(in_file.file.read_bytes())
    content[4096:] = b"x" * (len(content) - 4096)
    in_file.file.write_bytes(content)
    with pytest.raises(HpoError, match=r"cannot be used: .*restore a backup"):
        study_names(in_file)
