"""Times of cron, in time zones; the crontab, of which one section is ours; systemd's units."""

from __future__ import annotations

import datetime
import re
import shlex
import subprocess
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import HpoError, UsageError
from hpo.schedules.cron_table import BEGIN, END, Crontab, entries_of, section, split
from hpo.schedules.cron_times import CronTimes, as_on_machine, is_machine_zone
from hpo.schedules.entry import Entry
from hpo.schedules.foreground import LONGEST_WAIT_S, call_program, run_at
from hpo.schedules.user_timers import UserTimers, service, timer, unit_name
from hpo.trials.scheduler import PAUSE_WITHIN_S

BERLIN = ZoneInfo("Europe/Berlin")


def entry(file="/data/my films/50%.yaml", tz=None, cron="0 1 * * *", home="/ho me/mlruns"):
    return Entry(file, cron, tz, home, "/venv/bin/python", f"{home}/schedule.log")


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("0 1 * * *", "2026-11-28T13:00+01:00", "2026-11-29T01:00+01:00"),
        ("30 2 * * *", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00"),  # there is no 02:30 in that night
        ("30 2 * * *", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),  # the second 02:30 is not another night
        ("0 22 * * mon-fri", "2026-11-28T13:00+00:00", "2026-11-30T22:00+01:00"),
    ],
)
def test_when_the_next_night_is_due(cron, after, due):
    found = CronTimes.parse(cron).next_after(datetime.datetime.fromisoformat(after), BERLIN)
    assert found == datetime.datetime.fromisoformat(due)


@pytest.mark.parametrize(
    ("cron", "problem"),
    [
        ("0 1 * *", "has 4 fields; expected five"),
        ("0 0 1 * * *", "has 6 fields"),
        ("0 25 * * *", "bad hour; expected five"),
        ("0 1 L * *", "'L' is not a day of month"),
        ("0 1 * * 1#2", "is not a day of week"),
        ("@daily", "has 1 fields"),
        ("0 1 31 2 *", "bad day-of-month"),
        ("0 1 * * *\n* * * * * evil", "fields"),
    ],
)
def test_fields_that_no_cron_knows_are_refused(cron, problem):
    with pytest.raises(UsageError, match=problem):
        CronTimes.parse(cron)


def test_the_same_for_systemd_and_for_a_machine_of_another_zone(monkeypatch):
    assert CronTimes("0 1 * * *").calendar("Europe/Berlin") == ["*-*-* 01:00:00 Europe/Berlin"]
    assert CronTimes("*/30 1 1 * 1,7").calendar(None) == ["*-*-01 01:00,30:00", "Sun,Mon *-*-* 01:00,30:00"]
    monkeypatch.setenv("TZ", "UTC")
    import time

    time.tzset()
    try:
        assert as_on_machine(CronTimes("0 1 * * *"), "Europe/Berlin", 2026) == "0 0,23 * * *"
        assert as_on_machine(CronTimes("0 1 * * 1"), "Europe/Berlin", 2026) is None
        assert as_on_machine(CronTimes("0 1 * * *"), "Asia/Kolkata", 2026) is None
        assert is_machine_zone("Etc/UTC", 2026)
        assert not is_machine_zone("Europe/London", 2026)
    finally:
        monkeypatch.undo()
        time.tzset()


OTHERS = st.lists(
    st.sampled_from(["# mine", "MAILTO=me", "CRON_TZ = Asia/Tokyo", "0 5 * * * a % b", "", "\tx", "caf\udce9"])
).map(lambda lines: "".join(f"{line}\n" for line in lines))
NAMES = st.text(
    st.characters(min_codepoint=32, exclude_characters="\\\x7f", exclude_categories=["Cs", "Cc"]), min_size=1
)
ENTRIES = st.lists(
    st.builds(entry, NAMES, st.sampled_from([None, "Europe/Berlin"])), max_size=3, unique_by=lambda e: e.key
)


