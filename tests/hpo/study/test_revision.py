"""An edited sweep: what is refused, what opens the next revision, and which trials go with it."""

from __future__ import annotations

import functools
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import hpo.study.revision
from hpo.config.budget import Spent
from hpo.config.strategy import ResolvedStrategy
from hpo.databases.studies import StudiesDatabase
from hpo.errors import ConfigError
from hpo.results.champion import ranked
from hpo.results.changes import differences
from hpo.results.records import Attempt
from hpo.results.released import Release
from hpo.results.state import Change
from hpo.results.summary import summarize
from hpo.study.lease import held_lease
from hpo.study.revision import changes_of, open_revision
from hpo.study.storage import open_storage
from hpo.study.store import newest_study_name, revision_with, stored_state, study_names, view_study
from tests.hpo.builders import Killed, Recording, Sweep, kept_home, trial_result, work
from tests.postgres import as_a_process
from trainers.protocol.events import Evaluation

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "lora_r": {"type": "choice", "values": [4, 8, 16]},
}
POINTS = [
    {"learning_rate": 2e-4, "lora_r": 4}, {"learning_rate": 1e-3, "lora_r": 8}, {"learning_rate": 5e-3, "lora_r": 16},
]  # fmt: skip
BASELINE = {"learning_rate": 5e-4, "lora_r": 8}


STARTED = {
    "search_space": SPACE, "pruner": {"type": "none"}, "name": "s",
    "search_strategy": {"type": "random", "num_trials": 4, "enqueue": POINTS},
}  # fmt: skip


both = pytest.mark.parametrize("place", ["in_file", "on_server"], indirect=True)
"""For tests that change what is stored in a way of their own."""


@pytest.fixture
def place(request):
    """Where the studies are."""
    return getattr(request, "param", "in_file")


@contextmanager
def studies_at(place, request, name, template="template1"):
    """Whatever has the studies: the home, or a database of the server, with the lease of its one sweep."""
    if place == "in_file":
        yield
        return
    url = request.getfixturevalue("postgresql").create(name, template)
    with pytest.MonkeyPatch.context() as patch, as_a_process():
        patch.setenv("HPO_STUDIES", url)
        with held_lease(StudiesDatabase.on_server(url), "s", Path()):
            yield


@pytest.fixture(scope="module")
def _kept(tmp_path_factory, _empty_studies, request):
    """What puts back a home that `run` has filled: each `run` is called once for each place of the studies."""

    @functools.cache
    def kept(run, place):
        with studies_at(place, request, run.__name__):
            return kept_home(tmp_path_factory.mktemp(run.__name__), _empty_studies, run)

    return kept


@pytest.fixture
def after(_kept, place, request):
    """The sweep as `run` has left it."""
    with ExitStack() as opened:

        def after(run):
            database = _kept(run, place)()
            opened.enter_context(studies_at(place, request, request.node.name[-60:], run.__name__))
            return Sweep(database.parents[1], database, **STARTED)

        yield after


def finish(folder, database):
    Sweep(folder, database, **STARTED).search()


@pytest.fixture
def sweep(after):
    """A sweep of four trials, the baseline and `POINTS`, that has been run."""
    return after(finish)


def space(**changes):
    return {name: value for name, value in {**SPACE, **changes}.items() if value is not None}


def longer(given, trials, **changes):
    """The sweep with more trials, and whatever else is changed."""
    return given.edit(search_strategy={"type": "random", "num_trials": trials}, **changes)


def trained(given):
    return [spec.number for spec in given.executor.specs]


def kept(given):
    return {record.number: record.params for record in given.records}


# --- what changed --------------------------------------------------------------------------------------


def test_differences_are_leaves_by_their_path():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": 3}
    new = {"a": {"b": 2, "c": [1, 2]}, "d": {"x": 1}, "f": 4}
    assert differences(old, new) == [
        Change("a.b", 1, 2), Change("d", None, {"x": 1}), Change("e", 3, None), Change("f", None, 4),
    ]  # fmt: skip
    assert differences(old, old) == []


