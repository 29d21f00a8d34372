"""Pruning rules: what all of them promise, then each by hand-computed examples."""

import math
import random
import subprocess
import sys
from copy import deepcopy
from dataclasses import FrozenInstanceError, fields, is_dataclass
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.config.objective import Objective
from hpo.pruning.base import Never, Peers
from hpo.pruning.halving import Hyperband, SuccessiveHalving, rungs
from hpo.pruning.paired import Paired
from hpo.pruning.patient import Patient
from hpo.pruning.percentile import Median, Percentile
from hpo.pruning.table import RULES
from hpo.pruning.threshold import Threshold

UP, DOWN = Objective("accuracy", "maximize"), Objective("loss", "minimize")
NAN, INF = math.nan, math.inf


def not_kept(number, index):
    return None


def prune(rule, curves, number, order=UP, losses=not_kept):
    return rule.should_prune(Peers(curves, order, losses), number)


def halving(curves, number, order=UP, *, min_fraction=0.2, reduction_factor=3, tolerance=0.0):
    return prune(SuccessiveHalving(reduction_factor, min_fraction, tolerance), curves, number, order)


def at(share, **values):
    """Trials with one evaluation each: at(0.2, _1=0.9, _2=0.8) are number 1 and 2."""
    return {int(name[1:]): [(share, value)] for name, value in values.items()}


def losses_from(values):
    """Per-example losses that rank trials as `values` do: {(number, index): [...]} made on the way."""

    def losses(number, index):
        noise = random.Random(f"{number} {index}")
        return [1 - values[number][index][1] + noise.uniform(0, 0.05) for _ in range(20)]

    return losses


def first_at(curve, level):
    return next((value for share, value in curve if share >= level - 1e-9), None)


def negated(curves):
    return {number: [(share, -value) for share, value in curve] for number, curve in curves.items()}


SHARES = [i / 10 for i in range(1, 11)]
VALUE = st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1.0]))  # the second makes ties
CURVE = st.lists(VALUE, min_size=1, max_size=10).map(lambda values: list(zip(SHARES, values, strict=False)))
CURVES = st.lists(CURVE, min_size=1, max_size=8).map(lambda curves: dict(enumerate(curves)))
ORDERS = st.sampled_from([UP, DOWN])
HALVINGS = st.fixed_dictionaries(
    {"min_fraction": st.sampled_from([0.1, 0.2, 0.35]), "reduction_factor": st.integers(2, 4)}
)
RELATIVE = [  # rules that compare values of peers
    SuccessiveHalving(), SuccessiveHalving(2, 0.1, 0.0), Hyperband(), Hyperband(2, 0.1, 0.0), Median(),
    Median(0.1, 1, 0.0), Percentile(), Percentile(70.0, 0.3, 2, 0.0), Patient(), Patient(SuccessiveHalving(), 1, 0.1),
]  # fmt: skip
STOPPING = [*RELATIVE, Threshold(lower=0.4), Paired(), Paired(0.2, 0.5), Patient(Threshold(lower=0.4)),
            Patient(Paired(), 1)]  # fmt: skip


# --- what every rule promises ----------------------------------------------------------------------------


def side_by_side(rule, curves, order=UP, losses=None):
    """All trials evaluate in turn and none ever finishes: {number: share at which it was stopped}."""
    grown = {number: [] for number in curves}
    stopped = {}
    for index in range(len(SHARES) - 1):
        for number, curve in curves.items():
            if number not in stopped:
                grown[number].append(curve[index])
                if prune(rule, grown, number, order, losses or losses_from(curves)):
                    stopped[number] = curve[index][0]
    return stopped


def eight_trials(bad=5):
    """Eight rising curves, number 0 is the best of them; number `bad` learns nothing."""
    curves = {n: [(share, 0.9 - n / 200 - 0.3 * (1 - share)) for share in SHARES] for n in range(8)}
    return {**curves, bad: [(share, 0.2) for share in SHARES]}


@pytest.mark.parametrize("rule", STOPPING, ids=str)
@pytest.mark.parametrize(("bad", "reporting"), [(5, range(8)), (7, range(8)), (2, range(7, -1, -1))], ids=str)
def test_a_bad_trial_is_stopped_while_all_eight_still_run(rule, bad, reporting):
    """Trial 0 is the best, and goes on, whether it reports first or last."""
    curves = eight_trials(bad)
    stopped = side_by_side(rule, {number: curves[number] for number in reporting})
    assert bad in stopped
    assert 0 not in stopped


