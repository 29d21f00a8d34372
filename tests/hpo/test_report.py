"""A sweep as data, its leaderboard, and the sentence that says what was gained."""

import json

import pytest

from hpo.champion import ranked
from hpo.objective import Objective
from hpo.records import StudyView, TrialRecord
from hpo.report import gain, leaderboard, leaderboard_text, notes, show, variants_table, verdicts
from tests.hpo.builders import trial_result

UP, DOWN = Objective("f1_macro", "maximize"), Objective("f1_macro", "minimize")


def record(number, state="complete", value=0.5, **params):
    result = None if state == "running" else trial_result(state, value, cause="oom" if state == "failed" else None)
    return TrialRecord(number, state, params, f"identity{number}", [(0.5, 0.1)], f"run{number}", result)


CONFIG = {"task": "text-classification", "constraints": {}, "search_space": {}, "budget": {}}


def shown(*records, objective=UP, **attrs):
    view = StudyView("s", CONFIG, (objective,), list(records), {"baseline": 0, **attrs})
    return show(view, "complete")


# --- champion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "number"), [(UP, 2), (DOWN, 1)])
def test_the_champion_is_the_best_complete_trial(objective, number):
    records = [record(0, value=0.5), record(1, value=0.4), record(2, value=0.6)]
    assert ranked(records, objective, {})[0].number == number


def test_a_pruned_trial_is_never_champion():
    assert [r.number for r in ranked([record(0, value=0.5), record(1, "pruned", 0.9)], UP, {})] == [0]


def test_without_a_complete_trial_there_is_no_champion():
    assert ranked([record(0, "failed", None), record(1, "pruned"), record(2, "running")], UP, {}) == []


def test_nan_is_champion_only_when_alone():
    assert ranked([record(0, value=float("nan")), record(1, value=0.1)], UP, {})[0].number == 1


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
    header, first, second = lines[lines.index("") + 1 :]
    assert header.index("state") == first.index("complete") == second.index("complete")
    assert header.index("lora_r") == first.index("16") == second.index("8", 20)


# --- gain ----------------------------------------------------------------------------------------------


def test_no_gain_without_a_complete_trial():
    assert gain(shown(record(0, "failed", None))) == "no trial is complete yet"


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


# --- what a person should know -------------------------------------------------------------------------


def against(difference, p_value):
    return {"trial": 0, "difference": difference, "low": difference - 0.01, "high": difference + 0.01,
            "p_value": p_value, "is_beyond_noise": p_value < 0.05}  # fmt: skip


def contestant(trial, mean, *, is_baseline=False):
    repeats = [{"seed": 1, "value": mean, "metrics": {"f1_macro": mean}, "run_id": f"again{trial}"}]
    interval = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}
    return {"trial": trial, "params": {}, "is_baseline": is_baseline, "repeats": repeats, "interval": interval}


def finalists(p_value):
    return {
        "contestants": [contestant(1, 0.85), contestant(0, 0.8, is_baseline=True)], "champion": 1,
        "against_baseline": against(0.05, p_value), "against_runner_up": against(0.05, p_value),
        "test": {
            "champion": {"trial": 1, "interval": {"mean": 0.84, "low": 0.81, "high": 0.87}},
            "baseline": {"trial": 0, "interval": {"mean": 0.8, "low": 0.77, "high": 0.83}},
            "against_baseline": against(0.04, p_value),
        },
    }  # fmt: skip


@pytest.mark.parametrize(("p_value", "words"), [(0.001, "beyond noise"), (0.3, "NOT shown to be different")])
def test_whether_the_champion_beats_the_baseline_beyond_noise_is_said_plainly(p_value, words):
    given = shown(record(0, value=0.8), record(1, value=0.86), finalists=finalists(p_value))
    assert given["champion"]["value"] == 0.85
    assert given["champion"]["repeat"] == 0
    assert given["test"]["champion"]["interval"]["mean"] == 0.84
    lines = verdicts(given)
    assert sum(words in line for line in lines) == 3
    assert "sealed test: f1_macro 0.8400 (0.8100 to 0.8700), baseline 0.8000" in lines


def test_a_champion_at_the_edge_of_the_space_is_pointed_out():
    space = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True, "step": None}}
    view = StudyView("s", {**CONFIG, "search_space": space}, (UP,), [record(0, learning_rate=0.0099)], {})
    given = show(view, "complete")
    assert given["edges"] == [
        {"dimension": "learning_rate", "value": 0.0099, "bound": "high", "now": 1e-2, "try": 0.04}
    ]
    assert "learning_rate 0.0099 lies at the edge of the space: try high: 0.04" in notes(given)


def test_what_was_spent_is_told_and_reused_trials_cost_nothing():
    import dataclasses

    twin = dataclasses.replace(record(1), reused_from="0")
    view = StudyView("s", {**CONFIG, "budget": {"cost_per_hour": 2.0}}, (UP,), [record(0), twin, record(2, "running")],
                     {"spent": {"seconds": 1800.0, "gpu_seconds": 0.0}})  # fmt: skip
    assert show(view, "complete")["spent"] == {"trials": 1, "hours": 0.5, "gpu_hours": 0.0, "cost": 1.0}
    assert "spent: 1 trials trained, 0.50 hours, cost 1.00" in notes(show(view, "complete"))


def test_several_objectives_show_their_pareto_front():
    small = trial_result(value=0.5, trainable_parameters=10)
    large = trial_result(value=0.6, trainable_parameters=100)
    beaten = trial_result(value=0.4, trainable_parameters=50)
    records = [TrialRecord(n, "complete", {}, str(n), result=r) for n, r in enumerate((small, large, beaten))]
    objectives = (UP, Objective("trainable_parameters", "minimize"))
    assert show(StudyView("s", CONFIG, objectives, records, {}), "complete")["pareto_front"] == [0, 1]
    bounded = {**CONFIG, "constraints": {"trainable_parameters": 60.0}}
    assert show(StudyView("s", bounded, objectives, records, {}), "complete")["champion"]["number"] == 0