@given(OTHERS, OTHERS, ENTRIES)
def test_other_lines_stay_byte_for_byte_and_ours_are_read_as_written(before, after, entries):
    text = before + section(entries, before) + after
    others, ours = split(text)
    assert others == before + after
    assert sorted(entries_of(ours), key=repr) == sorted(entries, key=repr)


@given(NAMES)
def test_the_shell_gets_the_command_word_by_word(name):
    made = entry(f"/{name}")
    line = section([made]).split("\n")[2].removeprefix(f"{made.cron} ")
    assert line.count("%") == line.count("\\%")
    for as_cron_hands_it_over in (line, line.replace("\\%", "%")):  # crons differ in that
        words = shlex.split(as_cron_hands_it_over)
        assert words == ["HPO_HOME=/ho me/mlruns", *made.argv, ">>/ho me/mlruns/schedule.log", "2>&1"]


def test_a_zone_holds_for_its_own_entry_only():
    lines = section([entry("/b", "Europe/Berlin"), entry("/a"), entry("/c", "Asia/Tokyo")]).split("\n")
    assert [line for line in lines if line.startswith("CRON_TZ")] == ["CRON_TZ=Asia/Tokyo", "CRON_TZ=Europe/Berlin"]
    assert "/a" in lines[2]
    assert "--tz Europe/Berlin" in lines[-3]


@pytest.mark.parametrize("others", ["CRON_TZ=Asia/Tokyo\n5 5 * * * mine\n", "  'CRON_TZ' = \"UTC\"\n"])
def test_a_zone_that_a_person_has_set_is_not_that_of_an_entry_without_one(others):
    first, second = entry("/a"), entry("/b", "Europe/Berlin")
    lines = section([second, first], others).split("\n")
    assert [line for line in lines if line.startswith("CRON_TZ")] == ['CRON_TZ=""', "CRON_TZ=Europe/Berlin"]
    assert lines[1] == 'CRON_TZ=""'
    assert entries_of(split(others + "\n".join(lines))[1]) == [first, second]
    assert "CRON_TZ" not in section([first], "# CRON_TZ=UTC\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{BEGIN}\n", "has no .*END hpo schedule.* after its begin"),
        (f"{END}\n", "without its begin"),
        (f"{BEGIN}\n5 5 * * * mine\n{END}\n", "'5 5 .* mine' is not ours; move it elsewhere"),
        (section([entry()]).replace("\n0 1", "\n#0 1"), "is not ours"),
        (section([entry()]).replace('"cron"', '"corn"'), "was changed; remove it"),
        (section([entry()]).replace('"cron": "0 1 ', '"cron": "0 61 '), "was changed; remove it"),
        (section([entry()]).replace("\n0 1 * * * ", "\n@daily "), "is not ours"),
    ],
)
def test_a_section_that_was_changed_by_hand_is_left_alone(text, problem):
    with pytest.raises(HpoError, match=problem):
        entries_of(split(text)[1])


def test_times_that_a_person_has_changed_in_the_line_are_those_of_the_entry():
    changed = section([entry(tz="Europe/Berlin")]).replace("\n0 1 * * * ", "\n30  3 * * 1-5 ")
    assert entries_of(split(changed)[1]) == [entry(tz="Europe/Berlin", cron="30 3 * * 1-5")]


def test_a_path_that_no_line_can_hold_is_refused():
    with pytest.raises(UsageError, match="control characters or backslashes cannot"):
        entry("/a\n* * * * * evil")


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_crontab_that_cannot_be_read_is_not_replaced(tmp_path):
    refused = Crontab(program(tmp_path / "a", "echo You are not allowed to use this program >&2; exit 1"))
    with pytest.raises(HpoError, match="cannot be read: You are not allowed"):
        refused.write([entry()])
    deaf = Crontab(program(tmp_path / "b", '[ "$1" = -l ] || { cat; exit 0; }'))
    with pytest.raises(HpoError, match="was not replaced"):
        deaf.write([entry()])
    assert not Crontab(program(tmp_path / "c", "echo usage; exit 1")).knows_zones()
    assert Crontab(program(tmp_path / "d", "echo cronie 1.6.1")).knows_zones()