def test_every_edit_that_makes_results_incomparable_is_told_at_once(sweep):
    data = {"train": "train.jsonl", "validation_size": 0.3, "test_size": 30, "text": "body"}
    sweep.edit(
        data=data, seed=3, objective={"metric": "accuracy"},
        training={"max_examples": 200, "evaluations": 3, "early_stopping": {"patience": 1}, "max_length": 32,
                  "precision": "fp32"},
    )  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        sweep.open()
    told = {problem.where.partition(": ")[2] for problem in refused.value.problems}
    assert told == {
        "data.validation_size", "data.test_size", "data.text", "seed", "objective", "training.max_examples",
        "training.evaluations", "training.early_stopping.patience", "training.max_length", "training.precision",
    }  # fmt: skip
    assert f"{sweep.config.file}:1: seed: was 0 when sweep 's' began, now 3; results would not" in str(refused.value)
    assert "give the sweep another name" in str(refused.value)
    assert newest_study_name(sweep.home.studies_db, "s") == "s"


def test_another_task_is_refused(sweep):
    sweep.edit(task="chat", objective={"metric": "loss"})
    with pytest.raises(ConfigError, match=r'task: was "text-classification"'):
        sweep.open()


@pytest.mark.parametrize(
    "changes",
    [
        {"promote": {"max_drop": 0.1}}, {"promote": False}, {"trials": {"retries": 5}},
        {"report_to": ["tensorboard"]},
        {"training": {"max_examples": 100, "micro_batch_size": 2, "gradient_checkpointing": True}},
        {"training": {"max_examples": 100, "logging_steps": 2, "save_steps": 3}},
        {"data": {"train": "moved.jsonl"}}, {"data": {"train": {"source": "moved.jsonl", "split": "train[:9]"}}}, {},
    ],
    ids=str,
)  # fmt: skip
def test_edits_that_no_trial_depends_on_open_no_revision(sweep, changes):
    (sweep.folder / "moved.jsonl").touch()
    sweep.edit(**changes)
    study, told, left_out = open_revision(sweep.config, sweep.fingerprint_of, sweep.home.studies_db)
    assert (study.revision, told, left_out) == (1, [], 0)
    assert study.state.revisions == []
    assert changes_of(sweep.config, stored_state(sweep.home.studies_db, "s").config) == []


def test_data_that_was_moved_is_the_same_data(sweep):
    (sweep.folder / "moved.jsonl").touch()
    longer(sweep, 5, data={"train": "moved.jsonl"}).search()
    assert trained(sweep) == [4]
    assert sweep.points[4] not in sweep.points[:4]


# --- revisions -----------------------------------------------------------------------------------------


def test_a_new_sweep_is_its_first_revision(sweep):
    state = stored_state(sweep.home.studies_db, "s")
    assert state.config["name"] == "s"
    assert state.strategy == ResolvedStrategy("random", "as the file says")
    assert state.revision == 1
    assert [record.revision for record in sweep.records] == [1] * 4


def test_more_trials_go_on_in_the_same_study(sweep):
    longer(sweep, 6).search()
    assert trained(sweep) == [4, 5]
    assert [record.revision for record in sweep.records] == [1, 1, 1, 1, 2, 2]
    assert newest_study_name(sweep.home.studies_db, "s") == "s"
    [revision] = stored_state(sweep.home.studies_db, "s").revisions
    assert (revision.revision, revision.left_out) == (2, 0)
    changes = {change.key: (change.old, change.new) for change in revision.changes}
    assert changes["search_strategy.num_trials"] == (4, 6)
    assert set(changes) == {"search_strategy.num_trials", "search_strategy.enqueue"}


