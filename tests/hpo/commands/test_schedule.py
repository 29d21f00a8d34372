"""`hpo schedule`, with a throwaway crontab: what is added, listed and removed, and what runs in the foreground."""

from __future__ import annotations

import datetime
import json
import re
import sys
import time

import pytest
from click.testing import CliRunner

from hpo.cli.main import cli
from hpo.commands.schedule import run_schedule
from hpo.errors import ConfigError, UsageError
from hpo.nights.record import NightFiles
from hpo.paths import Home
from tests.hpo.builders import write_sweep
from tests.hpo.nights.records import night

CRONTAB = """#!/bin/sh
case "$1" in
  -l) cat "$HOME/tab" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; } ;;
  -) cat > "$HOME/tab.new" && mv "$HOME/tab.new" "$HOME/tab" ;;
  *) echo "usage" >&2; exit 1 ;;
esac
"""
MINE = b"# my own\nMAILTO=me\n5 5 * * * backup --to 50\\% caf\xe9\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine in UTC whose crontab is a file, and which has no systemd."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "crontab").write_text(CRONTAB)
    (programs / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield tmp_path
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def file(tmp_path):
    return write_sweep(tmp_path, name="seen", promote=False)


def run(home, *words):
    return CliRunner().invoke(cli, ["--home", str(home), "schedule", *map(str, words)])


def test_a_file_is_added_changed_listed_and_removed(machine, file, home):
    tab = machine / "tab"
    tab.write_bytes(MINE)
    added = run(home, "add", file, "--cron", "0 1 * * *")
    assert f"{file} runs by your crontab at '0 1 * * *', next on" in added.output
    assert f"its output goes to {home}/schedule.log" in added.output
    assert tab.read_bytes().startswith(MINE)
    assert f"0 1 * * * HPO_HOME={home} {sys.executable} -P -m hpo nightly {file} >>" in tab.read_text("latin-1")
    assert run(home, "add", file, "--cron", "30 2 * * 1-5", "--tz", "Etc/UTC").exit_code == 0
    (listed,) = json.loads(run(home, "list", "--json").output)
    assert (listed["file"], listed["cron"], listed["tz"]) == (str(file), "30 2 * * 1-5", "Etc/UTC")
    assert "30 2 * * 1-5" in run(home, "list").output
    other = home.with_name("other")
    assert "nothing is scheduled in this home" in str(run(other, "remove", file).exception)
    assert run(home, "remove", file).output == f"{file} is not in your crontab any more\n"
    assert tab.read_bytes() == MINE
    assert "nothing is scheduled; try" in run(home, "list").output
    assert isinstance(run(home, "remove", file).exception, UsageError)


def test_lines_that_set_a_zone_stay_and_do_not_shift_ours(machine, file, home):
    tab, mine = machine / "tab", "CRON_TZ=Asia/Tokyo\n5 5 * * * mine\n"
    tab.write_text(mine)
    assert run(home, "add", file, "--cron", "0 1 * * *").exit_code == 0
    lines = tab.read_text().removeprefix(mine).split("\n")
    assert lines[1] == 'CRON_TZ=""'
    assert lines[3].startswith("0 1 * * * ")
    assert len(json.loads(run(home, "list", "--json").output)) == 1
    assert run(home, "remove", file).exit_code == 0
    assert tab.read_text() == mine


def test_a_cron_without_time_zones_is_said_to_be_one(machine, file, home):
    refused = run(home, "add", file, "--cron", "0 1 * * *", "--tz", "Europe/Berlin")
    assert str(refused.exception) == (
        "the cron of this machine does not know time zones, and Europe/Berlin is not its own; write --cron "
        "'0 0,23 * * *' without --tz, and nightly: {tz: Europe/Berlin} in the file; in each season one of these is "
        "that time there, and a second call in one night finds nothing to do"
    )
    assert "expected the name of a time" in str(
        run(home, "add", file, "--cron", "0 1 * * *", "--tz", "Berlin").exception
    )
    assert not (machine / "tab").exists()
    (machine / "bin/systemctl").write_text("#!/bin/sh\nexit 0\n")
    by_systemd = run(home, "add", file, "--cron", "0 1 * * *", "--tz", "Europe/Berlin")
    assert "runs by your systemd timers" in by_systemd.output
    assert "when you log out; to keep them running, run once: loginctl enable-linger\n" in by_systemd.output
    assert re.search(r"journalctl --user --unit hpo-nightly-\S+-[0-9a-f]{8}\n", by_systemd.output)
    assert run(home, "remove", file).output == f"{file} is not in your systemd timers any more\n"


def test_what_could_never_run_is_refused(machine, file, home, tmp_path, monkeypatch):
    bad = tmp_path / "bad.yaml"
    bad.write_text("taks: 1\n")
    assert isinstance(run(home, "add", bad, "--cron", "0 1 * * *").exception, ConfigError)
    long = write_sweep(tmp_path / "long", name="x" * 90, promote=False)
    assert "at most 89 characters" in str(run(home, "add", long, "--cron", "0 1 * * *").exception)
    assert "at most 89 characters" in str(run(home, "run", long, "--cron", "0 1 * * *").exception)
    assert "has 2 fields" in str(run(home, "add", file, "--cron", "0 1").exception)
    for name in ("crontab", "systemctl"):
        (machine / "bin" / name).unlink()
    monkeypatch.setenv("PATH", str(machine / "bin"))  # the real ones may be in /usr/bin
    refused = run(home, "add", file, "--cron", "0 1 * * *")
    assert "neither crontab nor systemd" in str(refused.exception)


@pytest.mark.parametrize(("date", "first"), [
    ("2026-11-28", ["a night was cut short; it continues now", "hpo nightly ended with 1"]),
    ("2026-11-27", []),  # the next night has begun: a call now would run that one in the afternoon
])  # fmt: skip
def test_in_the_foreground_a_night_that_was_cut_short_continues_first(file, home, date, first):
    NightFiles(Home(home).nights("seen")).write(night(date, state="running"))
    clock, calls, said = [datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)], [], []

    def sleep(seconds):
        clock[0] += datetime.timedelta(seconds=seconds)
        if clock[0].day == 30:
            raise KeyboardInterrupt

    def call(argv):
        calls.append(argv)
        return 1

    with pytest.raises(KeyboardInterrupt):
        run_schedule(Home(home), [file], "0 1 * * *", "Europe/Berlin", said.append, lambda: clock[0], sleep, call)
    assert calls[0][1:] == ["-P", "-m", "hpo", "--home", str(home), "nightly", str(file), "--tz", "Europe/Berlin"]
    assert said == [
        *first,
        "the next night is due on 2026-11-29 at 01:00 (CET)",
        "hpo nightly ended with 1",
        "the next night is due on 2026-11-30 at 01:00 (CET)",
    ]


