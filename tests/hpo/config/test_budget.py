"""What a sweep may spend: how a budget is read, what is counted against it, and when it is used up."""

import datetime
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.config.budget import Budget, Meter, Spent, next_time, parse_budget
from hpo.config.yaml_source import load

BUSY = settings(deadline=None)  # no test of ours promises to be quick on a machine that has other work

HOUR = 3600.0
CENTRAL_EUROPE = "CET-1CEST,M3.5.0,M10.5.0/3"  # clocks go forward on 2026-03-29 at 2:00, back on 2026-10-25 at 3:00
ZONES = ["UTC", CENTRAL_EUROPE, "EST5EDT,M3.2.0,M11.1.0", "<+0545>-5:45", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"]


@pytest.fixture
def zone(monkeypatch):
    """Sets the local time zone."""

    def zone(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield zone
    monkeypatch.undo()
    time.tzset()


class Clock:
    """A clock that a test moves."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def parse(tmp_path):
    """(budget, problems as text) of a YAML text."""

    def parse(text):
        path = tmp_path / "a.yaml"
        path.write_text(text)
        root = load(path)
        budget = parse_budget(root)
        return budget, [str(p).replace(f"{tmp_path}/", "") for p in root.problems]

    return parse


# --- reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("name: x", Budget()),
        ("budget:", Budget()),
        ("budget: {}", Budget()),
        ("budget: {trials: 12}", Budget(trials=12)),
        ("budget: {trials: 12.0}", Budget(trials=12)),
        ("budget: {hours: 1.5}", Budget(hours=1.5)),
        ("budget: {hours: 1e-2}", Budget(hours=0.01)),
        ('budget: {until: "06:00"}', Budget(until="06:00")),
        ("budget: {until: 06:30}", Budget(until="06:30")),
        ("budget: {until: 6:30}", Budget(until="06:30")),
        ("budget: {until: 22:05}", Budget(until="22:05")),
        ("budget: {until: 1:00}", Budget(until="01:00")),
        ("budget: {until: 23:59}", Budget(until="23:59")),
        ("budget: {until: 00:00}", Budget(until="00:00")),
        ("budget: {trial_minutes: 10}", Budget(trial_minutes=10.0)),
        ("budget: {gpu_hours: 3}", Budget(gpu_hours=3.0)),
        ("budget: {cost: {per_hour: 2.5}}", Budget(cost_per_hour=2.5)),
        ("budget: {cost: {per_hour: 2.5, max: 40}}", Budget(cost_per_hour=2.5, cost_max=40.0)),
        ("budget: {trials: null, hours: null, until: null, gpu_hours: ~, cost: {per_hour: null}}", Budget()),
        (
            "budget: {trials: 5, hours: 1, until: 06:00, trial_minutes: 2, gpu_hours: 3, cost: {per_hour: 4, max: 6}}",
            Budget(5, 1.0, "06:00", 2.0, 3.0, 4.0, 6.0),
        ),
    ],
)
def test_a_budget_is_read(parse, text, budget):
    assert parse(text) == (budget, [])


TIME = 'expected a time of day, e.g. "06:00"'


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("trials: 0", "trials: got 0; expected a whole number from 1"),
        ("trials: 2.5", "trials: got 2.5; expected a whole number from 1"),
        ("trials: many", "trials: got 'many'; expected a whole number from 1"),
        ("trials: .inf", "trials: got inf; expected a whole number from 1"),
        ("hours: 0", "hours: got 0; expected a number above 0"),
        ("hours: -1", "hours: got -1; expected a number above 0"),
        ("hours: .nan", "hours: got nan; expected a number above 0"),
        ("hours: 2h", "hours: got '2h'; expected a number above 0"),
        ("hours: true", "hours: got True; expected a number above 0"),
        ("trial_minutes: 0", "trial_minutes: got 0; expected a number above 0"),
        ("gpu_hours: [1]", "gpu_hours: got [1]; expected a number above 0"),
        ("cost: 40", "cost: got 40; expected a mapping"),
        ("cost: {max: 40}", "cost.max: is given without per_hour; expected cost: {per_hour: 2.5, max: 40}"),
        ("cost: {per_hour: 0, max: 40}", "cost.per_hour: got 0; expected a number above 0"),
        ("cost: {per_hour: 1, max: free}", "cost.max: got 'free'; expected a number above 0"),
        ("cost: {per_hr: 1}", "cost.per_hr: unknown key; did you mean 'per_hour'?"),
        ("hour: 1", "hour: unknown key; did you mean 'hours'?"),
        ("until: noon", f"until: got 'noon'; {TIME}"),
        ("until: 24:00", f"until: got '24:00'; {TIME}"),
        ("until: 6", f"until: got 6; {TIME}"),
        ("until: 59", f"until: got 59; {TIME}"),
        ("until: true", f"until: got True; {TIME}"),
        ('until: "0600"', f"until: got '0600'; {TIME}"),
        ('until: "06"', f"until: got '06'; {TIME}"),
        ("until: 600", f"until: got 600; {TIME}"),
        ("hours:", "hours: is empty; expected a number above 0"),
        ('until: "06:00:30"', f"until: got '06:00:30'; {TIME}"),
        ('until: "06:00+02:00"', f"until: got '06:00+02:00'; {TIME}"),
        ('until: "T06:00"', f"until: got 'T06:00'; {TIME}"),
        ('until: "25:00"', f"until: got '25:00'; {TIME}"),
        ('until: "06:60"', f"until: got '06:60'; {TIME}"),
        ("until: [6, 0]", f"until: got [6, 0]; {TIME}"),
    ],
)
def test_each_mistake_is_one_problem(parse, keys, problem):
    assert parse(f"name: x\nbudget: {{{keys}}}\n")[1] == [f"a.yaml:2: budget.{problem}"]


def test_a_budget_that_is_no_mapping_is_one_problem(parse):
    assert parse("budget: 2 hours")[1] == ["a.yaml:1: budget: got '2 hours'; expected a mapping"]


def test_every_problem_at_once_with_its_line(parse):
    _, problems = parse("budget:\n  hours: 0\n  until: soon\n  cost:\n    max: -1\n  minutes: 3\n")
    assert [problem.split(";")[0] for problem in problems] == [
        "a.yaml:5: budget.cost.max: got -1",
        "a.yaml:5: budget.cost.max: is given without per_hour",
        "a.yaml:2: budget.hours: got 0",
        "a.yaml:3: budget.until: got 'soon'",
        "a.yaml:6: budget.minutes: unknown key",
    ]


@BUSY
@given(st.integers(0, 23), st.integers(0, 59), st.booleans())
def test_every_time_of_day_is_read_quoted_or_not(tmp_path_factory, hour, minute, is_quoted):
    path = tmp_path_factory.getbasetemp() / "until.yaml"
    text = f"{hour:02d}:{minute:02d}"
    path.write_text(f'budget: {{until: "{text}"}}' if is_quoted else f"budget: {{until: {text}}}")
    root = load(path)
    assert (parse_budget(root).until, root.problems) == (text, [])


# --- the next time of day ------------------------------------------------------------------------------


def local(*when, fold=0):
    return datetime.datetime(*when, fold=fold).timestamp()


def shown(seconds):
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize("name", ZONES)
def test_six_in_the_morning_is_today_before_it_and_tomorrow_after_it(zone, name):
    zone(name)
    assert shown(next_time("06:00", local(2026, 7, 10, 5, 0))) == "2026-07-10 06:00"
    assert shown(next_time("06:00", local(2026, 7, 10, 7, 0))) == "2026-07-11 06:00"
    assert shown(next_time("06:00", local(2026, 7, 10, 23, 59))) == "2026-07-11 06:00"
    assert shown(next_time("06:00", local(2026, 12, 31, 6, 0, 1))) == "2027-01-01 06:00"
    assert shown(next_time("00:00", local(2026, 2, 28, 12))) == "2026-03-01 00:00"


def test_the_very_moment_is_over(zone):
    zone(CENTRAL_EUROPE)
    six = local(2026, 7, 10, 6, 0)
    assert next_time("06:00", six) == six + 24 * HOUR
    assert next_time("06:00", six - 0.5) == six


@pytest.mark.parametrize(
    ("day", "hours"),
    [((2026, 3, 29), 4.0), ((2026, 10, 25), 6.0), ((2026, 7, 10), 5.0)],
    ids=["forward", "back", "as always"],
)
def test_from_one_to_six_in_the_night_in_which_clocks_change(zone, day, hours):
    """Also when the session begins before the change, on that very day."""
    zone(CENTRAL_EUROPE)
    assert next_time("06:00", local(*day, 1, 0)) - local(*day, 1, 0) == hours * HOUR


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 28), 10.0), ((2026, 10, 24), 12.0), ((2026, 7, 10), 11.0)])
def test_from_seven_in_the_evening_before_clocks_change(zone, day, hours):
    zone(CENTRAL_EUROPE)
    assert next_time("06:00", local(*day, 19, 0)) - local(*day, 19, 0) == hours * HOUR


def test_a_time_that_comes_twice_in_one_night(zone):
    zone(CENTRAL_EUROPE)
    day = (2026, 10, 25)
    first, second = local(*day, 2, 30), local(*day, 2, 30, fold=1)
    assert second - first == HOUR
    assert next_time("02:30", local(*day, 1, 0)) == first
    assert next_time("02:30", first) == second
    assert next_time("02:30", local(*day, 2, 15, fold=1)) == second
    assert shown(next_time("02:30", second)) == "2026-10-26 02:30"


def test_a_time_that_a_night_leaves_out_is_as_long_after_the_change(zone):
    zone(CENTRAL_EUROPE)
    begin = local(2026, 3, 29, 1, 40)
    assert shown(next_time("02:30", begin)) == "2026-03-29 03:30"
    assert shown(next_time("02:30", local(2026, 3, 29, 3, 40))) == "2026-03-30 02:30"


@pytest.mark.parametrize(
    ("name", "change"),
    [(ZONES[0], (1, 1)), (ZONES[1], (3, 29)), (ZONES[1], (10, 25)), (ZONES[2], (3, 8)), (ZONES[2], (11, 1)),
     (ZONES[3], (6, 1)), (ZONES[4], (4, 5)), (ZONES[4], (10, 4))],
)  # fmt: skip
@pytest.mark.parametrize("until", ["00:00", "01:45", "02:15", "02:30", "03:00", "06:00", "23:45"])
def test_the_next_time_is_the_first_that_clocks_show(zone, name, change, until):
    """Against a walk over every quarter of an hour, from the day before clocks change to three days later."""
    zone(name)
    start = int(local(2026, *change)) - 24 * 3600
    clocks = {moment: shown(moment) for moment in range(start, start + 4 * 24 * 3600, 15 * 60)}
    following = None
    for moment, now in reversed(clocks.items()):
        is_left_out = f"{now[:10]} {until}" not in clocks.values()  # by this night, or by the one to come
        if following is not None and not is_left_out and following - moment <= 25 * HOUR:
            assert next_time(until, moment) == following, now
        following = moment if now.endswith(until) else following


# --- the meter -----------------------------------------------------------------------------------------


def test_nothing_is_counted_before_the_first_training(clock):
    meter = Meter(Budget(hours=1, cost_per_hour=2, cost_max=2), Spent(600, 60), clock)
    clock.advance(100 * HOUR)
    assert meter.spent == Spent(600, 60)
    assert meter.seconds_left() == (3000, "cost.max: 2")
    assert meter.exhausted() is None


def test_the_second_training_does_not_begin_anew(clock):
    meter = Meter(Budget(), Spent(), clock)
    for _ in range(3):
        meter.begin()
        clock.advance(10)
    assert meter.spent.seconds == 30


def test_what_earlier_sessions_spent_counts(clock):
    meter = Meter(Budget(hours=1), Spent(seconds=0.75 * HOUR), clock)
    meter.begin()
    clock.advance(0.25 * HOUR - 1)
    assert meter.exhausted() is None
    clock.advance(1)
    assert meter.exhausted() == "hours: 1"
    assert meter.spent.seconds == HOUR


def test_a_sweep_that_is_spent_already_stays_so(clock):
    assert Meter(Budget(hours=0.5), Spent(0.5 * HOUR), clock).exhausted() == "hours: 0.5"


@pytest.mark.parametrize(
    ("budget", "seconds", "bound"),
    [
        (Budget(hours=2), 2 * HOUR, "hours: 2"),
        (Budget(cost_per_hour=4, cost_max=2), 0.5 * HOUR, "cost.max: 2"),
        (Budget(until="18:00"), 6 * HOUR, "until: 18:00"),
        (Budget(hours=2, cost_per_hour=4, cost_max=2, until="18:00"), 0.5 * HOUR, "cost.max: 2"),
        (Budget(hours=2, cost_per_hour=4, cost_max=20, until="18:00"), 2 * HOUR, "hours: 2"),
        (Budget(hours=7, cost_per_hour=4, cost_max=200, until="18:00"), 6 * HOUR, "until: 18:00"),
    ],
)
def test_the_first_bound_ends_it_at_that_second(zone, budget, seconds, bound):
    zone("UTC")
    clock = Clock(local(2026, 7, 10, 12, 0))
    meter = Meter(budget, Spent(), clock)
    meter.begin()
    assert meter.seconds_left() == (seconds, bound)
    clock.advance(seconds - 0.5)
    assert meter.exhausted() is None
    clock.advance(0.5)
    assert meter.exhausted() == bound


def test_until_is_the_first_such_time_after_the_session_began_not_after_now(zone):
    zone("UTC")
    clock = Clock(local(2026, 7, 10, 5, 0))
    meter = Meter(Budget(until="06:00"), Spent(), clock)
    clock.advance(0.5 * HOUR)
    assert meter.seconds_left() == (0.5 * HOUR, "until: 06:00")  # it needs no training to come nearer
    clock.advance(HOUR)
    assert meter.exhausted() == "until: 06:00"
    assert Meter(Budget(until="06:00"), meter.spent, clock).exhausted() is None  # the next night
    assert Meter(Budget(until="06:00"), meter.spent, clock, clock.now - 1).exhausted() == "until: 06:00"  # fixed before


def test_without_a_bound_it_never_ends(clock):
    meter = Meter(Budget(trials=1, trial_minutes=1, cost_per_hour=3), Spent(), clock)
    meter.begin()
    meter.gpu_seconds = 1e9
    clock.advance(1e9)
    assert meter.seconds_left() is None
    assert meter.exhausted(reserve_s=1e9) is None


def test_gpu_hours_are_those_of_the_trials_not_of_the_clock(clock):
    meter = Meter(Budget(gpu_hours=1), Spent(gpu_seconds=0.5 * HOUR), clock)
    meter.begin()
    clock.advance(100 * HOUR)
    assert meter.exhausted() is None
    meter.gpu_seconds += 0.5 * HOUR - 1
    assert meter.exhausted() is None
    meter.under_way = {3: 0.25, 5: 0.75}
    assert meter.exhausted() == "gpu_hours: 1"
    assert meter.spent == Spent(100 * HOUR, HOUR - 1, 1)


def test_gpu_hours_of_trials_under_way_are_those_of_before_until_a_search_looks(clock):
    meter = Meter(Budget(gpu_hours=1), Spent(0.0, 60.0, 30.0), clock)
    assert meter.spent == Spent(0.0, 60.0, 30.0)
    meter.under_way = {}
    assert meter.spent == Spent(0.0, 60.0, 0.0)


def test_a_reserve_ends_it_that_much_earlier(clock):
    meter = Meter(Budget(hours=1), Spent(), clock)
    meter.begin()
    clock.advance(0.5 * HOUR)
    assert meter.exhausted(reserve_s=0.5 * HOUR - 1) is None
    assert meter.exhausted(reserve_s=0.5 * HOUR) == "hours: 1"


def test_a_reserve_holds_for_the_time_of_day_and_the_cost_too(zone):
    zone("UTC")
    meter = Meter(Budget(until="06:00"), Spent(), Clock(local(2026, 7, 10, 5, 0)))
    assert (meter.exhausted(HOUR - 1), meter.exhausted(HOUR)) == (None, "until: 06:00")
    meter = Meter(Budget(cost_per_hour=1, cost_max=1), Spent(), Clock())
    assert (meter.exhausted(HOUR - 1), meter.exhausted(HOUR)) == (None, "cost.max: 1")


def test_gpu_hours_have_a_reserve_of_their_own(clock):
    meter = Meter(Budget(gpu_hours=1), Spent(), clock)
    assert meter.exhausted(reserve_s=10 * HOUR) is None
    assert meter.exhausted(reserve_gpu_s=HOUR - 1) is None
    assert meter.exhausted(reserve_gpu_s=HOUR) == "gpu_hours: 1"


@pytest.mark.parametrize(("budget", "cost"), [(Budget(), None), (Budget(cost_per_hour=3), 4.5)])
def test_the_cost_follows_from_the_hours(budget, cost):
    assert Spent(seconds=1.5 * HOUR, gpu_seconds=HOUR).cost(budget) == cost


@BUSY
@given(
    st.builds(
        Budget,
        hours=st.none() | st.floats(0.01, 50),
        gpu_hours=st.none() | st.floats(0.01, 50),
        cost_per_hour=st.floats(0.1, 10),
        cost_max=st.none() | st.floats(0.01, 50),
    ),
    st.builds(Spent, st.floats(0, 1e5), st.floats(0, 1e5)),
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), max_size=5),
    st.floats(0, 1e4),
)
def test_once_it_is_used_up_it_stays_so(budget, before, steps, reserve):
    clock = Clock()
    meter = Meter(budget, before, clock)
    meter.begin()
    ended = [meter.exhausted(reserve)]
    for wall, gpu in steps:
        clock.advance(wall)
        meter.gpu_seconds += gpu
        ended.append(meter.exhausted(reserve))
    was_over = [why is not None for why in ended]
    assert was_over == sorted(was_over)
    assert meter.exhausted(reserve) is not None or meter.exhausted() is None  # a reserve only ends it earlier