def test_another_pruner_and_budget_change_no_trial(sweep):
    longer(sweep, 5, pruner={"type": "median"}, budget={"hours": 2}, finalists={"top": 1}).search()
    assert trained(sweep) == [4]
    assert newest_study_name(sweep.home.studies_db, "s") == "s"
    assert stored_state(sweep.home.studies_db, "s").revision == 2


@pytest.mark.parametrize("changes", [{"pruner": {"type": "median"}}, {"method": "rslora"}], ids=str)
def test_an_edit_that_opens_a_revision_forgets_the_trial_that_a_person_chose(sweep, changes):
    sweep.open().update_state(chosen_trial=1)
    assert sweep.open().state.chosen_trial == 1
    assert sweep.edit(**changes).open().state.chosen_trial is None


@both
def test_narrower_bounds_leave_out_the_trials_beyond_them(sweep):
    narrow = {"type": "float", "low": 3e-4, "high": 2e-3, "log": True}
    longer(sweep, 4, search_space=space(learning_rate=narrow)).search()
    assert trained(sweep) == [4, 5]
    assert {n: r["learning_rate"] for n, r in kept(sweep).items() if n < 4} == {0: 5e-4, 2: 1e-3}
    assert all(sweep.config.space.contains(point) for point in sweep.points)
    [revision] = stored_state(sweep.home.studies_db, "s").revisions
    assert revision.left_out == 2
    assert newest_study_name(sweep.home.studies_db, "s") == "s@2"
    assert study_names(sweep.home.studies_db) == ["s"]


@both
def test_a_trial_that_an_edit_left_out_is_still_recorded(sweep):
    state = stored_state(sweep.home.studies_db, "s")
    longer(sweep, 4, search_space={**SPACE, "learning_rate": {**SPACE["learning_rate"], "low": 4e-4}}).open()
    left_out = next(number for number in range(4) if number not in kept(sweep))
    stored = revision_with(sweep.home.studies_db, "s", left_out)
    assert (stored.state, stored.record(left_out).params["learning_rate"]) == (state, 2e-4)
    assert revision_with(sweep.home.studies_db, "s", 0).state.revision == 2
    assert revision_with(sweep.home.studies_db, "s", 9) is None


def test_wider_bounds_keep_every_trial(sweep):
    before = sweep.records
    wide = {"type": "float", "low": 1e-6, "high": 0.4, "log": True}
    longer(sweep, 6, search_space=space(learning_rate=wide)).search()
    assert sweep.records[:4] == before
    assert trained(sweep) == [4, 5]


def test_an_added_value_keeps_every_trial(sweep):
    before = sweep.records
    longer(sweep, 4, search_space=space(lora_r={"type": "choice", "values": [4, 8, 16, 32]}))
    sweep.search()
    assert trained(sweep) == []
    assert sweep.records == before


def test_a_value_taken_away_leaves_its_trials_out(sweep):
    longer(sweep, 4, search_space=space(lora_r={"type": "choice", "values": [8, 16]})).search()
    assert sorted(kept(sweep)) == [0, 2, 3, 4]


def test_in_an_added_dimension_old_trials_have_what_was_fixed(sweep):
    dropout = {"type": "float", "low": 0.0, "high": 0.3}
    longer(sweep, 5, search_space=space(lora_dropout=dropout)).search()
    assert trained(sweep) == [4]
    assert [point["lora_dropout"] for point in sweep.points[:4]] == [0.0] * 4
    assert sweep.config.space.contains(sweep.points[4])


def test_in_an_added_dimension_that_cannot_be_what_was_fixed_nothing_fits(sweep):
    dropout = {"type": "float", "low": 0.1, "high": 0.3}
    longer(sweep, 1, search_space=space(lora_dropout=dropout)).search()
    assert kept(sweep) == {4: {**BASELINE, "lora_dropout": 0.1}}
    assert summarize(view_study(sweep.home.studies_db, "s"), "complete").revisions[0].left_out == 4


