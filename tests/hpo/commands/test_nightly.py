"""`hpo nightly`: real sweeps of the fake trainer, killed and continued; several files, a lock, exit codes."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpo.cli.main import cli
from hpo.commands import nightly
from hpo.commands import sweep as sweeping
from hpo.commands.night_steps import real_steps
from hpo.commands.nightly import exit_code_of, run_nightly
from hpo.commands.show import read_sweep
from hpo.errors import SweepError, UsageError
from hpo.nights.lock import night_lock
from hpo.nights.record import NightFiles
from hpo.nights.steps import Outcome
from hpo.paths import Home
from hpo.progress_view import Silent
from tests.conftest import reviews, write_jsonl
from tests.hpo.builders import RATE, Killed, Said, write_sweep

ROOT = Path(__file__).parents[3]
SWEEP = {
    "search_space": RATE, "promote": False, "pruner": {"type": "none"},
    "nightly": {"tz": "Europe/Berlin", "keep": {"nights": 1}},
    "search_strategy": {"type": "random", "num_trials": 4}, "training": {"max_examples": 100, "evaluations": 1},
}  # fmt: skip
UNCHANGED = """
import datetime, sys
from pathlib import Path
from hpo.commands.nightly import run_nightly
from hpo.paths import Home
now = datetime.datetime(2026, 11, 30, 1, tzinfo=datetime.UTC)
(found,) = run_nightly([Path(sys.argv[1])], Home(Path(sys.argv[2])), now=lambda: now)
print(found.nights[0].record.state, *sorted({module.split(".")[0] for module in sys.modules}))
"""


def at(day, hour=1):
    moment = datetime.datetime(2026, 11, day, hour, tzinfo=datetime.UTC)
    return lambda: moment


def nights(home, *files, now, steps=None, **options):
    """What a call did, with the fake trainer, and what it said."""
    said = Said()
    steps = steps or real_steps(said, "trainers.host.fake")
    return run_nightly(files, home, view=said, now=now, steps=steps, **options), said.lines


def test_nights_on_growing_data_one_of_them_killed(tmp_path, home_with_store):
    home, file = Home(home_with_store), write_sweep(tmp_path, name="movies", **SWEEP)
    write_jsonl(tmp_path / "train.jsonl", reviews(300))

    def dies(tonight):
        raise Killed

    with pytest.raises(Killed):
        nights(home, file, now=at(29), steps=replace(real_steps(Silent(), "trainers.host.fake"), certify=dies))
    first = read_sweep(home, "movies-2026-11-28")
    assert (first.state, len(first.trials)) == ("complete", 4)
    found, said = nights(home, file, now=at(29, 3))
    assert exit_code_of(found) == 0
    (ran,) = found[0].nights
    assert [step.name for step in ran.record.steps][-3:] == ["keep", "report", "signal"]
    assert not [line for line in said if line.startswith("trial ")]  # the search was over
    assert "the night 2026-11-28 of 'movies': continues" in said

    found, said = nights(home, file, now=at(29, 5))
    assert (found[0].nights, said) == ([], ["movies: tonight's run has ended already: nothing to do"])

    command = [sys.executable, "-c", UNCHANGED, str(file), str(home.dir)]
    state, *loaded = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    assert state == "skipped"
    assert not set(loaded) & {"torch", "mlflow", "optuna", "transformers"}

    write_jsonl(tmp_path / "train.jsonl", reviews(310))
    found, said = nights(home, file, now=at(30, 20))  # the evening of the 30th: its own night
    (ran,) = found[0].nights
    assert (ran.record.date, ran.record.state) == ("2026-11-30", "complete")
    second = read_sweep(home, "movies-2026-11-30")
    assert second.trials[1].params == first.champion.params  # tried again, not taken over
    assert not any("/" in (trial.reused_from or "") for trial in second.trials)

    assert ran.record.step("keep").facts["deleted"] == ["movies-2026-11-28"]
    assert [record.date[-2:] for record in NightFiles(home.nights("movies")).all()] == ["28", "29", "30"]

    def run(*arguments):
        return CliRunner().invoke(cli, ["--home", str(home.dir), *arguments])

    assert re.findall(r"movies-\S+", run("list").output) == ["movies-2026-11-30"]
    assert "movies-2026-11-30 (complete)" in run("show", "movies-2026-11-30").output
    assert json.loads(run("report", "movies-2026-11-30", "--format", "json", "--output", "-").output)


def test_a_file_that_fails_does_not_stop_the_others_and_the_gravest_exit_code_counts(tmp_path, home):
    home = Home(home)
    files = [write_sweep(tmp_path / name, name=name, **SWEEP) for name in ("fails", "regresses", "works")]
    bad = tmp_path / "bad.yaml"
    bad.write_text("task: text-clasification\n")
    long = write_sweep(tmp_path / "long", name="x" * 90, **SWEEP)
    steps = real_steps(Silent(), "trainers.host.fake")

    def done(tonight):
        return Outcome("done")

    def swept(tonight):
        if tonight.config.name == "fails":
            raise ZeroDivisionError("a bug")
        return Outcome("done", {"regression": "no variant passed" if tonight.config.name == "regresses" else ""})

    steps = replace(
        steps,
        freeze=done,
        look=done,
        sweep=swept,
        certify=done,
        report=done,
        keep=lambda tonight: Outcome("nothing to free"),
    )
    found, said = nights(home, *files, bad, long, now=at(29), steps=steps)
    assert [one.exit_code for one in found] == [1, 3, 0, 2, 2]
    assert [[ran.record.state for ran in one.nights] for one in found] == [
        ["failed"],
        ["complete"],
        ["complete"],
        ["failed"],
        [],
    ]
    assert "at most 89 characters" in str(found[4].error)
    assert exit_code_of(found) == 1
    assert [exit_code_of(found[1:]), exit_code_of(found[1:3]), exit_code_of(found[2:3])] == [2, 3, 0]
    assert json.dumps([one.to_json() for one in found])
    assert any(line.startswith("error: ") for line in said)


def test_a_second_file_of_one_name_is_refused_until_the_first_one_gives_it_away(tmp_path, home):
    first, second = (write_sweep(tmp_path / name, name="movies", **SWEEP) for name in ("first", "second"))
    steps = replace(real_steps(Silent(), "trainers.host.fake"), freeze=lambda tonight: Outcome("stops", {}, "skipped"))

    def called(*files, day=29):
        return [one.exit_code for one in nights(Home(home), *files, now=at(day), steps=steps)[0]]

    found, _ = nights(Home(home), first, second, now=at(28), steps=steps)
    assert [one.exit_code for one in found] == [0, 2]
    assert f"the nights of 'movies' are run from {first}; give one of the two files another name" in str(found[1].error)
    assert "name: " in str(found[1].error)
    assert called(second, first) == [2, 0]
    link = tmp_path / "first" / "link.yaml"
    link.symlink_to(first)
    assert called(link) == [0]  # the same file by another path
    write_sweep(tmp_path / "first", name="films", **SWEEP)
    assert called(second, first) == [0, 0]
    (tmp_path / "second").rename(tmp_path / "moved")
    assert called(tmp_path / "moved" / "sweep.yaml", day=30) == [0]


def test_a_call_that_waited_past_noon_is_for_the_night_in_which_it_came(tmp_path, home, monkeypatch):
    """Else it would run the next night at noon, on rows that are not there yet."""
    file = write_sweep(tmp_path, **{**SWEEP, "name": "movies", "nightly": {"tz": "Europe/Berlin", "overlap": "queue"}})
    steps = replace(real_steps(Silent(), "trainers.host.fake"), freeze=lambda tonight: Outcome("same", {}, "skipped"))
    moments = []

    def lock(path, now, *, waits):
        assert waits
        moments.append(at(29, 12))  # 13 o'clock there
        return night_lock(path, now, waits=waits)

    monkeypatch.setattr(nightly, "night_lock", lock)
    for came, ran in ((at(29, 10), ["2026-11-28"]), (at(29, 10), []), (at(29, 11), ["2026-11-29"])):
        moments.append(came)
        (found,), _ = nights(Home(home), file, now=lambda: moments[-1](), steps=steps)
        assert [night.record.date for night in found.nights] == ran


def test_a_night_that_failed_for_its_rows_begins_again_with_those_that_a_person_has_corrected(
    tmp_path, home_with_store, monkeypatch
):
    home, file = Home(home_with_store), write_sweep(tmp_path, name="movies", **SWEEP)
    write_jsonl(tmp_path / "train.jsonl", reviews(300))
    with monkeypatch.context() as patched:
        patched.setattr(sweeping, "search", lambda sweep: (_ for _ in ()).throw(SweepError("no trial succeeded")))
        found, _ = nights(home, file, now=at(29))
        assert found[0].nights[0].record.reason == "sweep: no trial succeeded"
        before = found[0].nights[0].record.facts("freeze")["sha256"]
    write_jsonl(tmp_path / "train.jsonl", reviews(310))
    file = write_sweep(tmp_path, **{**SWEEP, "name": "movies", "seed": 7})
    write_jsonl(tmp_path / "train.jsonl", reviews(310))
    found, _ = nights(home, file, now=at(29, 3))
    (ran,) = found[0].nights
    assert (ran.record.state, ran.failure) == ("complete", None)
    assert ran.record.facts("freeze")["sha256"] != before
    assert len(read_sweep(home, "movies-2026-11-28").trials) == 4


def test_a_file_that_is_wrong_fails_its_night_so_that_whoever_waits_for_it_hears_of_it(tmp_path, home):
    heard = {"notify": {"on": ["failure"], "command": ["tee", "-a", "heard.jsonl"]}, "tz": "Europe/Berlin"}
    file, log = write_sweep(tmp_path, name="movies", **{**SWEEP, "nightly": heard}), tmp_path / "heard.jsonl"
    right, files = file.read_text(), NightFiles(Home(home).nights("movies"))
    steps = replace(real_steps(Silent(), "trainers.host.fake"), freeze=lambda tonight: Outcome("same", {}, "skipped"))

    def called(day, hour=1):
        (found,), said = nights(Home(home), file, now=at(day, hour), steps=steps)
        return found.exit_code, [(ran.record.date, ran.record.state) for ran in found.nights], said

    def subjects():
        return [json.loads(line)["text"].partition("\n")[0] for line in log.read_text().splitlines()]

    (tmp_path / "train.jsonl").rename(tmp_path / "gone.jsonl")  # the export did not come
    code, ran, said = called(28)
    assert (code, ran) == (2, [("2026-11-27", "failed")])
    assert any("no file 'train.jsonl'" in line for line in said)
    assert "no file 'train.jsonl'" in files.all()[0].reason
    assert subjects() == ["movies 2026-11-27: FAILED"]
    code, ran, said = called(28, 2)  # a second call with the same fault
    assert (code, ran, len(subjects())) == (2, [], 1)
    assert said[0].startswith("error: 1 problem")
    (tmp_path / "gone.jsonl").rename(tmp_path / "train.jsonl")
    assert called(28, 3)[:2] == (0, [("2026-11-27", "skipped")])

    file.write_text(right.replace("num_trials", "num_trialz"))
    assert called(28, 4)[:2] == (2, [])  # what has ended stays so
    assert called(29)[:2] == (2, [("2026-11-28", "failed")])
    file.write_text(right.replace("Europe/Berlin", "Europe/Berlinn"))  # nobody can know which night it is
    assert called(30)[:2] == (2, [])
    assert subjects() == ["movies 2026-11-27: FAILED", "movies 2026-11-28: FAILED"]
    with night_lock(files.lock, at(30), waits=False):
        file.write_text(right.replace("num_trials", "num_trialz"))
        assert called(30)[:2] == (2, [])
    file.write_text(right)
    assert called(30)[:2] == (0, [("2026-11-29", "skipped")])


def test_a_damaged_record_is_told_once_a_night_by_the_notices_of_the_file(tmp_path, home):
    heard = {"notify": {"on": ["failure"], "command": ["tee", "-a", "heard.jsonl"]}, "tz": "Europe/Berlin"}
    file, log = write_sweep(tmp_path, name="movies", **{**SWEEP, "nightly": heard}), tmp_path / "heard.jsonl"
    steps = replace(real_steps(Silent(), "trainers.host.fake"), freeze=lambda tonight: Outcome("same", {}, "skipped"))

    def called(day, hour=1):
        ((found,), _) = nights(Home(home), file, now=at(day, hour), steps=steps)
        return found.exit_code, [(ran.record.date, ran.record.state) for ran in found.nights]

    assert called(28) == (0, [("2026-11-27", "skipped")])
    record = NightFiles(Home(home).nights("movies")).dir / "2026-11-27.json"
    record.write_text("{")
    assert [called(28, hour) for hour in (2, 3)] == [(1, [("2026-11-27", "failed")])] * 2
    assert called(29) == (1, [("2026-11-28", "failed")])
    assert called(29, 2) == (1, [])
    texts = [json.loads(line)["text"] for line in log.read_text().splitlines()]
    assert [text.partition("\n")[0] for text in texts] == ["movies 2026-11-27: FAILED", "movies 2026-11-28: FAILED"]
    assert all(f"{record} cannot be read: " in text and "move the file away" in text for text in texts)
    record.unlink()
    assert called(29, 3) == (0, [("2026-11-28", "skipped")])


def test_whoever_comes_second_learns_who_is_at_it_and_exits_with_0(tmp_path, home):
    file = write_sweep(tmp_path, name="movies", **SWEEP)
    with night_lock(NightFiles(Home(home).nights("movies")).lock, at(29), waits=False):
        done = CliRunner().invoke(cli, ["--home", str(home), "nightly", str(file)])
    assert done.exit_code == 0
    assert "movies: its nights are run by process " in done.output


def test_a_wrong_zone_is_refused_before_anything_runs(tmp_path, home):
    file = write_sweep(tmp_path, name="movies", **SWEEP)
    with pytest.raises(UsageError, match="--tz 'Berlin'"):
        nights(Home(home), file, now=at(29), tz="Berlin")
    assert not home.exists()