def test_timers_are_made_replaced_and_removed(tmp_path):
    fake = program(tmp_path / "systemctl", f'echo "$@" >> {tmp_path}/calls')
    timers = UserTimers.at(fake, {"XDG_CONFIG_HOME": str(tmp_path)})
    first, others = entry(tz="Europe/Berlin"), [entry(f"/{letter}.yaml") for letter in "bcde"]
    assert timers.is_running()
    timers.write([first, *others])
    assert timers.entries() == sorted([first, *others], key=unit_name)
    name = unit_name(first)
    assert name.startswith("hpo-nightly-50--")
    assert "\nOnCalendar=*-*-* 01:00:00 Europe/Berlin\nPersistent=true\n" in timer(first)
    assert "\nOOMPolicy=continue\n" in service(first)  # else systemd ends the night with a trial that had no memory
    assert int(re.search(r"\nTimeoutStopSec=(\d+)\n", service(first))[1]) > PAUSE_WITHIN_S
    assert '\nEnvironment="HPO_HOME=/ho me/mlruns"\n' in service(first)
    assert '"nightly" "/data/my films/50%%.yaml" "--tz" "Europe/Berlin"\n' in service(first)
    (tmp_path / "calls").unlink()
    timers.write([first])
    assert (tmp_path / "calls").read_text().splitlines() == [
        *(f"--user disable --now {other}.timer" for other in sorted(map(unit_name, others))),
        "--user daemon-reload",
        f"--user enable --now {name}.timer",
        f"--user restart {name}.timer",
    ]
    assert sorted(path.name for path in timers.folder.iterdir()) == [f"{name}.service", f"{name}.timer"]


def test_a_timer_that_systemd_refused_is_enabled_by_the_same_command_again(tmp_path):
    refuses = program(tmp_path / "refuses", 'case "$*" in *enable*) echo "Failed to connect" >&2; exit 1;; esac')
    with pytest.raises(HpoError, match=r"enable --now .* failed: Failed to connect"):
        UserTimers(refuses, tmp_path / "units").write([entry()])
    works = program(tmp_path / "works", f'echo "$@" >> {tmp_path}/calls')
    UserTimers(works, tmp_path / "units").write([entry()])
    assert f"--user enable --now {unit_name(entry())}.timer" in (tmp_path / "calls").read_text()


def test_in_the_foreground_a_night_runs_at_each_time_and_a_clock_that_jumps_runs_it_once():
    clock, called, said = [datetime.datetime(2026, 10, 24, 12, tzinfo=datetime.UTC)], [], []

    class EndError(Exception):
        pass

    def sleep(seconds):
        assert 0 < seconds <= LONGEST_WAIT_S
        clock[0] += datetime.timedelta(seconds=seconds)
        if clock[0] > datetime.datetime(2026, 10, 27, tzinfo=datetime.UTC):
            raise EndError

    def call():
        called.append(f"{clock[0].astimezone(BERLIN):%d %H:%M}")
        clock[0] += datetime.timedelta(hours=30 if len(called) == 2 else 1)

    with pytest.raises(EndError):
        run_at(CronTimes("30 2 * * *"), BERLIN, lambda: clock[0], sleep, call, said.append)
    assert called == ["25 02:30", "26 02:30"]  # the 27th came due while the 26th still ran
    assert said[0] == "the next night is due on 2026-10-25 at 02:30 (CEST)"


def test_a_program_gets_one_wish_to_stop(monkeypatch):
    assert call_program(["sh", "-c", "exit 3"]) == 3
    wishes, wait = [KeyboardInterrupt()], subprocess.Popen.wait

    def interrupted(process, timeout=None):
        if wishes:
            raise wishes.pop()
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call_program(["sleep", "60"])