def test_no_rule_but_never_lets_the_bad_trial_pass():
    assert {RULES["none"]} == set(RULES.values()) - {type(rule) for rule in STOPPING}
    assert side_by_side(Never(), eight_trials()) == {}


@pytest.mark.parametrize("rule", RELATIVE, ids=str)
@given(curves=CURVES, order=ORDERS, number=st.integers(0, 7))
@settings(deadline=None, max_examples=40)
def test_the_trial_that_is_best_everywhere_is_never_pruned(rule, curves, order, number):
    number %= len(curves)
    best = [
        (share, min((c[i][1] for c in curves.values() if len(c) > i), key=order.sort_key))
        for i, (share, _) in enumerate(curves[number])
    ]
    assert not prune(rule, {**curves, number: best}, number, order)


@pytest.mark.parametrize("rule", STOPPING, ids=str)
@given(curves=CURVES, order=ORDERS, shuffled=st.randoms())
@settings(deadline=None, max_examples=25)
def test_deciding_is_pure(rule, curves, order, shuffled):
    losses = losses_from(curves)
    before = deepcopy(curves)
    items = list(curves.items())
    shuffled.shuffle(items)
    for number in curves:
        answer = prune(rule, curves, number, order, losses)
        assert type(answer) is bool
        assert prune(rule, curves, number, order, losses) is answer
        assert prune(rule, dict(items), number, order, losses) is answer
    assert curves == before


@pytest.mark.parametrize("rule", [r for r in STOPPING if not isinstance(r, Hyperband)], ids=str)
@given(curves=CURVES, order=ORDERS, shuffled=st.randoms())
@settings(deadline=None, max_examples=25)
def test_the_numbers_of_trials_do_not_matter(rule, curves, order, shuffled):
    losses = losses_from(curves)
    renamed = shuffled.sample(range(100), len(curves))
    original = dict(zip(renamed, curves, strict=True))
    others = {new: curves[old] for new, old in original.items()}
    for new, old in original.items():
        here = prune(rule, curves, old, order, losses)
        assert here == prune(rule, others, new, order, lambda n, i: losses(original[n], i))


@pytest.mark.parametrize("rule", [r for r in STOPPING if r not in (Threshold(0.4), Patient(Threshold(0.4)))], ids=str)
@given(curves=CURVES)
@settings(deadline=None, max_examples=25)
def test_minimizing_is_maximizing_the_negative(rule, curves):
    losses = losses_from(curves)
    for number in curves:
        assert prune(rule, curves, number, UP, losses) == prune(rule, negated(curves), number, DOWN, losses)


@pytest.mark.parametrize("rule", [*STOPPING, Patient(Never()), Threshold()], ids=str)
@pytest.mark.parametrize("order", [UP, DOWN])
def test_nan_stops_a_trial_at_once_and_alone(rule, order):
    assert prune(rule, {3: [(0.05, NAN)]}, 3, order)
    assert prune(rule, {3: [(0.05, 0.5), (0.1, 0.6), (0.15, NAN)]}, 3, order)
    assert not prune(rule, {3: [(0.05, NAN), (0.1, 0.5)]}, 3, order)
    assert not prune(Never(), {3: [(0.05, NAN)]}, 3, order)


@pytest.mark.parametrize("rule", RELATIVE, ids=str)
def test_peers_that_are_nan_lose_against_any_number(rule):
    curves = {n: [(share, NAN) for share in SHARES] for n in range(8)}
    assert not any(prune(rule, {**curves, n: [(s, 0.1) for s in SHARES[:k]]}, n) for n in range(8) for k in range(1, 9))


@pytest.mark.parametrize("rule", RELATIVE, ids=str)
def test_an_infinite_loss_is_worse_than_any_other(rule):
    """A perplexity overflows to inf before a loss becomes NaN."""
    curves = {**eight_trials(), 5: [(share, INF) for share in SHARES]}
    assert 5 in side_by_side(rule, curves, DOWN)
    assert 7 not in side_by_side(rule, curves, DOWN)  # the lowest curve of the others


@pytest.mark.parametrize("rule", [*STOPPING, Never()], ids=str)
def test_a_trial_without_evaluations_goes_on(rule):
    curves = {n: [(0.2, 0.9)] for n in range(6)}
    assert not prune(rule, {**curves, 7: []}, 7)
    assert not prune(rule, curves, 7)


@pytest.mark.parametrize("rule", [*STOPPING, Never()], ids=str)
@pytest.mark.parametrize("alone", [0.5, 0.9])
def test_a_trial_without_peers_goes_on(rule, alone):
    assert not prune(rule, {3: [(share, alone) for share in SHARES]}, 3)
    others_began = {n: [] for n in range(8)}
    assert not prune(rule, {**others_began, 3: [(0.2, alone)]}, 3)


