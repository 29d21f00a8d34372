"""A sweep as data, its leaderboard, and the sentence that says what was gained."""

import json

import pytest

from hpo.objective import Objective
from hpo.records import StudyView, TrialRecord
from hpo.report import champion_of, gain, leaderboard, leaderboard_text, show, variants_table
from tests.hpo.builders import trial_result

UP, DOWN = Objective("f1_macro", "maximize"), Objective("f1_macro", "minimize")


def record(number, state="complete", value=0.5, **params):
    result = None if state == "running" else trial_result(state, value, cause="oom" if state == "failed" else None)
    return TrialRecord(number, state, params, [(0.5, 0.1)], f"run{number}", result)


def shown(*records, objective=UP, **attrs):
    view = StudyView("s", {"task": "text-classification"}, objective, list(records), attrs)
    return show(view, "complete")


# --- champion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "number"), [(UP, 2), (DOWN, 1)])
def test_the_champion_is_the_best_complete_trial(objective, number):
    records = [record(0, value=0.5), record(1, value=0.4), record(2, value=0.6)]
    assert champion_of(records, objective).number == number


def test_a_pruned_trial_is_never_champion():
    assert champion_of([record(0, value=0.5), record(1, "pruned", 0.9)], UP).number == 0


def test_without_a_complete_trial_there_is_no_champion():
    assert champion_of([record(0, "failed", None), record(1, "pruned"), record(2, "running")], UP) is None


def test_nan_is_champion_only_when_alone():
    assert champion_of([record(0, value=float("nan")), record(1, value=0.1)], UP).number == 1


# --- show ----------------------------------------------------------------------------------------------


def test_show_is_json_and_holds_every_trial_in_order():
    given = shown(record(1, "running"), record(0, value=0.5, lora_r=8), record(2, "failed", None))
    assert json.loads(json.dumps(given)) == given
    assert [trial["number"] for trial in given["trials"]] == [0, 1, 2]
    assert [trial["state"] for trial in given["trials"]] == ["complete", "running", "failed"]
    assert given["trials"][2]["cause"] == "oom"
    assert given["trials"][0]["curve"] == [[0.5, 0.1]]
    assert given["baseline"]["params"] == {"lora_r": 8}
    assert given["champion"]["run_id"] == "run0"


def test_show_of_a_sweep_that_has_just_begun():
    given = shown()
    assert (given["trials"], given["baseline"], given["champion"]) == ([], None, None)


# --- leaderboard ---------------------------------------------------------------------------------------


def numbers(given, **kwargs):
    return [row[0].split()[0] for row in leaderboard(given, **kwargs)[1]]


def test_complete_then_pruned_then_running_then_failed():
    given = shown(record(0, "failed", None), record(1, "running"), record(2, "pruned", 0.9), record(3, value=0.1))
    assert numbers(given) == ["3", "2", "1", "0"]


@pytest.mark.parametrize(("objective", "order"), [(UP, ["2", "0", "1"]), (DOWN, ["1", "0", "2"])])
def test_best_first(objective, order):
    given = shown(record(0, value=0.5), record(1, value=0.4), record(2, value=0.6), objective=objective)
    assert numbers(given) == order
    assert numbers(given, limit=2) == order[:2]


def test_ties_keep_the_order_of_their_numbers():
    assert numbers(shown(record(2), record(0), record(1))) == ["0", "1", "2"]


def test_a_row_has_what_a_person_compares():
    columns, rows = leaderboard(
        shown(record(0, value=0.51234, learning_rate=0.00046, lora_r=8), record(1, "failed", None, lora_r=4))
    )
    assert columns == ["trial", "f1_macro", "state", "seconds", "learning_rate", "lora_r"]
    assert rows == [
        ["0 (baseline)", "0.5123", "complete", "1", "0.00046", "8"],
        ["1", "-", "failed: oom", "1", "-", "4"],
    ]


def test_the_text_is_aligned_and_begins_with_the_gain():
    lines = leaderboard_text(shown(record(0, value=0.5, lora_r=8), record(1, value=0.6, lora_r=16))).splitlines()
    assert lines[0].startswith("champion: trial 1")
    header, first, second = lines[2:]
    assert header.index("state") == first.index("complete") == second.index("complete")
    assert header.index("lora_r") == first.index("16") == second.index("8", 20)


# --- gain ----------------------------------------------------------------------------------------------


def test_no_gain_without_a_complete_trial():
    assert gain(shown(record(0, "failed", None))) == "no trial is complete"


def test_the_gain_is_against_the_baseline():
    given = shown(record(0, value=0.5), record(1, value=0.6))
    assert gain(given) == "champion: trial 1, f1_macro 0.6000 (+0.1000 against the baseline's 0.5000)"


def test_the_gain_of_a_minimized_metric_is_negative():
    given = shown(record(0, value=0.5), record(1, value=0.4), objective=DOWN)
    assert gain(given) == "champion: trial 1, f1_macro 0.4000 (-0.1000 against the baseline's 0.5000)"


def test_the_baseline_may_be_the_champion():
    given = shown(record(0, value=0.5), record(1, value=0.4))
    assert gain(given) == "champion: trial 0, f1_macro 0.5000 (the baseline itself: the search found nothing better)"


def test_a_failed_baseline_is_not_compared_with():
    given = shown(record(0, "failed", None), record(1, value=0.4))
    assert gain(given) == "champion: trial 1, f1_macro 0.4000"


def test_the_untouched_base_model_is_named_where_it_has_a_score():
    given = shown(record(0, value=0.5), record(1, value=0.6), base_score={"f1_macro": 0.2})
    assert gain(given).endswith("(+0.1000 against the baseline's 0.5000); the untouched base model: 0.2000")


# --- variants ------------------------------------------------------------------------------------------


def judged(variant, passed=True, tokens_per_second=None, measured=True):
    measurement = {
        "metrics": {"f1_macro": 0.5}, "max_logit_diff": 1e-5, "size_mb": 12.34, "latency_p50_ms": 1.0,
        "latency_p95_ms": 2.0, "tokens_per_second": tokens_per_second,
    }  # fmt: skip
    return {
        "variant": variant,
        "measurement": measurement if measured else None,
        "passed": passed,
        "reason": "because",
    }


def with_variants(*variants):
    torch = {"metrics": {"f1_macro": 0.5}, "latency_p50_ms": 3.0}
    return shown(record(0), torch=torch, variants=list(variants))


def test_torch_is_the_first_row_and_every_variant_has_its_verdict():
    columns, rows = variants_table(with_variants(judged("fp32"), judged("int8", passed=False)))
    assert [row[0] for row in rows] == ["torch", "fp32", "int8"]
    assert [row[-1] for row in rows] == ["reference", "passed", "refused"]
    assert "tokens/s" not in columns
    assert {len(row) for row in rows} == {len(columns)}


def test_tokens_per_second_are_a_column_where_they_were_measured():
    columns, rows = variants_table(with_variants(judged("fp32", tokens_per_second=41.7)))
    assert rows[1][columns.index("tokens/s")] == "42"


def test_a_variant_that_could_not_be_written_has_only_its_reason():
    columns, rows = variants_table(with_variants(judged("int4", passed=False, measured=False)))
    assert rows[1] == ["int4", *[""] * (len(columns) - 2), "failed"]
