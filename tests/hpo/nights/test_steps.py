"""The steps of a night by themselves: what is not done again, who gets the alias, what is kept, what is tried first."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from hpo.certify import certify as certifying
from hpo.certify.certify import Certified
from hpo.commands import night_steps
from hpo.commands import sweep as sweeping
from hpo.errors import SweepError, UsageError
from hpo.nights.alias import promote, rule
from hpo.nights.decide import Decided, asked_now, decide, has_other_sources, unless_looked, unless_unchanged
from hpo.nights.keep import Shelf, keep
from hpo.nights.night_sweep import earlier_champions, is_leftover, night_sweep
from hpo.nights.record import NightRecord, Step
from hpo.nights.steps import Frame, Outcome, Tonight
from hpo.paths import Home
from hpo.release.aliases import WAITS, Aliases, aliases_of
from hpo.study.store import stored_state
from hpo.tracking.mlflow_store import client
from tests.hpo.builders import RATE, Sweep
from tests.hpo.nights.nightly_world import BERLIN, World
from tests.hpo.release.rivals import registered
from trainers.protocol.codec import to_json
from trainers.protocol.trial_spec import SourceRef

FIRST = datetime.date(2026, 5, 1)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, keep={"nights": 2})


def night(world, day, state="running", **facts):
    """A record with steps that left these facts."""
    date = (FIRST + datetime.timedelta(days=day)).isoformat()
    steps = [Step(name, "", "", "", given) for name, given in facts.items()]
    return NightRecord("movies", date, "Europe/Berlin", "movies.yaml", state, began="b", steps=steps)


def tonight(world, record, *earlier, now=datetime.datetime(2026, 5, 9, 1, tzinfo=BERLIN)):
    frame = Frame(world.config, world.home, world.files, BERLIN, lambda: now, now, world.said.append, 0)
    return Tonight(frame, record, earlier, now)


# --- what is not done again ----------------------------------------------------------------------------


def test_rows_are_frozen_again_only_where_a_file_or_what_is_asked_has_changed(world, tmp_path):
    calls = []

    def freeze(given):
        calls.append(given.night)
        return Outcome("frozen", {"sha256": "a1", "version": given.night.version, "added": {"train": 9}})

    step = unless_unchanged(freeze)
    before = night(world, 0, "complete", freeze=step(tonight(world, night(world, 0))).facts)
    (world.files.data / "a1").mkdir(parents=True)
    again = step(tonight(world, night(world, 1), before))
    assert (again.said, len(calls)) == ("the files are as in the night 2026-05-01 of 'movies'", 1)
    assert again.facts["version"] == "movies@2026-05-02"
    assert (again.facts["added"], again.facts["sha256"]) == ({"train": 0}, "a1")
    step(tonight(world, night(world, 1), replace(before, state="failed")))
    assert len(calls) == 2
    (tmp_path / "train.jsonl").write_text("ten more rows\n")
    step(tonight(world, night(world, 1), before))
    assert len(calls) == 3


def test_what_is_asked_names_what_has_changed(world):
    asked = asked_now(world.config)
    other = replace(asked_now(replace(world.config, seed=7, code=("f",))), packages={**asked.packages, "torch": "9"})
    assert other.changed_since(asked) == ["seed in the file", "your own code", "packages (torch)"]
    assert asked_now(replace(world.config, nightly=None)).changed_since(asked) == []


def test_the_same_rows_are_looked_at_once(world):
    step = unless_looked(lambda given: Outcome("looked", {"shift": ["much"]}))
    seen = {"shift": ["little"], "notes": ["n"]}
    before = night(world, 0, "skipped", freeze={"sha256": "a1", "asked": "x"}, look=seen)

    def looked(**frozen):
        return step(tonight(world, night(world, 1, freeze=frozen), before)).facts

    assert looked(sha256="a1", asked="x") == {"shift": [], "notes": ["n"]}  # the same rows have not moved
    assert looked(sha256="b2", asked="x") == {"shift": ["much"]}
    assert looked(sha256="a1", asked="a longer max_length") == {"shift": ["much"]}


def test_a_night_is_compared_with_what_the_sweep_before_was_asked(world):
    then = Decided(True, "", replace(asked_now(world.config), model="another"))
    before = night(world, 0, "complete", freeze={"sha256": "a1"}, decide=to_json(then), sweep={"trials": 4})
    tried = tonight(world, night(world, 1, freeze={"sha256": "a1"}), before)
    assert decide(tried).said == f"changed since {before.night}: the base model"
    swept = {"trials": 4, "asked": to_json(asked_now(world.config))}  # edited after a failure
    before = night(world, 0, "complete", freeze={"sha256": "a1"}, decide=to_json(then), sweep=swept)
    assert decide(replace(tried, earlier=[before])).ends == "skipped"


def test_rows_or_a_file_that_were_corrected_are_noticed(world, tmp_path):
    step = unless_unchanged(lambda given: Outcome("frozen", {"sha256": "a1"}))
    record = night(world, 0, "failed", freeze=step(tonight(world, night(world, 0))).facts)
    assert not has_other_sources(tonight(world, record))
    assert not has_other_sources(tonight(world, night(world, 0, "failed", freeze={"sources": None})))  # nobody knows
    (tmp_path / "train.jsonl").write_text("a corrected row\n")
    assert has_other_sources(tonight(world, record))
    record = night(world, 0, "failed", freeze=step(tonight(world, night(world, 0))).facts)
    world.config = replace(world.config, seed=7)
    assert has_other_sources(tonight(world, record))


# --- the alias -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certified", "approve", "champion", "seat"),
    [
        ({"decision": "promote", "old_version": "1"}, "auto", "1", "champion"),
        ({"decision": "promote", "old_version": "1"}, "auto", "2", "waits"),  # a person moved it meanwhile
        ({"decision": "promote", "old_version": None}, "auto", "2", "waits"),
        ({"decision": "keep", "old_version": "1"}, "auto", None, "waits"),  # a person took it away meanwhile
        ({"decision": "promote", "old_version": "1"}, "auto", None, "waits"),
        ({"decision": "keep"}, "auto", "1", "challenger"),
        ({"decision": "ask"}, "auto", "1", "waits"),
        ({"decision": "ask"}, "auto", None, "waits"),
        ({"decision": "promote", "old_version": None}, "auto", None, "champion"),
        ({}, "auto", None, "champion"),
        ({}, "ask", None, "waits"),
        ({}, "auto", "1", "challenger"),
    ],
)
def test_what_was_certified_decides_who_sits_where(certified, approve, champion, seat):
    assert rule(certified, approve, champion)[0] == seat


def test_the_alias_moves_once_and_nobody_who_is_kept_waits(world, home_with_store):
    world.home = Home(home_with_store)
    store = client(world.home)
    store.create_registered_model("movies")
    for _ in range(3):
        store.create_model_version("movies", source="file:///nowhere")

    def ends(version, decision, old):
        swept, certified = {"model": "movies", "version": version}, {"decision": decision, "old_version": old}
        record = night(world, 0, sweep=swept, certify=certified)
        return [promote(tonight(world, record)).facts for _ in range(2)]  # killed once

    for facts in ends("1", "promote", None):
        assert (facts["seat"], facts["promoted"], facts["previous"]) == ("champion", True, None)
    assert [facts["seat"] for facts in ends("2", "keep", "1")] == ["challenger", "challenger"]
    assert WAITS not in store.get_model_version("movies", "2").tags
    assert [facts["previous"] for facts in ends("3", "promote", "1")] == ["1", "1"]
    assert aliases_of(world.home, "movies") == Aliases("3", "1", "2")
    assert promote(tonight(world, night(world, 0, sweep={"model": "movies", "version": "2"},
                                        certify={"decision": "ask"}))).said == (
        "version 2 of 'movies' waits for your approval (hpo approve movies/2): the rows do not tell"
    )  # fmt: skip
    assert promote(tonight(world, night(world, 0, sweep={"model": "movies", "version": "9"}))).said == (
        "version 9 of 'movies' was deleted"
    )
    assert promote(tonight(world, night(world, 0, sweep={"version": None}))).facts == {"promoted": False}


def test_the_sweep_of_a_night_learns_what_became_of_its_release(world, tmp_path, home_with_store, database):
    world.home = Home(home_with_store)
    sweep = Sweep(tmp_path, database, name="movies-2026-05-01", search_space={}, promote={"name": "movies"})
    study = sweep.open()
    released = registered(world.home, sweep.config.name, 0.9, name="movies")
    study.update_state(challenger=replace(released, decision="night"))
    study.close()

    def noted(**certified):
        record = night(world, 0, sweep={"model": "movies", "version": "1"}, certify=certified)
        promote(tonight(world, record))
        return stored_state(world.home.studies_db, sweep.config.name)

    after = noted(decision="ask")
    assert (after.release, after.challenger.decision) == (None, "waits")
    for _ in range(2):  # once more after a kill
        after = noted(decision="promote", old_version=None)
        assert (after.release.version, after.release.decision, after.challenger) == ("1", "champion", None)
        assert after.release.uri == "models:/movies@champion"


# --- what is kept --------------------------------------------------------------------------------------


def test_older_nights_go_with_their_rows_but_what_is_needed_and_every_record_stay(world):
    nights = [night(world, day, "complete", freeze={"sha256": f"a{day}"}, sweep={}) for day in range(5)]
    for record in nights:
        world.files.write(record)
        (world.files.data / record.step("freeze").facts["sha256"]).mkdir(parents=True)
    (world.files.data / "f00").mkdir()
    sweeps = [*(record.night.sweep for record in nights), "movies-2026-01-01", "other-2026-05-01", "movies"]

    def delete(sweep):
        if sweep == "movies-2026-05-02":
            raise UsageError("version 1 has an alias")
        sweeps.remove(sweep)

    shelf = Shelf(lambda: list(sweeps), delete, lambda sweep: 2_000_000)
    found = keep(tonight(world, nights[-1], *nights[:-1]), shelf)
    assert found.facts["deleted"] == ["movies-2026-05-01", "movies-2026-05-03"]
    assert found.facts["stays"] == {"movies-2026-05-02": "version 1 has an alias"}
    assert found.facts["rows"] == ["a0", "a2", "f00"]
    assert found.said.endswith("freed 2.0 MB of losing trials")
    assert sorted(path.name for path in world.files.data.iterdir()) == ["a1", "a3", "a4"]
    assert len(world.files.all()) == 5
    assert "movies-2026-01-01" in sweeps  # it has no record: a person's own
    assert keep(tonight(world, nights[-1], *nights[:-1]), shelf).facts["deleted"] == []
    ahead = keep(tonight(world, nights[3], *nights[:3]), shelf).facts  # a clock was a day ahead once
    assert (ahead["deleted"], ahead["rows"]) == ([], [])


def test_what_cannot_be_freed_is_said_and_fails_no_night(world):
    nights = [night(world, day, "complete", freeze={"sha256": f"a{day}"}, sweep={}) for day in range(4)]
    for record in nights:
        world.files.write(record)

    world.files.record(nights[2].night).write_text("{")

    def fails(sweep):
        raise SweepError("hpo gc is at work") if sweep.endswith("1") else ZeroDivisionError("locked\n[SQL: ...]")

    shelf = Shelf(lambda: [record.night.sweep for record in nights], fails, fails, (SweepError, ZeroDivisionError))
    found = keep(tonight(world, nights[-1], *nights[:-1]), shelf)
    damaged = f"{world.files.record(nights[2].night)} cannot be read: "
    for line, start in zip(found.facts["failed"], (
        "movies-2026-05-01 could not be deleted: hpo gc is at work",
        "movies-2026-05-02 could not be deleted: locked",
        f"rows could not be freed: {damaged}",
        "losing trials could not be freed: locked",
    ), strict=True):  # fmt: skip
        assert line.startswith(start)
    assert found.said.endswith("losing trials could not be freed: locked")


# --- the sweep -----------------------------------------------------------------------------------------


def swept_by(given, config):
    return night_sweep(given, config, earlier_champions(given, config))


def test_the_night_s_sweep_is_the_file_s_with_the_champions_of_earlier_nights_first(world, tmp_path, database):
    searched = {"search_space": RATE, "pruner": {"type": "none"}, "training": {"max_examples": 100}}
    file = Sweep(tmp_path, database, name="movies", budget={"until": "06:00"}, **searched)
    database = file.home.studies_db
    for day, rate in enumerate((1e-3, 1e-4, 1e-3)):
        strategy = {"num_trials": 2, "type": "random", "enqueue": [{"learning_rate": rate}]}
        Sweep(tmp_path, database, name=f"movies-2026-05-0{day + 1}", search_strategy=strategy, **searched).search()
    file.edit(search_strategy={"num_trials": 8, "enqueue": [{"learning_rate": 5e-2}]})
    world.config, world.home = replace(file.config, nightly=world.config.nightly), file.home
    nights = [night(world, day, "complete", sweep={}) for day in range(4)]  # the last one's sweep is gone
    found = swept_by(tonight(world, night(world, 7), *nights), world.config)
    assert (found.promote.name, found.is_certified_later) == ("movies", True)
    rates = [point["learning_rate"] for point in found.strategy.enqueue]
    assert rates[:2] == [5e-2, 1e-3]
    assert len(rates) == len(set(rates)) == 3
    assert (found.budget.until, found.ends_at) == (
        "06:00",
        datetime.datetime(2026, 5, 9, 6, tzinfo=BERLIN).timestamp(),
    )
    few = replace(world.config, strategy=replace(world.config.strategy, num_trials=2))
    assert len(swept_by(tonight(world, night(world, 7), *nights), few).strategy.enqueue) == 2
    world.config = replace(world.config, nightly=replace(world.config.nightly, warm_start=0))
    assert len(swept_by(tonight(world, night(world, 7), *nights), world.config).strategy.enqueue) == 1


RANKS = {"lora_r": {"type": "choice", "values": [8, 16, 32]}}


@pytest.mark.parametrize(
    ("then", "now", "again"),
    [
        ({"training": {"max_examples": 100, "lora_r": 32}}, {"search_space": {**RATE, **RANKS}}, {"lora_r": 32}),
        ({"search_space": {**RATE, "lora_r": 32}}, {"training": {"max_examples": 100, "lora_r": 32}}, {}),
        ({"search_space": {**RATE, "lora_r": 32}}, {}, "lora_r was 32, and tonight's file fixes 8"),
        ({"search_space": {**RATE, "lora_r": 64}}, {"search_space": {**RATE, **RANKS}},
         "lora_r was 64, outside of tonight's search space"),
        ({"training": {"max_examples": 100, "lora_r": 64}}, {"search_space": {**RATE, **RANKS}},
         "lora_r was 64, outside of tonight's search space"),
        ({"training": {"max_examples": 100, "lora_r": 64}}, {}, {}),  # what both files fix follows tonight's
        ({"method": "dora"}, {"search_space": {**RATE, "method": {"type": "choice", "values": ["lora", "dora"]}}},
         {"method": "dora"}),
    ],
)  # fmt: skip
def test_a_champion_is_tried_as_its_night_trained_it_or_left_out_with_the_reason(
    world, tmp_path, database, then, now, again
):
    file = Sweep(tmp_path, database, name="movies", pruner={"type": "none"}, training={"max_examples": 100})
    one = {"search_strategy": {"num_trials": 1, "type": "random"}, "pruner": {"type": "none"}}
    Sweep(tmp_path, file.home.studies_db, name="movies-2026-05-01", **{**one, **then}).search()
    file.edit(search_strategy={"num_trials": 8}, **now)
    world.config, world.home = replace(file.config, nightly=world.config.nightly), file.home
    found = earlier_champions(tonight(world, night(world, 7), night(world, 0, "complete", sweep={})), world.config)
    if isinstance(again, str):
        assert (found.points, found.not_tried) == (
            [], [f"the champion of movies-2026-05-01 is not tried again: {again}"],
        )  # fmt: skip
    else:
        rate = {"learning_rate": 5e-4}  # the baseline's
        assert (found.points, found.not_tried) == ([rate | again], [])


NONE = {"rows": {}, "labels": {}, "added": {}, "gone": {}, "relabelled": {}}
FROZEN = {"version": "movies@2026-05-08", "sha256": "a1", "folder": "", **NONE}


def test_nights_share_an_experiment_and_end_with_the_window_in_which_they_began(world, monkeypatch):
    class Swept(Exception):
        pass

    def swept(config, *args, **kwargs):
        raise Swept(config)

    monkeypatch.setattr(sweeping, "run_sweep_of", swept)
    given = tonight(world, night(world, 7, freeze=FROZEN))
    until = datetime.datetime(2026, 5, 9, 6, tzinfo=BERLIN)
    slow = replace(given.frame, now=lambda: until + datetime.timedelta(minutes=5))  # rows were read meanwhile
    with pytest.raises(Swept) as found:
        night_steps.sweep(replace(given, frame=slow), world.said, "worker")
    (config,) = found.value.args
    assert (config.name, config.experiment, config.ends_at) == ("movies-2026-05-08", "movies", until.timestamp())
    assert config.data.train.source.endswith("a1/train.jsonl")


def test_a_release_is_certified_under_its_own_name_whatever_the_file_says_since(world, monkeypatch):
    asked = []

    def certified(executor, config, home, night, ledger, rows):
        asked.append((config.promote.name, ledger.path.stem))
        return Certified("keep", "")

    monkeypatch.setattr(certifying, "certify", certified)
    world.files.dir.mkdir(parents=True)
    record = night(world, 7, freeze=FROZEN, sweep={"version": "3", "model": "earlier"})
    night_steps.certify(tonight(world, record), "trainers.host.fake")
    assert asked == [("earlier", "earlier")]


def test_a_sweep_without_a_result_is_in_the_way_where_it_ran_on_other_rows(world, tmp_path, database):
    def on(rows, **changes):
        config = replace(sweep.config, **changes)
        return replace(config, data=config.data.with_sources({"train": SourceRef(f"/home/data/{rows}/train.jsonl")}))

    sweep = Sweep(tmp_path, database, name="movies-2026-05-08")
    assert not is_leftover(sweep.home, sweep.config)
    first = sweep.config = on("a1")
    sweep.open().close()
    assert not is_leftover(sweep.home, first)
    assert is_leftover(sweep.home, on("b2"))
    assert is_leftover(sweep.home, on("a1", seed=7))
    sweep.search()
    assert not is_leftover(sweep.home, on("b2"))