@pytest.mark.parametrize("rule", RULES.values())
def test_rules_are_frozen_have_defaults_and_say_what_they_do(rule):
    assert is_dataclass(rule)
    assert rule.__doc__
    assert rule() == rule()
    with pytest.raises(FrozenInstanceError):
        setattr(rule(), next((f.name for f in fields(rule)), "anything"), 1)


def test_rules_are_known_by_the_names_of_the_grammar():
    assert {
        "none": Never, "successive_halving": SuccessiveHalving, "hyperband": Hyperband, "median": Median,
        "percentile": Percentile, "threshold": Threshold, "patient": Patient, "paired": Paired,
    } == RULES  # fmt: skip


def test_importing_the_rules_loads_neither_numpy_nor_scipy():
    loaded = "import sys; before = set(sys.modules); import hpo.pruning; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=60)
    assert "hpo.pruning" in done.stdout.split()
    assert not {"numpy", "scipy", "optuna"} & set(done.stdout.split())


# --- successive halving ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("min_fraction", "factor", "levels"),
    [(0.2, 3, [0.2, 0.6]), (0.1, 2, [0.1, 0.2, 0.4, 0.8]), (0.5, 2, [0.5]), (0.9, 3, [0.9]), (1 / 3, 3, [1 / 3])],
)
def test_rungs_grow_by_the_factor_and_end_below_the_whole(min_fraction, factor, levels):
    assert rungs(min_fraction, factor) == pytest.approx(levels)


@given(CURVES, HALVINGS, ORDERS)
@settings(deadline=None)
def test_the_best_of_a_rung_is_never_pruned(curves, rule, order):
    for number, curve in curves.items():
        own = order.sort_key(curve[-1][1])
        levels = rungs(rule["min_fraction"], rule["reduction_factor"])
        peers = [order.sort_key(v) for c in curves.values() for r in levels if (v := first_at(c, r)) is not None]
        if all(own <= peer for peer in peers):
            assert not halving(curves, number, order, **rule)


@given(CURVES, HALVINGS, ORDERS)
@settings(deadline=None)
def test_before_the_first_rung_nobody_is_judged(curves, rule, order):
    for number, curve in curves.items():
        if curve[-1][0] < rule["min_fraction"] - 1e-9:
            assert not halving(curves, number, order, **rule)


