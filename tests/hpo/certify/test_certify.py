"""A night's release against the champion of its name: who is promoted, who stays, when a person is asked."""

import contextlib
import dataclasses
import datetime
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpo.certify.certify import certify
from hpo.certify.ledger import Ledger
from hpo.commands import night_steps
from hpo.nights.data import FrozenData
from hpo.nights.night import Night
from hpo.nights.record import NightFiles, NightRecord, Step
from hpo.nights.steps import Frame, Tonight
from hpo.paths import Home
from hpo.progress_view import Silent
from hpo.release.aliases import approve
from hpo.release.versions import version_of
from tests.hpo.builders import INSPECTION, Recording, Sweep
from tests.hpo.release.rivals import LABELS, ROWS, answers, measuring, registered, release_folder
from trainers.protocol.codec import from_json, to_json
from trainers.protocol.exported import Exported
from trainers.protocol.requests import Export, Inspect, Measure

DATA = dataclasses.replace(INSPECTION, rows={**INSPECTION.rows, "validation": ROWS}, labels=list(LABELS))
CERTIFYING = dataclasses.replace(DATA, tokens_dir="/certifying")
CHOSE = "validation.jsonl"
"""The rows of a night's sweep."""
BASELINE = 0.6
OWN = "own"
"""Below a release, where it answers the rows of its own sweep otherwise than those that certify."""


def answering(request):
    """Measures releases; trial 0 is exported to one that is right on `BASELINE` of the rows."""
    if isinstance(request, Inspect):
        yield CERTIFYING
        return
    if not isinstance(request, Export):
        own = Path(request.dir, request.variant, OWN)
        if request.rows == CHOSE and own.exists():
            request = dataclasses.replace(request, dir=str(own.parent), variant=own.name)
        yield from measuring(request)
        return
    assert (Path(request.spec.dir).name, request.inspection) == ("0000", DATA)
    made = release_folder(Path(request.dir), BASELINE, 7)
    shutil.move(made, Path(request.dir, made.name))
    yield Exported({}, request.variants, {}, 0.0, 0.0)


@pytest.fixture
def nights(tmp_path, home_with_store, database):
    """Nights of one name, each with a sweep that has released a version of a known quality."""

    class Nights:
        home = Home(home_with_store)
        ledger = Ledger(home.ledger("shared"))
        executor = Recording(answering)
        studies = database

        def run(self, day, quality, seed, finalists=True, release=None, has_baseline=False, own=None, **promote):
            """Certify what the night of that day has released; `own` is its quality on the rows of its sweep."""
            self.night = Night("movies", datetime.date(2026, 11, day))
            self.sweep = Sweep(
                tmp_path, self.studies, name=self.night.sweep, search_space={},
                finalists={"claim": "adapter"} if finalists else False, promote={"name": "shared", **promote},
            )  # fmt: skip
            self.studies = self.home.studies_db
            self.sweep.inspection = DATA
            if has_baseline:
                self.sweep.search()
            made = release or registered(self.home, self.night.sweep, quality, seed)
            self.made = dataclasses.replace(made, trial=1)
            if own is not None:
                folder = version_of(self.home, "shared", made.version).folder() / OWN
                folder.mkdir()
                np.save(folder / "answers.npy", answers(own, seed))
            study = self.sweep.open()
            study.update_state(challenger=self.made, data=DATA)
            study.close()
            return self.again()

        def again(self):
            self.executor = Recording(answering)
            config = self.sweep.config
            return certify(self.executor, config, self.home, self.night, self.ledger, config.workload(self.home))

        def crown(self):
            approve(self.home, "shared", self.made.version)

    return Nights()


@pytest.fixture
def after_the_first(nights):
    """Nights of a name whose champion is right on 0.88 of the rows."""
    left = nights.home.sweep("movies-2026-11-01").dir / "certify" / "certifying" / "baseline" / "fp32"
    left.mkdir(parents=True)  # by a kill
    nights.first = nights.run(1, 0.88, 1, has_baseline=True)
    nights.crown()
    return nights


def test_the_first_version_of_a_name_is_promoted_without_a_claim(after_the_first):
    first = after_the_first.first
    assert (first.decision, first.why) == ("promote", "'shared' has no champion yet")
    assert (first.e_value, first.tests_so_far, first.test) == (None, 0, None)
    assert first.new.low < first.new.value < first.new.high
    assert abs(first.baseline.value - BASELINE) < 0.06
    assert first.rows == ROWS
    assert not (after_the_first.home.sweep("movies-2026-11-01").dir / "certify").exists()


def test_a_better_version_is_certified_and_one_that_ties_is_not(after_the_first):
    nights = after_the_first
    tie = nights.run(2, 0.88, 2)
    assert (tie.decision, tie.test, tie.regressions) == ("keep", None, [])
    assert (tie.baseline, tie.no_baseline) == (None, "the sweep has no baseline")
    assert abs(tie.lead.difference) < 0.08
    better = nights.run(3, 0.99, 3, has_baseline=True)
    assert better.decision == "promote"
    assert better.why.startswith("certified: the share of right rows, each label counted alike: e-value ")
    assert better.e_value >= better.threshold == pytest.approx(1 / better.level)
    assert (better.old_version, better.new_version, better.certified_so_far) == ("1", "3", 1)
    assert better.new.value > better.old.value > better.baseline.value
    assert (better.test.number, better.test.by, better.test_readings) == (1, "promotion", 1)
    assert better.test.new.value > better.test.old.value
    certified, test = "/certifying/validation.jsonl", "/certifying/test.jsonl"
    assert [r.rows for r in nights.executor.others if isinstance(r, Measure)] == [
        certified, certified, certified, CHOSE, CHOSE, test, test,
    ]  # fmt: skip
    assert nights.again() == better  # as after a kill: one claim, one reading
    assert len(nights.ledger.claims()) == better.tests_so_far
    assert from_json(type(better), to_json(better)) == better


