"""The record of a sweep: repeatable points, trials that survive a kill, and what is read back."""

import math

import pytest

import hpo.study
from hpo.errors import UsageError
from hpo.report import champion_of
from hpo.study import Study, open_study, stored_attrs, study_names, view_study
from tests.hpo.builders import evaluation, make_config, trial_result

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "lora_r": {"type": "int", "low": 1, "high": 64, "log": True},
    "batch_size": {"type": "choice", "values": [8, 16, 32]},
    "warmup_ratio": {"type": "float", "low": 0, "high": 0.5, "step": 0.1},
}


@pytest.fixture
def config(tmp_path):
    def config(**changes):
        return make_config(tmp_path, **{"search_space": SPACE, **changes})

    return config


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request):
    """Opens a study; called again, opens what is stored, as another process would."""
    if request.param == "sqlite":
        database = request.getfixturevalue("database")
        return lambda config: open_study(config, database)
    storage = hpo.study._storage(None)
    return lambda config: Study(config, storage)


def score(params):
    return 1 / (1 + abs(math.log10(params["learning_rate"] / 1e-3)))


def run(study, number, params):
    study.report(number, 0.5, score(params) / 2)
    study.report(number, 1.0, score(params))
    study.finish(number, trial_result("complete", score(params)))


# --- which point next ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reopen", ["memory"], indirect=True)
def test_the_baseline_comes_first(reopen, config):
    number, params = reopen(config()).ask()
    assert number == 0
    assert params == config().baseline() == {"learning_rate": 5e-4, "lora_r": 8, "batch_size": 16, "warmup_ratio": 0.1}


@pytest.mark.parametrize("reopen", ["memory"], indirect=True)
def test_a_sweep_without_a_space_asks_for_the_default(reopen, config):
    assert reopen(config(search_space={})).ask() == (0, {})


@pytest.mark.parametrize(("strategy", "count"), [("tpe", 8), ("random", 3)])  # TPE begins with 5 random points
def test_the_same_seed_gives_the_same_points_however_often_the_study_is_reopened(database, config, strategy, count):
    given = config(search_strategy={"type": strategy})

    def points(study, again):
        asked = []
        for _ in range(count):
            number, params = study.ask()
            asked.append(params)
            run(study, number, params)
            study = again(study)
        return asked

    kept = points(open_study(given, None), lambda study: study)
    reopened = points(open_study(given, database), lambda _: open_study(given, database))
    assert kept == reopened
    assert len({tuple(params.values()) for params in kept}) == count


def test_reopening_among_running_trials_changes_no_point(reopen, config):
    def points(again):
        study = reopen(given)
        asked = []
        for _ in range(3):
            first, second = study.ask(), study.ask()
            asked += [first[1], second[1]]
            study.report(second[0], 0.5, score(second[1]) / 2)
            run(study, *first)
            if again:
                study = reopen(given)
        return asked

    given = config()
    kept = points(again=False)
    given = config(name="again")
    assert points(again=True) == kept


def test_other_seeds_give_other_points(config):
    def second(seed):
        study = open_study(config(seed=seed), None)
        return [study.ask()[1] for _ in range(2)][1]

    assert second(0) == second(0)
    assert second(0) != second(1)


@pytest.mark.parametrize("strategy", ["tpe", "random"])
def test_points_are_of_the_space(config, strategy):
    given = config(search_strategy={"type": strategy})
    study = open_study(given, None)
    for _ in range(12):
        number, params = study.ask()
        assert list(params) == list(SPACE)
        assert all(given.space.dimensions[name].contains(value) for name, value in params.items())
        run(study, number, params)


def test_trials_side_by_side_get_different_points(config):
    study = open_study(config(), None)
    assert len({tuple(study.ask()[1].values()) for _ in range(8)}) == 8


# --- grids ---------------------------------------------------------------------------------------------

GRID = {"lora_r": {"type": "int", "low": 4, "high": 12, "step": 4}, "batch_size": SPACE["batch_size"]}


def test_a_grid_is_asked_point_by_point_each_once(reopen, config):
    given = config(search_strategy={"type": "grid"}, search_space=GRID)
    study = reopen(given)
    points = []
    for _ in range(given.planned_trials()):
        number, params = study.ask()
        points.append(params)
        study.finish(number, trial_result())
        study = reopen(given) if number % 3 == 1 else study
    assert points[0] == given.baseline()
    assert sorted(tuple(p.values()) for p in points) == sorted(tuple(p.values()) for p in given.space.grid())
    assert study.finished_or_running() == given.planned_trials() == 9