@given(CURVES, HALVINGS)
@settings(deadline=None)
def test_at_most_the_kept_share_and_ties_survive_a_full_rung(curves, rule):
    """Once all have arrived, whoever would go on is among the best 1/factor."""
    level = rule["min_fraction"]
    at_rung = {n: v for n, c in curves.items() if (v := first_at(c, level)) is not None}
    short = {n: [(level, value)] for n, value in at_rung.items()}
    keep = max(1, len(short) // rule["reduction_factor"])
    best = sorted(at_rung.values(), reverse=True)[:keep]
    for number, value in at_rung.items():
        assert halving(short, number, UP, **rule) == (value < best[-1])


def test_the_first_to_arrive_goes_on_whatever_its_value():
    assert not halving({1: [(0.2, 0.0)], 2: [(0.1, 0.9)]}, 1)


def test_until_enough_have_arrived_only_the_best_goes_on():
    assert halving({1: [(0.2, 0.9)], 2: [(0.2, 0.8)]}, 2)
    assert not halving({1: [(0.2, 0.8)], 2: [(0.2, 0.9)]}, 2)


def test_peers_are_compared_at_the_rung_not_at_their_latest_value():
    curves = {1: [(0.2, 0.3), (0.4, 0.9)], 2: [(0.2, 0.5)]}
    assert not halving(curves, 2)


def test_a_value_that_falls_counts_from_the_next_rung_on():
    curves = {1: [(0.2, 0.9)], 2: [(0.2, 0.9), (0.4, 0.0)]}
    assert not halving(curves, 2)
    curves = {1: [(0.2, 0.9), (0.6, 0.9)], 2: [(0.2, 0.9), (0.4, 0.0), (0.6, 0.0)]}
    assert halving(curves, 2)


def test_who_came_first_is_stopped_when_better_peers_have_come():
    early = [(0.2, 0.1), (0.3, 0.2)]
    assert not halving({1: early}, 1)
    assert halving({1: early, 2: [(0.2, 0.9)]}, 1)


def test_who_has_caught_up_is_not_stopped_for_its_past():
    assert not halving({1: [(0.2, 0.1), (0.3, 0.9)], 2: [(0.2, 0.5)]}, 1)
    assert halving({1: [(0.2, 0.1), (0.3, 0.4)], 2: [(0.2, 0.5)]}, 1)


@given(st.permutations(range(9)))
@settings(deadline=None)
def test_whatever_the_order_of_arrival_nobody_below_the_best_third_is_left(arrival):
    curves, going_on = {}, []
    for number in arrival:
        curves[number] = [(0.2, float(number))]
        going_on += [] if halving(curves, number) else [number]
    for number in going_on:
        curves[number].append((0.3, float(number)))
    left = {n for n in going_on if not halving(curves, n)}
    assert 8 in left
    assert left <= {6, 7, 8}


def test_one_evaluation_may_cross_two_rungs():
    first_only = {1: [(0.2, 0.9)], 2: [(0.7, 0.1)]}
    assert halving(first_only, 2)
    second_only = {1: [(0.2, 0.0), (0.6, 0.9)], 2: [(0.7, 0.1)]}
    assert halving(second_only, 2)


def test_nan_loses_against_any_number():
    assert halving({1: [(0.2, 0.0)], 2: [(0.2, NAN)]}, 2)
    assert not halving({1: [(0.2, 0.0)], 2: [(0.2, NAN)]}, 1)


def test_shares_that_were_rounded_when_stored_still_reach_a_rung():
    curves = {n: [(round(1 / 3, 9), n / 10)] for n in range(4)}
    assert halving(curves, 1, min_fraction=1 / 3)
    assert prune(Median(min_fraction=1 / 3), curves, 0)


@pytest.mark.parametrize("count", [3, 6, 9])
def test_a_third_goes_on(count):
    curves = {n: [(0.2, n / 100)] for n in range(count)}
    assert sum(not halving(curves, n) for n in curves) == count // 3


CLOSE = pytest.mark.parametrize(
    ("order", "leader", "close", "behind"), [(UP, 0.80, 0.79, 0.75), (DOWN, 20.0, 20.3, 21.0)]
)


@CLOSE
def test_a_peer_that_is_better_by_less_than_the_tolerance_does_not_count(order, leader, close, behind):
    def stops(value, tolerance):
        return halving({0: [(0.2, leader)], 1: [(0.2, value)]}, 1, order, tolerance=tolerance)

    assert stops(close, 0.0)
    assert not stops(close, 0.02)
    assert stops(behind, 0.02)


def test_halving_by_default_is_that_of_the_grammar():
    assert SuccessiveHalving() == SuccessiveHalving(reduction_factor=3, min_fraction=0.2, tolerance=0.02)


# --- hyperband -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "sizes"),
    # Algorithm 1 of the paper: ceil(brackets / (s + 1) * factor^s), s counted down
    [
        (Hyperband(3, 0.1), [9, 5, 3]), (Hyperband(2, 0.1), [8, 6, 4, 4]), (Hyperband(3, 0.4), [1]),
        (Hyperband(3, 0.3), [3, 2]), (Hyperband(3, 1 / 3), [1]), (Hyperband(4, 0.01), [64, 22, 8, 4]),
    ],
)  # fmt: skip
def test_brackets_get_the_shares_of_the_paper_in_any_run_of_numbers(rule, sizes):
    for first, count in [(0, 17), (0, 50), (100, 40), (999, 1000)]:
        brackets = [rule.bracket(n) for n in range(first, first + count)]
        got = [brackets.count(b) for b in range(len(sizes))]
        assert sum(got) == count
        assert got == pytest.approx([count * size / sum(sizes) for size in sizes], abs=2.0)


def test_the_first_brackets_by_hand():
    # multiples of 0.618... modulo 1 are 0, .618, .236, .854, .472, .090; bracket 1 starts at 9/17 = .529, 2 at .824
    assert [Hyperband(3, 0.1).bracket(n) for n in range(6)] == [0, 1, 0, 2, 0, 0]


def test_a_trial_is_compared_within_its_bracket_only():
    rule = Hyperband(3, 0.1, 0.0)
    curves = {0: [(0.1, 0.5)], 1: [(0.1, 0.9)], 3: [(0.1, 0.9)]}  # in brackets 0, 1 and 2
    assert not prune(rule, curves, 0)
    assert prune(rule, {**curves, 2: [(0.1, 0.6)]}, 0)