def test_a_person_is_asked_where_the_file_says_so(after_the_first):
    nights = after_the_first
    certified = nights.run(2, 0.99, 2, approve="ask")
    assert (certified.decision, certified.why[:9], certified.test.number) == ("ask", "certified", 1)
    open_one = nights.run(3, 0.88, 3, approve="when_close")
    assert open_one.decision == "ask"
    assert nights.run(4, 0.6, 4, approve="when_close").decision == "keep"
    assert nights.run(5, 0.99, 5, approve="when_close").decision == "promote"


def test_what_became_worse_beyond_noise_is_said(after_the_first):
    nights = after_the_first
    worse = nights.run(2, 0.4, 2)
    assert worse.decision == "keep"
    assert len(worse.regressions) == 1
    assert worse.regressions[0].startswith("tonight's version is worse than the champion: f1_macro 0.")
    folder = Path(nights.home.artifacts).glob("**/answers.npy")
    for file in folder:  # the rows of today are harder than those on which the champion was released
        shutil.copy(release_folder(nights.home.dir / file.parts[-4], 0.3, 9) / "answers.npy", file)
    fallen = nights.run(3, 0.3, 5, has_baseline=True)
    assert (
        "the champion is worse than in the night that released it, movies@2026-11-01: f1_macro" in fallen.regressions[0]
    )
    assert "are both worse than tonight's baseline" in fallen.regressions[1]


def test_what_cannot_be_compared_is_left_to_a_person(after_the_first):
    nights = after_the_first
    other = registered(nights.home, "other", 0.9, 3, task="regression")
    approve(nights.home, "shared", other.version)
    found = nights.run(2, 0.99, 2)
    assert found.decision == "ask"
    assert (
        "cannot be compared with the champion, version 2 of sweep 'other' (it is a model for regression)" in found.why
    )
    assert found.new is not None
    assert not nights.ledger.claims()
    assert nights.run(3, 0.99, 3, require="always").decision == "promote"


def test_only_rows_that_no_search_saw_certify_whether_or_not_there_are_finals(after_the_first):
    found = after_the_first.run(2, 0.99, 2, finalists=False)
    assert (found.decision, found.why[:9]) == ("promote", "certified")
    after_the_first.crown()
    lucky = after_the_first.run(3, 0.3, 3, own=1.0)
    assert (lucky.decision, lucky.lead.high < 0, lucky.e_value < 1) == ("keep", True, True)
    unlucky = after_the_first.run(4, 1.0, 4, own=0.3)
    assert unlucky.why.startswith("no claim: the 400 rows that choose do not prefer version 4")
    assert after_the_first.run(5, 0.7, 5, finalists=False, require="always").decision == "promote"


def test_the_step_of_a_night_gives_it_the_rows_that_the_freeze_set_apart(after_the_first, monkeypatch, tmp_path):
    nights = after_the_first
    found, night, config = nights.run(2, 0.99, 2, finalists=False), nights.night, nights.sweep.config
    assert config.finalists is None
    rows = dict.fromkeys(("train", "validation", "certify", "test"), 9)
    frozen = FrozenData(night.version, "a1", str(tmp_path), rows, {}, rows, rows, rows)
    facts = {"freeze": to_json(frozen), "sweep": {"version": found.new_version, "model": config.promote.name}}
    steps = [Step(name, "", "", "", given) for name, given in facts.items()]
    record = NightRecord("movies", night.date.isoformat(), "UTC", "", steps=steps)
    files, now = NightFiles(nights.home.nights("movies")), datetime.datetime.now(datetime.UTC)
    frame = Frame(config, nights.home, files, datetime.UTC, lambda: now, now, print, 0)
    executor = Recording(answering)
    monkeypatch.setattr(night_steps, "night_host", lambda *_: contextlib.nullcontext(executor))
    assert night_steps.real_steps(Silent()).certify(Tonight(frame, record, [], now)).facts == to_json(found)
    (inspected,) = [request for request in executor.others if isinstance(request, Inspect)]
    sources = {split: source.source for split, source in inspected.workload.data.sources().items()}
    names = {"train": "train", "validation": "certify", "test": "test"}
    assert sources == {split: str(files.data / "a1" / f"{name}.jsonl") for split, name in names.items()}


def test_without_a_new_version_there_is_nothing_to_decide(after_the_first):
    nights = after_the_first
    assert nights.again().why == "version 1 is the champion of 'shared' already"
    gone = dataclasses.replace(nights.made, version="9")
    assert nights.run(2, 0, 0, release=gone).why == "version 9 of 'shared' was deleted"
    study = nights.sweep.open()
    study.update_state(challenger=None, refusal="no ONNX variant of trial 0 passed")
    study.close()
    nothing = nights.again()
    assert (nothing.decision, nothing.why) == ("nothing", "no ONNX variant of trial 0 passed")


def test_a_night_that_released_again_does_not_use_its_claim_for_another_version(after_the_first):
    nights = after_the_first
    nights.run(2, 0.99, 2, approve="ask")
    other = nights.run(2, 0.99, 3)
    assert other.decision == "keep"
    assert "has made its claim already: that version 2 is better than 1" in other.why