def test_a_baseline_outside_the_grid_is_one_trial_more(config):
    given = config(
        search_strategy={"type": "grid"},
        training={"lora_alpha": None},
        search_space={"lora_r": {"type": "choice", "values": [8, 16]}, "lora_dropout": {
            "type": "float", "low": 0.0, "high": 0.4, "step": 0.2}},
    )  # fmt: skip
    study = open_study(given, None)
    points = [study.ask()[1] for _ in range(given.planned_trials())]
    assert len({tuple(point.values()) for point in points}) == len(points) == 6


def test_a_grid_whose_step_does_not_divide_its_range_is_asked_without_a_warning(config):
    given = config(
        search_strategy={"type": "grid"},
        training={"lora_r": 10},
        search_space={"lora_r": {"type": "int", "low": 1, "high": 10, "step": 6},
                      "weight_decay": {"type": "float", "low": 0, "high": 1, "step": 0.6}},
    )  # fmt: skip
    study = open_study(given, None)
    points = [tuple(study.ask()[1].values()) for _ in range(given.planned_trials())]
    assert sorted(points) == [(1, 0.0), (1, 0.6), (7, 0.0), (7, 0.6)]


def test_a_kill_while_the_grid_is_lined_up_loses_no_point(config, monkeypatch):
    given = config(search_strategy={"type": "grid"}, search_space=GRID)
    storage = hpo.study._storage(None)
    enqueue, calls = hpo.study.optuna.Study.enqueue_trial, []

    def killed_at_third(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return enqueue(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(hpo.study.optuna.Study, "enqueue_trial", killed_at_third)
        with pytest.raises(KeyboardInterrupt):
            Study(given, storage)
    study = Study(given, storage)
    points = [tuple(study.ask()[1].values()) for _ in range(given.planned_trials())]
    assert len(set(points)) == 9


@pytest.mark.parametrize("reopen", ["memory"], indirect=True)
def test_waiting_grid_points_are_neither_running_nor_records(reopen, config):
    study = reopen(config(search_strategy={"type": "grid"}, search_space=GRID))
    assert (study.finished_or_running(), study.records(), study.interrupted()) == (0, [], [])
    study.ask()
    assert (study.finished_or_running(), len(study.records())) == (1, 1)


# --- interruption --------------------------------------------------------------------------------------


def test_a_trial_left_running_keeps_its_number_and_its_point(reopen, config):
    study = reopen(config())
    for _ in range(3):
        asked = study.ask()
    again = reopen(config())
    assert again.interrupted() == [0, 1, 2]
    assert again.resume(2) == asked[1]
    again.finish(2, trial_result())
    assert reopen(config()).interrupted() == [0, 1]
    assert again.ask()[0] == 3


def test_repeated_reports_are_not_written_twice(reopen, config):
    study = reopen(config())
    study.ask()
    study.report(0, 0.25, 0.1)
    study.report(0, 0.5, 0.2)
    again = reopen(config())
    again.resume(0)
    for index, value in enumerate([0.1, 0.2, 0.3, 0.4]):
        again.report(0, (index + 1) / 4, value)
    assert again.curves[0] == [(0.25, 0.1), (0.5, 0.2), (0.75, 0.3), (1.0, 0.4)]
    again.finish(0, trial_result())
    [record] = again.records()
    assert record.curve == [(0.25, 0.1), (0.5, 0.2), (0.75, 0.3), (1.0, 0.4)]


def kill_in_ask(study, monkeypatch):
    """The process ends after the first parameter of a point was written."""
    suggest = hpo.study._suggest

    def killed_at_second(trial, name, dimension):
        if name != "learning_rate":
            raise KeyboardInterrupt
        return suggest(trial, name, dimension)

    with monkeypatch.context() as patch:
        patch.setattr(hpo.study, "_suggest", killed_at_second)
        with pytest.raises(KeyboardInterrupt):
            study.ask()


@pytest.mark.parametrize("done", [3, 8])  # before and after TPE's random start
def test_a_point_that_was_half_asked_for_is_completed_the_same_way_every_time(config, monkeypatch, done):
    def completed():
        storage = hpo.study._storage(None)
        study = Study(config(), storage)
        for _ in range(done):
            run(study, *study.ask())
        kill_in_ask(study, monkeypatch)
        again = Study(config(), storage)
        [number] = again.interrupted()
        return again.resume(number)

    first = completed()
    assert list(first) == list(SPACE)
    assert completed() == first


def test_a_half_asked_baseline_is_still_the_baseline(config, monkeypatch):
    storage = hpo.study._storage(None)
    kill_in_ask(Study(config(), storage), monkeypatch)
    assert Study(config(), storage).resume(0) == config().baseline()


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
        asked.append(study.ask()[1])
        study.set_run_id(number, f"run{number}")
        study.report(number, 0.5, 0.4)
        study.finish(number, result)
    asked.append(study.ask()[1])

    records = reopen(config()).records()
    assert [r.number for r in records] == [0, 1, 2, 3]
    assert [r.state for r in records] == ["complete", "pruned", "failed", "running"]
    assert [r.params for r in records] == asked
    assert [r.result for r in records] == [*results, None]
    assert [r.run_id for r in records] == ["run0", "run1", "run2", None]
    assert [r.curve for r in records] == [[(0.5, 0.4)]] * 3 + [[]]


@pytest.mark.parametrize("reopen", ["memory"], indirect=True)
def test_curves_of_finished_trials_are_there_after_reopening(reopen, config):
    study = reopen(config())
    run(study, *study.ask())
    assert reopen(config()).curves == study.curves
    assert len(study.curves[0]) == 2


@pytest.mark.parametrize("metric", ["f1_macro", "loss"])
def test_a_pruned_trial_is_never_champion(config, metric):
    given = config(objective={"metric": metric})
    study = open_study(given, None)
    best = 0.9 if given.objective.direction == "maximize" else 0.1
    for result in [trial_result("complete", 0.5), trial_result("pruned", best), trial_result("failed", None)]:
        number, _ = study.ask()
        study.report(number, 0.5, result.value or best)
        study.finish(number, result)
    assert champion_of(study.records(), given.objective).number == 0


def test_a_choice_keeps_its_types_in_a_database(database, config):
    given = config(
        search_strategy={"type": "grid"}, search_space={"lora_alpha": {"type": "choice", "values": [None, 16, 2.5]}}
    )
    study = open_study(given, database)
    asked = [study.ask()[1]["lora_alpha"] for _ in range(3)]
    stored = [r.params["lora_alpha"] for r in open_study(given, database).records()]
    assert sorted(map(repr, stored)) == ["16", "2.5", "None"]
    # 16 and 16.0 are equal, but a spec's fingerprint is of their text.
    assert list(map(repr, asked)) == list(map(repr, stored))


# --- reading a database --------------------------------------------------------------------------------


def test_a_database_that_is_not_there_is_empty_and_not_made(tmp_path):
    database = tmp_path / "none.db"
    assert study_names(database) == []
    assert stored_attrs(database, "a") == {}
    with pytest.raises(UsageError, match=r"no sweep 'a'; there are none yet"):
        view_study(database, "a")
    assert not database.exists()


def test_the_first_study_makes_the_database(tmp_path, config):
    open_study(config(name="a"), tmp_path / "new.db")
    assert study_names(tmp_path / "new.db") == ["a"]


def test_a_study_that_was_killed_before_it_had_a_config_is_still_read_by_name(database):
    hpo.study.optuna.create_study(study_name="a", storage=hpo.study._storage(database))
    with pytest.raises(UsageError):
        view_study(database, "a")


def test_a_database_is_read_by_name(database, config):
    for name in ("b", "a"):
        study = open_study(config(name=name), database)
        study.set_attr("state", "running")
    assert study_names(database) == ["a", "b"]
    assert stored_attrs(database, "a")["config"]["name"] == "a"
    assert stored_attrs(database, "c") == {}
    view = view_study(database, "b")
    assert (view.name, view.attrs["state"], view.records) == ("b", "running", [])
    assert (view.objective.metric, view.objective.direction) == ("f1_macro", "maximize")
    with pytest.raises(UsageError, match=r"no sweep 'x'; there are: a, b"):
        view_study(database, "x")


def test_the_file_s_own_text_is_kept(tmp_path, config):
    given = config()
    assert open_study(given, None).attrs()["config_text"] == given.file.read_text()


@pytest.mark.parametrize("reopen", ["memory"], indirect=True)
def test_the_config_of_the_first_opening_is_kept(reopen, config):
    reopen(config())
    assert reopen(config(search_strategy={"num_trials": 3})).attrs()["config"]["search_strategy"]["num_trials"] == 20