def test_an_added_condition_drops_what_does_not_exist_there(sweep):
    """lora_dropout is fixed at its default for all; where the rank is 16 it is searched."""
    dropout = {"type": "choice", "values": [0.0, 0.1], "when": {"lora_r": 16}}
    longer(sweep, 4, search_space=space(lora_dropout=dropout)).search()
    assert trained(sweep) == []
    assert [point.get("lora_dropout") for point in sweep.points] == [None, None, None, 0.0]


def test_a_removed_dimension_keeps_the_trials_that_had_its_default(sweep):
    longer(sweep, 3, search_space=space(lora_r=None)).search()
    assert kept(sweep) == {
        0: {"learning_rate": 5e-4}, 2: {"learning_rate": 1e-3}, 4: sweep.points[-1]
    }  # fmt: skip
    assert trained(sweep) == [4]


def test_a_removed_dimension_that_is_fixed_at_another_value(sweep):
    longer(sweep, 1, search_space=space(lora_r=None), training={"max_examples": 100, "lora_r": 16})
    sweep.search()
    # The baseline of the edited sweep is another point, and is tried.
    assert kept(sweep)[3] == {"learning_rate": 5e-3}
    assert set(kept(sweep)) == {3}


def test_the_scale_searched_instead_of_its_ratio_is_the_same_trial(tmp_path, database):
    ratio = {"alpha_ratio": {"type": "choice", "values": [1, 2, 4]}}
    given = Sweep(tmp_path, database, search_space=ratio, search_strategy={"type": "grid"}, pruner={"type": "none"})
    given.search()
    given.edit(search_space={"lora_alpha": {"type": "choice", "values": [8, 16, 64]}})
    given.search()
    assert trained(given) == [3]
    assert {n: p["lora_alpha"] for n, p in kept(given).items()} == {0: 16, 1: 8, 3: 64}


def test_a_trial_at_the_last_step_of_its_dimension_is_kept(tmp_path, database):
    """0.1 + 2 * 0.1 is more than 0.3, which is where Optuna's dimension ends."""
    decay = {"weight_decay": {"type": "float", "low": 0.1, "high": 0.35, "step": 0.1}}
    given = Sweep(tmp_path, database, search_space=decay, search_strategy={"type": "grid"}, pruner={"type": "none"})
    given.search()
    assert len(trained(given)) == 3
    given.edit(search_space={**decay, "lora_r": 8}).search()
    assert trained(given) == []
    assert len(kept(given)) == 3


def test_a_trial_that_is_equal_to_one_that_was_left_out_stands_for_both(tmp_path, database):
    """With rank 8, scale 16 is what null means: the second trial has the result of the first."""

    def scales(*values):
        return {"lora_alpha": {"type": "choice", "values": values}}

    given = Sweep(tmp_path, database, search_space=scales(16, None, 32), search_strategy={"type": "grid"})
    study = given.open()
    for scale in (16.0, None, 32.0):
        study.finish(study.begin({"lora_alpha": scale})[0], trial_result())
    study.close()
    assert [record.reused_from for record in given.records] == [None, "0", None]
    given.edit(search_space=scales(None, 32)).search()
    assert trained(given) == []
    assert {r.number: r.reused_from for r in given.records} == {1: "sweep/0", 2: None}
    assert {r.number for r in ranked(given.records, given.config.objective, {})} == {1, 2}
    running = given.running()
    assert (running.study.state.baseline, running.trial_paths(1)) == (1, given.paths(0))


def test_a_changed_setting_that_every_trial_read_leaves_all_of_them_out(sweep):
    longer(sweep, 1, training={"max_examples": 100, "weight_decay": 0.5}).search()
    assert trained(sweep) == [4]
    assert kept(sweep) == {4: BASELINE}