def test_in_the_foreground_a_damaged_record_is_told_at_once(file, home):
    record = NightFiles(Home(home).nights("seen")).dir / "2026-11-28.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    calls, now = [], datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)

    def call(argv):
        calls.append(argv)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_schedule(Home(home), [file], "0 1 * * *", "Europe/Berlin", print, lambda: now, calls.append, call)
    assert [argv[-3:] for argv in calls] == [[str(file), "--tz", "Europe/Berlin"]]


def test_variables_that_only_this_shell_has_are_named(machine, home, tmp_path, monkeypatch):
    notify = {"webhook": {"address": "env:HOOK", "signing_key": "file:key"}, "heartbeat": "env:BEAT"}
    file = write_sweep(tmp_path / "a", name="notified", promote=False, nightly={"notify": notify})
    said = run(home, "add", file, "--cron", "0 1 * * *").output
    assert "and need HOOK, BEAT: write each as NAME=VALUE into your crontab, above the lines of hpo schedule" in said
    monkeypatch.setenv("HPO_STUDIES", "postgresql://me:secret@db/studies")
    monkeypatch.setenv("PATH", str(machine / "bin"))  # a real crontab may be in /usr/bin
    monkeypatch.setenv("XDG_CONFIG_HOME", str(machine / "config"))
    (machine / "bin/crontab").unlink()
    (machine / "bin/systemctl").write_text("#!/bin/sh\nexit 0\n")
    said = run(home, "add", file, "--cron", "0 1 * * *").output
    assert f"need HPO_STUDIES, HOOK, BEAT: write each as NAME=VALUE into {machine}/config/environment.d/" in said
    assert "secret" not in said