def test_a_bracket_begins_at_its_own_rung():
    rule = Hyperband(3, 0.1, 0.0)
    pairs = {0: (0, 2), 1: (1, 6), 2: (3, 8)}
    assert {b: {rule.bracket(n) for n in pair} for b, pair in pairs.items()} == {0: {0}, 1: {1}, 2: {2}}

    def judged(bracket):
        """Where the worse of two trials would be stopped."""
        good, bad = pairs[bracket]
        whole = {good: [(s, 0.9) for s in SHARES], bad: [(s, 0.1) for s in SHARES]}
        return [s for i, s in enumerate(SHARES) if prune(rule, {**whole, bad: whole[bad][: i + 1]}, bad)]

    assert [judged(b) for b in range(3)] == [SHARES, SHARES[2:], SHARES[8:]]


@given(CURVES, HALVINGS)
@settings(deadline=None)
def test_with_one_bracket_hyperband_is_successive_halving(curves, rule):
    one = {**rule, "min_fraction": 0.6}
    for number in curves:
        assert prune(Hyperband(**one), curves, number) == prune(SuccessiveHalving(**one), curves, number)


@CLOSE
def test_hyperband_is_tolerant_as_halving_is(order, leader, close, behind):
    for value, stops in [(close, False), (behind, True)]:
        assert prune(Hyperband(), {0: [(0.1, leader)], 2: [(0.1, value)]}, 2, order) == stops


# --- percentile and median -------------------------------------------------------------------------------


def percentile(own, peers, percent, order=UP, tolerance=0.0, min_peers=1):
    curves = {n: [(0.2, value)] for n, value in enumerate(peers, 1)}
    return prune(Percentile(percent, 0.2, min_peers, tolerance), {**curves, 0: [(0.2, own)]}, 0, order)


@pytest.mark.parametrize(
    ("percent", "bar"),
    # of 0.5 0.6 0.7 0.8 0.9, the best first: 25 % is the second best, 10 % lies 0.4 of the way to it
    [(0, 0.9), (10, 0.86), (25, 0.8), (50, 0.7), (75, 0.6), (100, 0.5)],
)
def test_a_trial_must_reach_the_percentile_of_its_peers(percent, bar):
    peers = [0.8, 0.5, 0.9, 0.7, 0.6]
    assert percentile(bar - 0.01, peers, percent)
    assert not percentile(bar + 0.01, peers, percent)
    assert percentile(1 - bar + 0.01, [1 - v for v in peers], percent, DOWN)
    assert not percentile(1 - bar - 0.01, [1 - v for v in peers], percent, DOWN)


@given(st.floats(-5, 5), st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.integers(0, 100))
@settings(deadline=None)
def test_the_percentile_is_that_of_numpy(own, peers, percent):
    bar = np.percentile(peers, percent)
    if abs(own - bar) > 1e-9:
        assert percentile(own, peers, percent, DOWN) == (own > bar)


def test_infinite_peers_are_interpolated_too():
    assert percentile(0.5, [INF, INF, INF], 50)
    assert not percentile(0.5, [-INF, -INF, -INF], 50)
    assert not percentile(0.5, [-INF, 0.4], 50)
    assert not percentile(0.5, [-INF, 0.9], 50)  # half-way to a peer that failed is as good as failed