@both
def test_constraints_are_told_of_old_trials_too(sweep):
    longer(sweep, 4, constraints={"max_seconds": 0.02}).search()
    trials = sweep.open()._study.get_trials()
    assert [trial.constraints for trial in trials] == [{"seconds": pytest.approx(1.5)}] * 4


def test_numbers_go_on_after_the_largest_ever(sweep):
    narrow = {"type": "float", "low": 4e-4, "high": 2e-3, "log": True}
    longer(sweep, 2, search_space=space(learning_rate=narrow))
    sweep.open()
    assert sorted(kept(sweep)) == [0, 2]
    for low in (4.5e-4, 4.6e-4):
        longer(sweep, 3, search_space=space(learning_rate={**narrow, "low": low}))
        assert sweep.open().next_number == 4
    sweep.search()
    assert sorted(kept(sweep)) == [0, 2, 4]
    assert [entry.revision for entry in sweep.open().state.revisions] == [2, 3, 4]


def test_what_a_sweep_knows_goes_with_it(sweep):
    release = Release("s", "1", "models:/s@champion", "fp32", 0, "run")
    known = {"base_score": {"f1_macro": 0.5}, "spent": Spent(3.0, 0.0), "baseline": 0, "release": release}
    sweep.open().update_state(**known)
    longer(sweep, 6, search_space=space(lora_r={"type": "choice", "values": [4, 8, 16, 32]}))
    state = sweep.open().state
    assert {name: getattr(state, name) for name in known} == known


def test_the_baseline_of_an_edited_sweep_is_the_trial_at_its_default_point(sweep):
    longer(sweep, 5, training={"max_examples": 100, "learning_rate": 1e-3}, search_space=space())
    assert sweep.open().state.baseline == 2
    longer(sweep, 6, training={"max_examples": 100, "learning_rate": 2e-3})
    assert sweep.open().state.baseline is None
    sweep.search()
    assert sweep.open().state.baseline == 4


@pytest.mark.parametrize("result", [
    trial_result("pruned", 0.4), trial_result("pruned", 0.4, stopped_by="sweep_budget"),
    trial_result("failed", None, cause="timeout"),
])  # fmt: skip
def test_a_trial_that_was_stopped_or_lost_is_no_baseline_of_an_edited_sweep(tmp_path, database, result):
    rates = {"learning_rate": {"type": "choice", "values": [5e-4, 1e-3]}}
    given = Sweep(tmp_path, database, search_space=rates, search_strategy={"type": "grid"}, pruner={"type": "none"})
    study = given.open()
    for rate, ended in ((5e-4, trial_result()), (1e-3, result), (1e-3, result)):
        study.finish(study.begin({"learning_rate": rate})[0], ended)
    study.close()
    given.edit(training={"max_examples": 100, "learning_rate": 1e-3})
    assert given.open().state.baseline is None
    given.search()
    assert (trained(given), given.open().state.baseline) == ([3], 3)
    assert {r.number: r.state for r in given.records} == {0: "complete", 3: "complete"}


def test_another_metric_for_the_pruner_rewrites_the_curves(tmp_path, database):
    def two_metrics(request):
        for event in work(request):
            if isinstance(event, Evaluation):
                event.metrics["loss"] = 7.0 + event.index
            yield event

    objectives = [{"metric": "f1_macro"}, {"metric": "loss"}]
    rule = {"type": "threshold", "upper": 100}
    given = Sweep(tmp_path, database, objective=objectives, search_strategy={"num_trials": 2}, pruner=rule)
    given.search(Recording(two_metrics))
    given.edit(pruner={**rule, "metric": "loss"})
    assert [[value for _, value in r.curve] for r in given.records] == [[7.0, 8.0, 9.0, 10.0, 11.0]] * 2
    assert given.open().revision == 2


# --- interrupted trials --------------------------------------------------------------------------------


