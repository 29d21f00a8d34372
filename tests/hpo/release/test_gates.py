"""Which ONNX variant may be released."""

import math
from dataclasses import replace

import pytest

from hpo.config.objective import Objective
from hpo.release import gates
from hpo.release.gates import Limits, choose
from trainers.protocol.exported import Exported
from trainers.protocol.measured import Agreement, Judged, Measurement

UP, DOWN = Objective("score", "maximize"), Objective("score", "minimize")


def exported(score, **failures):
    return Exported({"score": score}, [], failures, seconds=1.0, latency_p50_ms=10.0)


def judge(exported, measurements, objective, max_drop):
    return gates.apply_gate(exported.metrics, measurements, exported.failures, objective, max_drop)


def measured(variant, score, latency=5.0):
    return Measurement(
        variant, {"score": score}, max_logit_diff=0.0, size_mb=1.0, latency_p50_ms=latency, latency_p95_ms=9.0
    )


@pytest.mark.parametrize(
    ("objective", "score", "passed"),
    [
        # Halves and quarters are exact in binary, so the boundary itself is tested, not its rounding.
        (UP, 0.75, True),
        (UP, 0.7499, False),
        (UP, 1.5, True),
        (DOWN, 1.25, True),
        (DOWN, 1.2501, False),
        (DOWN, 0.5, True),
        (UP, math.nan, False),
        (DOWN, math.nan, False),
    ],
)
def test_a_variant_passes_up_to_the_allowed_drop(objective, score, passed):
    [judged] = judge(exported(1.0), [measured("int8", score)], objective, max_drop=0.25)
    assert judged.passed is passed


def test_no_drop_at_all_may_be_allowed():
    assert judge(exported(0.8), [measured("int8", 0.8)], UP, max_drop=0.0)[0].passed
    assert not judge(exported(0.8), [measured("int8", 0.7999)], UP, max_drop=0.0)[0].passed


def test_the_drop_is_a_share_of_torch_s_value():
    [judged] = judge(exported(0.5), [measured("int8", 0.4)], UP, max_drop=0.1)
    assert judged.drop == pytest.approx(0.2)
    assert not judged.passed
    assert judged.reason == "score -20.00% against torch, allowed -10.00%"


def test_the_reason_shows_which_way_a_minimized_metric_went():
    [judged] = judge(exported(10.0), [measured("int8", 12.0)], DOWN, max_drop=0.1)
    assert judged.reason.startswith("score +20.00% against torch")


def test_an_unchanged_metric_has_no_minus():
    [judged] = judge(exported(0.5), [measured("fp32", 0.5)], UP, max_drop=0.01)
    assert judged.reason.startswith("score +0.00% against torch")


def test_a_failed_export_is_reported_with_its_reason_and_never_passes():
    judged = judge(exported(1.0, int4="no kernel"), [measured("fp32", 1.0)], UP, max_drop=0.1)
    assert [(j.variant, j.passed) for j in judged] == [("fp32", True), ("int4", False)]
    assert judged[1].reason == "no kernel"
    assert judged[1].measurement is None


def test_the_fastest_that_passed_is_chosen():
    judged = judge(
        exported(1.0, int4="no kernel"),
        [measured("fp32", 1.0, latency=9.0), measured("int8", 0.99, latency=4.0), measured("int2", 0.1, latency=1.0)],
        UP,
        max_drop=0.05,
    )
    chosen = choose(judged)
    assert chosen is not None
    assert chosen.variant == "int8"


def test_nothing_is_chosen_when_nothing_passed():
    assert choose(judge(exported(1.0, fp32="broken"), [measured("int8", 0.1)], UP, max_drop=0.05)) is None
    assert choose([]) is None


# --- measured on a part of the rows --------------------------------------------------------------------


def part(passed, **more):
    return Judged(replace(measured("int8", 0.79), rows=128), 0.004, passed, 0.001, 0.009, **more)


def test_a_verdict_on_some_rows_says_on_how_many_and_between_which_bounds():
    judged = gates.verdict_of(part(passed=True), 885, UP, max_drop=0.01)
    assert judged.passed
    assert (judged.word, judged.rows) == ("passed", "128 of 885")
    assert judged.reason == (
        "score -0.40% against torch, allowed -1.00% (-0.90% to -0.10%; measured on 128 of 885 rows)"
    )


def test_a_slower_variant_needs_no_verdict():
    judged = gates.verdict_of(part(passed=False, slower_than="int4"), 885, DOWN, max_drop=0.01)
    assert judged.word == "not needed"
    assert judged.reason == (
        "slower than int4, which passed (score +0.40% against torch, allowed +1.00%; measured on 128 of 885 rows)"
    )
    assert choose([judged]) is None


def test_a_verdict_on_all_rows_is_as_it_was():
    judged = gates.verdict_of(Judged(measured("int8", 0.75), 0.25, passed=True), 885, UP, max_drop=0.25)
    assert judged == judge(exported(1.0), [measured("int8", 0.75)], UP, max_drop=0.25)[0]
    assert judged.rows == "all"