@pytest.mark.parametrize(
    ("rule", "kept"),
    # Trial 6 of 9 meets 9 8 7 5 4 3 2 1: the quarter lies at 7.25. Trial 5 meets 9 8 7 6 4 3 2 1: the half is 5.
    [
        (Percentile(), [7, 8, 9]), (Median(), [5, 6, 7, 8, 9]),
        (Percentile(0.0), [9]), (Percentile(100.0), [2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)  # fmt: skip
def test_who_is_kept_of_nine(rule, kept):
    curves = {n: [(0.2, float(n))] for n in range(1, 10)}
    assert [n for n in curves if not prune(rule, curves, n)] == kept


@given(CURVES, ORDERS, st.integers(1, 4))
@settings(deadline=None)
def test_the_median_is_percentile_50(curves, order, min_peers):
    for number in curves:
        median, half = Median(0.3, min_peers, 0.1), Percentile(50.0, 0.3, min_peers, 0.1)
        assert prune(median, curves, number, order) == prune(half, curves, number, order)


def test_the_best_value_so_far_counts_not_the_latest():
    peers = {n: [(0.2, 0.7), (0.4, 0.1)] for n in (1, 2, 3)}
    assert prune(Median(), {**peers, 0: [(0.2, 0.5), (0.4, 0.6)]}, 0)
    assert not prune(Median(), {**peers, 0: [(0.2, 0.8), (0.4, 0.0)]}, 0)


def test_peers_count_with_what_they_had_at_the_same_share():
    ahead = {n: [(0.2, 0.3), (0.4, 0.9)] for n in (1, 2, 3)}
    assert not prune(Median(), {**ahead, 0: [(0.2, 0.4)]}, 0)
    assert prune(Median(), {**ahead, 0: [(0.2, 0.2)]}, 0)


@pytest.mark.parametrize("rule", [Median(), Percentile()], ids=str)
def test_only_peers_that_have_come_as_far_count_and_too_few_decide_nothing(rule):
    two = {1: [(0.2, 0.9), (0.4, 0.9)], 2: [(0.2, 0.9), (0.4, 0.9)], 3: [(0.2, 0.9)]}
    bad = [(0.2, 0.9), (0.4, 0.1), (0.4, 0.1)]
    assert not prune(rule, {**two, 0: [(0.4, 0.1)]}, 0)
    assert prune(rule, {**two, 4: [(0.2, 0.9), (0.4, 0.9)], 0: [(0.4, 0.1)]}, 0)
    assert not prune(rule, {**two, 4: [(0.6, 0.9)], 0: bad[1:]}, 0)  # 4 has no value of up to then


def test_the_trial_is_not_its_own_peer():
    assert not percentile(0.1, [0.9, 0.9], 50, min_peers=3)
    assert percentile(0.1, [0.9, 0.9, 0.9], 50, min_peers=3)


@pytest.mark.parametrize("rule", [Median(), Percentile(), Paired()], ids=str)
def test_nothing_is_decided_before_the_first_fifth(rule):
    def losses(number, index):
        return [float(number)] * 20

    curves = {n: [(0.1, 1 - n / 10), (0.2, 1 - n / 10)] for n in range(6)}
    assert not prune(rule, {**curves, 5: curves[5][:1]}, 5, losses=losses)
    assert prune(rule, curves, 5, losses=losses)


@CLOSE
@pytest.mark.parametrize("rule", [Median, Percentile])
def test_a_trial_within_the_tolerance_of_the_percentile_goes_on(rule, order, leader, close, behind):
    def stops(value, tolerance):
        curves = {**{n: [(0.2, leader)] for n in (1, 2, 3)}, 0: [(0.2, value)]}
        return prune(rule(tolerance=tolerance), curves, 0, order)

    assert stops(close, 0.0)
    assert not stops(close, 0.02)
    assert stops(behind, 0.02)


# --- threshold -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "stopped"),
    [
        (Threshold(), []), (Threshold(lower=0.4), [0.3]), (Threshold(upper=0.6), [0.7]),
        (Threshold(0.4, 0.6), [0.3, 0.7]), (Threshold(lower=0.0), []), (Threshold(0.8), [0.3, 0.4, 0.6, 0.7]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", [UP, DOWN])
def test_values_outside_the_bounds_stop_a_trial(rule, stopped, order):
    values = [0.3, 0.4, 0.6, 0.7]
    assert [v for v in values if prune(rule, {0: [(0.01, 0.5), (0.02, v)]}, 0, order)] == stopped


def test_zero_is_a_bound():
    assert prune(Threshold(lower=0.0), {0: [(0.2, -1.0)]}, 0)
    assert prune(Threshold(upper=0.0), {0: [(0.2, 1.0)]}, 0)


def test_only_the_latest_value_is_held_against_the_bounds():
    assert not prune(Threshold(lower=0.4), {0: [(0.2, 0.1), (0.4, 0.5)]}, 0)


@given(CURVES)
@settings(deadline=None)
def test_negated_bounds_hold_negated_values(curves):
    for number in curves:
        kept = prune(Threshold(-1.0, 2.0), curves, number, UP)
        assert kept == prune(Threshold(-2.0, 1.0), negated(curves), number, DOWN)


# --- patient ---------------------------------------------------------------------------------------------

ALWAYS = Threshold(lower=10.0)  # says stop to every curve below


def stops_at(rule, values, order=UP):
    curve = list(zip(SHARES, values, strict=False))
    return [i for i in range(len(curve)) if prune(rule, {0: curve[: i + 1]}, 0, order)]


@pytest.mark.parametrize(
    ("patience", "min_delta", "values", "stops"),
    [
        (2, 0.0, [0.5, 0.5, 0.5, 0.5], [2, 3]),  # equal is not improved
        (2, 0.0, [0.5, 0.6, 0.7, 0.8], []),
        (2, 0.0, [0.5, 0.4, 0.6, 0.5, 0.5], [4]),  # 0.6 buys two more evaluations
        (1, 0.0, [0.5, 0.4, 0.6, 0.5], [1, 3]),
        (1, 0.0, [0.5, 0.9, 0.4, 0.6], [2, 3]),  # better than the last one, but not than the best
        (3, 0.0, [0.5, 0.4, 0.4, 0.4], [3]),
        (2, 0.25, [0.5, 0.5, 0.625, 0.75], [2, 3]),  # by 0.25 in two evaluations, but not by more
        (2, 0.25, [0.5, 0.5, 0.625, 0.875], [2]),
        (0, 0.0, [0.5, 0.6, 0.7], [0, 1, 2]),
    ],
)
def test_patience_by_hand(patience, min_delta, values, stops):
    rule = Patient(ALWAYS, patience, min_delta)
    assert stops_at(rule, values) == stops
    assert stops_at(Patient(Threshold(upper=-10.0), patience, min_delta), [-v for v in values], DOWN) == stops


def test_a_patient_rule_stops_only_what_its_rule_would():
    assert stops_at(Patient(Threshold(lower=0.3), 1), [0.5, 0.4, 0.2, 0.1]) == [2, 3]
    assert stops_at(Patient(Never(), 1), [0.5, 0.4, 0.3]) == []


@given(CURVES, st.sampled_from([r for r in STOPPING if not isinstance(r, Patient)]), st.integers(0, 3))
@settings(deadline=None, max_examples=25)
def test_patience_only_ever_spares(curves, rule, patience):
    losses = losses_from(curves)
    for number in curves:
        patient = prune(Patient(rule, patience), curves, number, losses=losses)
        alone = prune(rule, curves, number, losses=losses)
        assert patient <= alone
        if patience == 0:
            assert patient == alone


def test_patience_outlives_values_that_were_never_a_number():
    assert stops_at(Patient(ALWAYS, 1), [NAN, 0.5, 0.4]) == [0, 2]
    assert stops_at(Patient(ALWAYS, 1), [-INF, -INF, 0.4]) == [1]


# --- paired ----------------------------------------------------------------------------------------------


def paired(own, other, *, alpha=0.05, values=(0.5, 0.6), order=UP, share=0.2):
    curves = {0: [(share, values[0])], 1: [(share, values[1])]}
    return prune(Paired(alpha), curves, 0, order, lambda number, index: other if number else own)


@pytest.mark.parametrize(("examples", "stops"), [(4, False), (5, True)])
def test_five_of_five_worse_is_sure_at_five_percent(examples, stops):
    """All signs the same: p = 2^-n, so 0.0625 and 0.03125."""
    own = [1.0 + i for i in range(examples)]
    assert paired(own, [0.5 * x for x in own]) == stops
    assert not paired([0.5 * x for x in own], own)


def test_alpha_is_the_bar():
    own, best = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 6
    assert paired(own, best, alpha=0.016)  # p = 1/64 = 0.015625
    assert not paired(own, best, alpha=0.015)


def test_differences_are_ranked_by_size():
    # five small ones against it and one large for it: W+ = 15 of 21, p = 10/64
    assert not paired([1.1, 1.2, 1.3, 1.4, 1.5, 0.0], [1.0] * 6)
    # the one for it is the smallest: W+ = 20, p = 2/64
    assert paired([1.1, 1.2, 1.3, 1.4, 1.5, 0.95], [1.0] * 6)


def test_equal_losses_say_nothing():
    assert not paired([0.3] * 50, [0.3] * 50)
    assert not paired([], [])
    assert paired([1.0, 2.0, 3.0, 4.0, 5.0] + [0.3] * 500, [0.0] * 5 + [0.3] * 500)
    assert not paired([1.0] + [0.3] * 500, [0.0] + [0.3] * 500)


def test_infinite_and_missing_losses_are_the_worst():
    good = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    for bad in (INF, NAN):
        assert paired([bad] * 6, good)
        assert not paired(good, [bad] * 6)
        assert not paired([bad] * 6, [bad] * 6)


def test_without_losses_nothing_is_decided():
    sure = [1.0] * 20, [0.0] * 20
    assert paired(*sure)
    assert not paired(None, sure[1])
    assert not paired(sure[0], None)


@pytest.mark.parametrize(("values", "stops"), [((0.5, 0.6), True), ((0.6, 0.6), True), ((0.7, 0.6), False)])
def test_the_leader_by_value_goes_on_whatever_its_losses(values, stops):
    assert paired([1.0] * 20, [0.0] * 20, values=values) == stops
    assert paired([1.0] * 20, [0.0] * 20, values=[-v for v in values], order=DOWN) == stops


@given(CURVES, ORDERS)
@settings(deadline=None, max_examples=25)
def test_the_strictly_best_is_never_pruned_by_losses(curves, order):
    index = len(curves[0]) - 1
    there = [c[index][1] for n, c in curves.items() if n and len(c) > index]
    if all(order.better(curves[0][-1][1], value) for value in there):
        assert not prune(Paired(), curves, 0, order, lambda number, index: [float(number == 0)] * 20)


def test_the_rival_is_the_best_peer_whose_losses_are_kept():
    curves = at(0.2, _0=0.5, _1=0.9, _2=0.8, _3=0.7)
    own = [1.0] * 20

    def stops(**others):
        kept = {0: own, **{int(name[1:]): losses for name, losses in others.items()}}
        return prune(Paired(), curves, 0, losses=lambda number, index: kept.get(number))

    assert stops(_1=[0.0] * 20, _2=[2.0] * 20)
    assert not stops(_1=[2.0] * 20, _2=[0.0] * 20)
    assert stops(_2=[0.0] * 20, _3=[2.0] * 20)
    assert not stops()


def test_among_equally_good_rivals_one_is_enough():
    curves = at(0.2, _0=0.5, _1=0.9, _2=0.9)
    for surer in (1, 2):
        assert prune(Paired(), curves, 0, losses=lambda n, _, s=surer: [0.0 if n == s else 1.0] * 20)


def test_losses_of_the_same_evaluation_are_compared():
    asked = set()

    def losses(number, index):
        asked.add((number, index))
        return [{0: 1.0, 1: [2.0, 0.0, 2.0][index]}[number]] * 20

    ahead = [(0.2, 0.6), (0.4, 0.7), (0.6, 0.8)]
    assert prune(Paired(), {0: [(0.2, 0.5), (0.4, 0.5)], 1: ahead}, 0, losses=losses)
    assert asked == {(0, 1), (1, 1)}
    assert not prune(Paired(), {0: [(0.2, 0.5), (0.4, 0.5)], 1: ahead[:1]}, 0, losses=losses)


def test_the_best_peer_is_that_of_this_evaluation():
    curves = {
        0: [(0.2, 0.5)],
        1: [(0.2, 0.6), (0.4, 0.9)],
        2: [(0.2, 0.7), (0.4, 0.1)],
    }
    assert prune(Paired(), curves, 0, losses=lambda n, i: [{0: 1.0, 1: 2.0, 2: 0.0}[n]] * 20)
    assert not prune(Paired(), curves, 0, losses=lambda n, i: [{0: 1.0, 1: 0.0, 2: 2.0}[n]] * 20)


def test_evaluations_at_another_share_are_not_compared():
    """A batch larger than the gap between two evaluations skips one."""
    curves = {0: [(0.4, 0.5)], 1: [(0.2, 0.9), (0.4, 0.9)]}
    assert not prune(Paired(), curves, 0, losses=lambda n, i: [1.0 - n] * 20)


@given(st.lists(st.integers(-50, 50).filter(bool), min_size=1, max_size=8, unique_by=abs))
@settings(deadline=None)
def test_p_is_the_share_of_all_signs_that_do_as_badly(differences):
    ranks = range(1, len(differences) + 1)
    signed = sorted(differences, key=abs)
    observed = sum(rank for rank, d in zip(ranks, signed, strict=True) if d > 0)
    sums = [sum(rank for rank, up in zip(ranks, ups, strict=True) if up) for ups in product([0, 1], repeat=len(signed))]
    p = sum(total >= observed for total in sums) / len(sums)
    own = [float(d) for d in differences]
    assert paired(own, [0.0] * len(own), alpha=p + 1e-6)
    assert not paired(own, [0.0] * len(own), alpha=p - 1e-6)


def test_many_examples_are_judged_by_the_normal_approximation():
    """60 differences of ranks 1 to 60: mean of W+ 915, standard deviation 135.8, so 5 % is at 915 + 1.645 * 135.8."""

    def stops(w_plus):
        signs, left = {}, w_plus
        for rank in range(60, 0, -1):
            signs[rank] = 1.0 if rank <= left else -1.0
            left -= rank if rank <= left else 0
        return paired([rank * sign for rank, sign in signs.items()], [0.0] * 60)

    assert not stops(1138)
    assert stops(1139)


def test_a_handful_of_tied_losses_is_not_permuted(monkeypatch):
    """Scipy's own choice for them runs through 8192 permutations, for seconds, while every trial waits."""
    monkeypatch.setattr("scipy.stats.permutation_test", None)
    assert paired([1.0] * 13, [0.0] * 13)
    assert not paired([1.0] * 7 + [0.0] * 6, [0.0] * 7 + [1.0] * 6)
