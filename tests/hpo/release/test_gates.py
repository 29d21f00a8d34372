"""Which ONNX variant may be released."""

import math
from dataclasses import replace

import pytest

from hpo.config.objective import Objective
from hpo.release import gates
from hpo.release.gates import choose
from trainers.protocol.events import Exported, Judged, Measurement

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