def kill_in_trial_2(folder, database):
    def killed(request):
        verdict = None
        events = work(request)
        for _ in range(99):
            event = events.send(verdict)
            if request.spec.number == 2 and isinstance(event, Evaluation) and event.index == 2:
                raise Killed
            verdict = yield event

    with pytest.raises(Killed):
        Sweep(folder, database, **STARTED).search(Recording(killed), jobs=3)


@pytest.fixture
def interrupted(after):
    """A sweep killed while trials 0 to 2 were under way, each with three evaluations."""
    given = after(kill_in_trial_2)
    assert [record.state for record in given.records] == ["running", "running", "running"]
    return given


@both
def test_interrupted_trials_that_fit_go_on_under_their_numbers(interrupted):
    before = interrupted.records
    wide = {"type": "float", "low": 1e-6, "high": 0.4, "log": True}
    interrupted.edit(search_space=space(learning_rate=wide))
    assert interrupted.records == before
    interrupted.search()
    assert trained(interrupted) == [0, 1, 2, 3]
    assert [r.resumed_from for r in interrupted.records] == [2, 2, 2, None]
    assert [len(r.curve) for r in interrupted.records] == [5] * 4
    assert [r.revision for r in interrupted.records] == [1, 1, 1, 2]


def test_interrupted_trials_that_do_not_fit_are_left_out(interrupted):
    narrow = {"type": "float", "low": 3e-4, "high": 2e-3, "log": True}
    interrupted.edit(
        search_space=space(learning_rate=narrow), search_strategy={"type": "random", "num_trials": 3}
    ).search()
    assert sorted(kept(interrupted)) == [0, 2, 3]
    assert interrupted.open().state.revisions[0].left_out == 1


def test_an_interrupted_trial_survives_two_edits_in_a_row(interrupted):
    for high in (0.1, 0.2):
        interrupted.edit(search_space=space(learning_rate={**SPACE["learning_rate"], "high": high}))
        interrupted.open()
    assert sorted(kept(interrupted)) == [0, 1, 2]
    interrupted.search()
    assert trained(interrupted) == [0, 1, 2, 3]


@both
def test_attempts_before_an_edit_count_after_it(interrupted):
    study = interrupted.open()
    study.resume(1)
    study.set_attempts(1, [Attempt("crash", "broken", 1.0, None, 0)], None)
    interrupted.edit(search_space=space(lora_r={"type": "choice", "values": [4, 8, 16, 32]}))
    assert [a.cause for a in interrupted.records[1].attempts] == ["crash"]


# --- kills ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "copied"), [("in_file", 0), ("in_file", 2), ("in_file", 4), ("on_server", 2)], indirect=["place"]
)
def test_a_kill_in_the_middle_of_copying_is_done_again(sweep, monkeypatch, copied):
    before = sweep.records
    longer(sweep, 5, search_space=space(lora_r={"type": "choice", "values": [4, 8, 16, 32]}))
    copy, done = hpo.study.study.Study.copy, []

    def killed(self, record):
        if len(done) == copied:
            raise Killed
        done.append(record)
        copy(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(hpo.study.study.Study, "copy", killed)
        if copied == 4:
            patch.setattr(hpo.study.revision, "_describe", killed_describe)
        with pytest.raises(Killed):
            sweep.open()
    assert newest_study_name(sweep.home.studies_db, "s") == "s"
    assert [record.number for record in view_study(sweep.home.studies_db, "s").records] == [0, 1, 2, 3]
    assert sweep.records == before
    assert newest_study_name(sweep.home.studies_db, "s") == "s@2"
    assert [record.number for record in view_study(sweep.home.studies_db, "s").records] == [0, 1, 2, 3]
    assert [entry.revision for entry in sweep.open().state.revisions] == [2]
    sweep.search()
    assert trained(sweep) == [4]
    studies = open_storage(sweep.home.studies_db, "s").get_all_studies()
    assert sorted(study.study_name for study in studies) == ["s", "s@2"]


def killed_describe(*_):
    raise Killed
