"""Homes outlive releases: what the first format of records holds is read and continued by the code of today."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError
from hpo.search.finalists import run_finalists
from hpo.study.store import newest_study_name, stored_state, study_names, view_study
from tests.hpo.builders import Sweep
from trainers.protocol.codec import RECORD_FORMAT, from_json
from trainers.protocol.settings import FIELDS, Field
from trainers.protocol.trial_spec import TrialSpec

GOLDEN = Path(__file__).with_name("format-1")
FINGERPRINTS = json.loads((GOLDEN / "fingerprints.json").read_text())
WRITTEN = {
    "search_space": {
        "learning_rate": {"type": "choice", "values": [1e-4, 5e-4, 1e-3, 2e-3]},
        "lora_r": {"type": "int", "low": 4, "high": 16, "step": 4},
    },
    "pruner": {"type": "none"},
    "training": {"max_examples": 40, "evaluations": 2},
    "search_strategy": {"type": "random", "num_trials": 4},
    "finalists": {"top": 1, "seeds": 2},
    "promote": False,
}


@pytest.fixture
def home(tmp_path):
    """The golden home, as files of its own."""
    (tmp_path / "home").mkdir()
    shutil.copytree(GOLDEN / "sweeps", tmp_path / "home/sweeps")
    with sqlite3.connect(tmp_path / "home/studies.db") as database:
        database.executescript((GOLDEN / "studies.sql").read_text())
    database.close()
    return tmp_path


def studies_of(home):
    return StudiesDatabase.in_file(home / "home/studies.db")


def opened(home, name, **changes):
    return Sweep(home, home / "home/studies.db", name=name, **{**WRITTEN, **changes})


# --- fingerprints --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stored", FINGERPRINTS, ids=lambda stored: f"{stored['spec']['workload']['task']}-{stored['spec']['method']}"
)
def test_every_spec_has_the_fingerprint_that_it_had(stored):
    assert from_json(TrialSpec, stored["spec"]).fingerprint() == stored["fingerprint"]


def test_a_setting_that_comes_later_keys_no_earlier_trial_anew(monkeypatch):
    stored = FINGERPRINTS[0]
    monkeypatch.setitem(FIELDS, "a_later_one", Field("a_later_one", float, 0.5, "", searchable=True))

    def with_later(value):
        return from_json(
            TrialSpec, {**stored["spec"], "settings": {**stored["spec"]["settings"], "a_later_one": value}}
        )

    assert with_later(0.5).fingerprint() == stored["fingerprint"]
    assert with_later(0.6).fingerprint() != stored["fingerprint"]


# --- the home ------------------------------------------------------------------------------------------


def test_a_finished_sweep_is_read_as_it_was(home):
    view = view_study(studies_of(home), "done")
    assert view.state.state == "complete"
    assert [(r.number, r.state) for r in view.records] == [(n, "complete") for n in range(4)]
    finalists = view.state.finalists
    assert [c.trial for c in finalists.contestants] == [2, 0]
    assert finalists.of(0).is_baseline
    assert finalists.test.champion.trial == finalists.champion
    assert opened(home, "done").summary().champion.number == finalists.champion


def test_nothing_of_a_finished_sweep_is_trained_again(home):
    done = opened(home, "done")
    before = done.records
    done.search()
    assert done.executor.specs == []
    assert done.records == before
    sweep = done.running()
    run_finalists(sweep)
    assert done.executor.specs == done.executor.others == []
    assert sweep.study.revision == 1


def test_a_killed_sweep_goes_on_under_its_numbers(home):
    half = opened(home, "half")
    assert [r.state for r in half.records] == ["complete", "complete", "running"]
    before = half.records[:2]
    half.search()
    assert [spec.number for spec in half.executor.specs] == [2, 3]
    assert half.records[:2] == before
    assert [r.state for r in half.records] == ["complete"] * 4
    assert newest_study_name(studies_of(home), "half") == "half"
    run_finalists(half.running())
    assert half.summary().champion.repeat is not None


def test_an_edited_sweep_keeps_the_trials_that_fit(home):
    values = [5e-4, 1e-3, 2e-3, 4e-3]
    space = {**WRITTEN["search_space"], "learning_rate": {"type": "choice", "values": values}}
    before = view_study(studies_of(home), "done").records
    kept = {r.number for r in opened(home, "done", search_space=space).records}
    assert kept == {r.number for r in before if r.params["learning_rate"] in values}
    assert 0 in kept


def test_a_key_that_came_later_is_no_edit(home):
    """What a stored file does not know has its default: the sweep goes on in the same study."""
    with sqlite3.connect(home / "home/studies.db") as database:
        rows = database.execute("SELECT study_user_attribute_id, value_json FROM study_user_attributes "
                                "WHERE key = 'config'").fetchall()  # fmt: skip
        for row, value in rows:
            config = json.loads(value)
            del config["training"]["precision"], config["training"]["neftune_noise_alpha"], config["metrics"]
            database.execute("UPDATE study_user_attributes SET value_json = ? WHERE study_user_attribute_id = ?",
                             (json.dumps(config), row))  # fmt: skip
    database.close()
    done = opened(home, "done")
    assert done.open().revision == 1
    edited = opened(home, "half", training={**WRITTEN["training"], "neftune_noise_alpha": 5.0})
    assert edited.open().revision == 2


# --- what cannot be read -------------------------------------------------------------------------------


def attributes(home, name, changes):
    with sqlite3.connect(home / "home/studies.db") as database:
        (study,) = database.execute("SELECT study_id FROM studies WHERE study_name = ?", (name,)).fetchone()
        for key, value in changes.items():
            database.execute("DELETE FROM study_user_attributes WHERE study_id = ? AND key = ?", (study, key))
            database.execute("INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (?, ?, ?)",
                             (study, key, json.dumps(value)))  # fmt: skip
    database.close()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"spent": [1]}, "expected the fields of Spent"),
        ({"finalists": {"champion": 3}}, "FinalistsOutcome lacks 'fingerprint'"),
        ({"state": "asleep"}, "'asleep' is none of"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_one_error_that_names_it(home, changes, problem):
    attributes(home, "done", changes)
    database = studies_of(home)
    for read in (view_study, stored_state):
        with pytest.raises(HpoError, match="sweep 'done' cannot be read") as refused:
            read(database, "done")
        assert problem in str(refused.value)
    with pytest.raises(HpoError, match="sweep 'done' cannot be read"):
        opened(home, "done").open()
    assert study_names(database) == ["done", "half"]
    assert view_study(database, "half").name == "half"


def test_a_newer_program_s_sweep_says_so(home):
    attributes(home, "done", {"format": RECORD_FORMAT + 1})
    with pytest.raises(
        HpoError, match=rf"^sweep 'done' was written by a newer hpo \(its records have format {RECORD_FORMAT + 1}"
    ):
        view_study(studies_of(home), "done")


def test_unknown_fields_are_kept_and_ignored(home):
    attributes(home, "done", {"from_the_future": {"a": 1}, "spent": {"seconds": 1.0, "gpu_seconds": 0.0, "watts": 5}})
    done = opened(home, "done")
    study = done.open()
    assert study.state.spent.seconds == 1.0
    study.update_state(state="complete")
    assert study._study.user_attrs["from_the_future"] == {"a": 1}


@pytest.mark.parametrize("file", ["spec.json", "result.json"])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Expecting property name"),
        ('{"format": 2}', "a newer hpo wrote it (format 2, this one reads 1)"),
        ("[]", "expected the fields of"),
        ("{}", "lacks '"),
    ],
)
def test_a_trial_s_file_that_cannot_be_read_is_one_error_that_names_it(home, file, text, problem):
    half = opened(home, "half")
    path = half.paths(2).dir / file
    path.write_text(text)
    with pytest.raises(HpoError, match=rf"half/trials/0002/{file} cannot be read") as refused:
        half.search()
    assert problem in str(refused.value)


def test_files_carry_their_format(home):
    half = opened(home, "half")
    half.search()
    for name in ("spec.json", "result.json"):
        assert json.loads((half.paths(3).dir / name).read_text())["format"] == RECORD_FORMAT