# --- on all rows, with the interval -----------------------------------------------------------------------


def on_all(drop, low, high, passed):
    return gates.verdict_of(Judged(measured("int8", 0.8), drop, passed, low, high), 500, UP, max_drop=0.01)


def test_a_clear_verdict_on_all_rows_shows_its_interval():
    judged = on_all(0.002, -0.003, 0.007, passed=True)
    assert (judged.word, judged.is_close, judged.failed_gates) == ("passed", False, ())
    assert judged.why == "score -0.20% against torch, allowed -1.00% (-0.70% to +0.30%)"
    assert on_all(0.03, 0.02, 0.04, passed=False).why.endswith("(-4.00% to -2.00%); gate: max_drop")


@pytest.mark.parametrize(("drop", "passed", "word"), [(0.008, True, "passed, close"), (0.012, False, "refused, close")])
def test_what_all_rows_cannot_tell_is_said_with_the_rows_that_would(drop, passed, word):
    judged = on_all(drop, drop - 0.008, drop + 0.008, passed)
    assert (judged.word, judged.passed) == (word, passed)
    assert "the 500 rows do not tell: about 8,000 would)" in judged.reason  # four times as narrow: 16 times as many


def test_no_number_of_rows_tells_a_drop_of_just_the_limit():
    assert "more than 10,000 times as many would" in on_all(0.01, 0.002, 0.018, passed=True).reason


# --- further gates ----------------------------------------------------------------------------------------

COSTLY = replace(measured("int8", 1.0, latency=4.0), size_mb=23.0, agreement=Agreement(480, 500))


@pytest.mark.parametrize(
    ("limits", "gate", "number"),
    [
        (Limits(min_agreement=0.97), "min_agreement", "480 of 500 answers are torch's, 96.00% (93.90% to 97.40%)"),
        (Limits(max_latency_ms=3.5), "max_latency_ms", "p50 4.00 ms, allowed 3.5 ms"),
        (Limits(max_size_mb=20), "max_size_mb", "size 23.0 MB, allowed 20 MB"),
    ],
)
def test_a_gate_that_fails_names_itself_and_the_number(limits, gate, number):
    [judged] = gates.apply_gate({"score": 1.0}, [COSTLY], {}, UP, 0.01, limits)
    assert (judged.passed, judged.failed_gates) == (False, (gate,))
    assert judged.why.startswith(number)
    assert judged.why.endswith(f"; gate: {gate}")
    assert choose([judged]) is None


def test_all_gates_that_fail_are_named():
    limits = Limits(min_agreement=0.99, max_size_mb=1)
    [judged] = gates.apply_gate({"score": 2.0}, [COSTLY], {}, UP, 0.01, limits)
    assert judged.failed_gates == ("min_agreement", "max_size_mb", "max_drop")
    assert judged.why.endswith("; gates: min_agreement, max_size_mb, max_drop")


def test_within_every_limit_it_passes():
    [judged] = gates.apply_gate({"score": 1.0}, [COSTLY], {}, UP, 0.01, Limits(0.96, 4.0, 23.0))
    assert judged.passed
    assert judged.why == "score +0.00% against torch, allowed -1.00%"


def test_agreement_that_is_not_known_does_not_pass():
    [judged] = gates.apply_gate({"score": 1.0}, [measured("int8", 1.0)], {}, UP, 0.01, Limits(min_agreement=0.5))
    assert judged.failed_gates == ("min_agreement",)


def test_a_metric_left_open_on_some_rows_is_no_reason_where_size_is_one():
    found = Judged(replace(COSTLY, rows=32), 0.0, passed=False, low=-0.1, high=0.1)
    judged = gates.verdict_of(found, 500, UP, 0.01, Limits(max_size_mb=20))
    assert judged.failed_gates == ("max_size_mb",)
    assert judged.word == "refused"


@pytest.mark.parametrize(("prefer", "chosen"), [("latency", "a"), ("size", "b"), ("quality", "c")])
def test_what_is_preferred_of_those_that_passed(prefer, chosen):
    found = [
        replace(measured("a", 1.0, latency=1.0), size_mb=9.0, max_logit_diff=0.2),
        replace(measured("b", 1.0, latency=2.0), size_mb=1.0, max_logit_diff=math.nan),
        replace(measured("c", 1.0, latency=3.0), size_mb=5.0, max_logit_diff=0.1),
    ]
    best = choose(gates.apply_gate({"score": 1.0}, found, {}, UP, 0.01), prefer)
    assert best is not None
    assert best.variant == chosen


def test_one_that_is_larger_than_another_that_passed_needs_no_verdict_where_size_counts():
    judged = gates.verdict_of(part(passed=False, slower_than="int4"), 885, UP, max_drop=0.01, prefer="size")
    assert judged.reason.startswith("larger than int4, which passed")
