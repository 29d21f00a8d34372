"""A sweep as data, its tables, and the sentences that say what was gained and how sure that is."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hpo.config.objective import Objective
from hpo.results.finalists_text import finalists_table, verdicts
from hpo.results.leaderboard import gain, leaderboard, leaderboard_text, notes
from hpo.results.records import Attempt, StudySnapshot
from hpo.results.release_text import variant_lines, variants_name, variants_table, variants_text
from hpo.results.summary import summarize
from hpo.study.stored_state import read_state
from tests.hpo.builders import evaluation, trial_record, trial_result
from trainers.protocol.codec import to_json

UP, DOWN = Objective("f1_macro", "maximize"), Objective("f1_macro", "minimize")
SECONDS = Objective("seconds", "minimize")
SPACE = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True, "step": None},
    "lora_r": {"type": "int", "low": 4, "high": 64, "log": False, "step": 4},
    "batch_size": {"type": "choice", "values": [8, 16]},
}


def study_view(*records, objectives=(UP,), constraints=None, budget=None, space=None, pruner=None, **attrs):
    config = {
        "task": "text-classification", "constraints": constraints or {}, "budget": budget or {},
        "search_space": space or {}, "objective": [to_json(objective) for objective in objectives],
        **({"pruner": pruner} if pruner else {}),
    }  # fmt: skip
    return StudySnapshot("s", read_state({"baseline": 0, "config": config, **attrs}), list(records))


def shown(*records, objective=UP, state="complete", **changes):
    changes.setdefault("objectives", (objective,))
    return summarize(study_view(*records, **changes), state)


# --- show ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["interrupted", "failed", "complete"])
def test_a_sweep_that_nobody_runs_has_no_running_trial(state):
    given = shown(trial_record(0), trial_record(1, "running"), state=state)
    assert [trial["state"] for trial in given.to_json()["trials"]] == ["complete", "interrupted"]
    assert [row[2] for row in leaderboard(given)[1]] == ["complete", "interrupted"]


def test_trials_that_the_budget_interrupted_are_named_once_the_sweep_is_over():
    records = [trial_record(0), *(trial_record(number, "running") for number in (2, 5))]
    line = "the budget interrupted trials 2, 5: with a larger one, hpo sweep continues from the checkpoints"
    assert line in notes(shown(*records))
    assert not [said for said in notes(shown(*records, state="interrupted")) if "budget" in said]


def test_show_is_json_and_holds_every_trial_in_order():
    given = shown(
        trial_record(1, "running"), trial_record(0, value=0.5, params={"lora_r": 8}),
        trial_record(2, "failed", None, cause="oom"),
        state="running",
    )  # fmt: skip
    assert json.loads(json.dumps(given.to_json(), allow_nan=False)) == given.to_json()
    assert [trial["number"] for trial in given.to_json()["trials"]] == [0, 1, 2]
    assert [trial["state"] for trial in given.to_json()["trials"]] == ["complete", "running", "failed"]
    assert given.to_json()["trials"][2]["cause"] == "oom"
    assert given.to_json()["trials"][0]["curve"] == [[0.5, 0.1]]
    assert given.to_json()["baseline"]["params"] == {"lora_r": 8}
    assert given.to_json()["champion"]["run_id"] == "run0"


def test_a_curve_is_of_the_objective_though_the_pruner_looks_at_another_metric():
    """The study keeps what the pruner asks for."""
    both = [dataclasses.replace(evaluation(i, (i + 1) / 2, value), metrics={"f1_macro": value, "loss": 9.0})
            for i, value in enumerate((0.4, 0.5))]  # fmt: skip
    records = [
        trial_record(0, result=trial_result(evaluations=both), curve=[(0.5, 9.0), (1.0, 9.0)]),
        trial_record(1, "running", curve=[(0.5, 9.0)]),
    ]
    given = shown(*records, pruner={"type": "median", "metric": "loss"}, state="running")
    assert [trial.curve for trial in given.trials] == [[(0.5, 0.4), (1.0, 0.5)], []]
    same = shown(*records, pruner={"type": "median", "metric": "f1_macro"}, state="running")
    assert [trial.curve for trial in same.trials] == [[(0.5, 9.0), (1.0, 9.0)], [(0.5, 9.0)]]


def test_show_of_a_sweep_that_has_just_begun():
    given = shown(state="running", baseline=None)
    assert (
        given.to_json()["trials"],
        given.to_json()["baseline"],
        given.to_json()["champion"],
        given.to_json()["test"],
    ) == ([], None, None, None)
    assert given.to_json()["spent"] == {"trials": 0, "hours": 0.0, "gpu_hours": 0.0, "cost": None}
    assert gain(given) == "no trial is complete yet"
    assert notes(given)
    assert verdicts(given) == []


def test_a_trial_tells_how_it_came_about():
    attempts = [Attempt("crash", "broken", 3.0, None, 0), Attempt("oom", "full", 2.0, 8, 1)]
    first, second, third = shown(
        trial_record(0, attempts=attempts, resumed_from=12, revision=2),
        trial_record(1, "failed", None, cause="timeout", message="told nothing"),
        trial_record(2, reused_from="other/4"),
    ).to_json()["trials"]  # fmt: skip
    assert first["attempts"] == [
        {"cause": "crash", "message": "broken", "seconds": 3.0, "resumed_from": None, "halvings": 0},
        {"cause": "oom", "message": "full", "seconds": 2.0, "resumed_from": 8, "halvings": 1},
    ]
    assert (first["resumed_from"], first["revision"], first["cause"], first["stopped_by"]) == (12, 2, None, "budget")
    assert (second["cause"], second["message"], second["attempts"]) == ("timeout", "told nothing", [])
    assert (first["reused_from"], third["reused_from"]) == (None, "other/4")
    assert [t["is_baseline"] for t in (first, second, third)] == [True, False, False]


def test_what_json_has_no_words_for_is_null():
    nan, inf = float("nan"), float("inf")
    given = shown(
        trial_record(0, metrics={"f1_macro": 0.5, "loss": nan, "perplexity": inf}, curve=[(0.5, nan)]),
        base_score={"f1_macro": 0.1, "loss": -inf},
        variants=[judged("int8", max_logit_diff=nan)], torch={"metrics": {"f1_macro": 0.5}, "latency_p50_ms": 1.0},
    )  # fmt: skip
    assert json.loads(json.dumps(given.to_json(), allow_nan=False)) == given.to_json()
    assert given.to_json()["trials"][0]["metrics"] == {"f1_macro": 0.5, "loss": None, "perplexity": None}
    assert given.to_json()["trials"][0]["curve"] == [[0.5, None]]
    assert table_of(given)[1][1][3] == "nan"
    assert gain(given)
    assert leaderboard_text(given)


def test_strategy_and_revisions_are_shown():
    revisions = [{"revision": 2, "changes": [{"key": "k", "old": 1, "new": 2}], "left_out": 1}]
    strategy = {"type": "gp", "why": "because"}
    given = shown(trial_record(0), revision=2, revisions=revisions, strategy=strategy, search_ended_by="hours: 2")
    assert (given.to_json()["revision"], given.to_json()["revisions"], given.to_json()["strategy"]) == (
        2,
        revisions,
        strategy,
    )
    assert given.to_json()["search_ended_by"] == "hours: 2"
    plain = shown(trial_record(0))
    assert (plain.to_json()["revision"], plain.to_json()["revisions"], plain.to_json()["strategy"]) == (1, [], None)


def test_what_was_spent():
    records = [
        trial_record(0), trial_record(1, reused_from="0"), trial_record(2, "failed", None), trial_record(3, "running")
    ]  # fmt: skip
    used = {"seconds": 5400.0, "gpu_seconds": 1500.0, "under_way_gpu_seconds": 300.0}
    given = shown(*records, spent=used, budget={"cost_per_hour": 2.0})
    assert given.to_json()["spent"] == {"trials": 2, "hours": 1.5, "gpu_hours": 0.5, "cost": 3.0}
    assert notes(given)[-1] == "spent: 2 trials trained, 1.50 hours, 0.50 GPU hours, cost 3.00"
    assert notes(shown(*records))[-1] == "spent: 2 trials trained, 0.00 hours"
    edited = [{"revision": 2, "changes": [], "left_out": 5}, {"revision": 3, "changes": [], "left_out": 2}]
    last = notes(shown(*records, revisions=edited, spent=used))[-1]
    assert last.startswith("spent: 2 trials trained (and 7 that edits of the file left out), 1.50 hours")


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"learning_rate": 1e-2, "lora_r": 32, "batch_size": 16}, [("learning_rate", "high", 1e-2, 0.04)]),
        ({"learning_rate": 1e-3, "lora_r": 4, "batch_size": 8}, [("lora_r", "low", 4, 1)]),
        ({"learning_rate": 1.05e-4, "lora_r": 64}, [
            ("learning_rate", "low", 1e-4, 2.5e-5), ("lora_r", "high", 64, 94)]),
        ({"learning_rate": 1e-3, "lora_r": 32}, []),
    ],
)  # fmt: skip
def test_a_champion_at_the_edge_of_the_space_is_told_with_what_to_try(params, found):
    given = shown(trial_record(0, params=params), space=SPACE)
    assert [(e["dimension"], e["bound"], e["now"], e["try"]) for e in given.to_json()["edges"]] == found
    assert sum("lies at the edge of the space: try" in line for line in notes(given)) == len(found)


def test_where_the_setting_itself_ends_there_is_nothing_to_try():
    space = {"lora_dropout": {"type": "float", "low": 0.0, "high": 0.5, "log": False, "step": None}}
    assert shown(trial_record(0, params={"lora_dropout": 0.0}), space=space).edges == []
    assert len(shown(trial_record(0, params={"lora_dropout": 0.5}), space=space).edges) == 1


def test_several_objectives_have_a_front():
    records = [
        trial_record(0, value=0.5, seconds=1.0),
        trial_record(1, value=0.6, seconds=2.0),
        trial_record(2, value=0.4),
    ]
    given = shown(*records, objectives=(UP, SECONDS))
    assert given.to_json()["pareto_front"] == [0, 1]
    assert [o["metric"] for o in given.to_json()["objectives"]] == ["f1_macro", "seconds"]
    assert "Pareto front: trials 0, 1" in notes(given)
    assert shown(*records).pareto_front is None


def test_a_champion_of_one_seed_is_called_that():
    line = "the champion rests on one seed; finalists: {top: 3, seeds: 3} would tell it from luck"
    assert line in notes(shown(trial_record(0), trial_record(1)))
    assert line not in notes(shown(trial_record(0)))
    assert line not in notes(shown(trial_record(0), trial_record(1), state="running"))
    assert line not in notes(confirmed())


# --- leaderboard ---------------------------------------------------------------------------------------


def numbers(given, **kwargs):
    return [row[0].split()[0] for row in leaderboard(given, **kwargs)[1]]


def test_complete_then_pruned_then_running_then_failed():
    given = shown(
        trial_record(0, "failed", None), trial_record(1, "running"), trial_record(2, "pruned", 0.9),
        trial_record(3, value=0.1),
    )  # fmt: skip
    assert numbers(given) == ["3", "2", "1", "0"]


@pytest.mark.parametrize(("objective", "order"), [(UP, ["2", "0", "1"]), (DOWN, ["1", "0", "2"])])
def test_best_first(objective, order):
    given = shown(
        trial_record(0, value=0.5), trial_record(1, value=0.4), trial_record(2, value=0.6), objective=objective
    )
    assert numbers(given) == order
    assert numbers(given, limit=2) == order[:2]


def test_ties_keep_the_order_of_their_numbers():
    assert numbers(shown(trial_record(2), trial_record(0), trial_record(1))) == ["0", "1", "2"]


def test_a_row_has_what_a_person_compares():
    columns, rows = leaderboard(
        shown(
            trial_record(0, value=0.51234, params={"learning_rate": 0.00046, "lora_r": 8}),
            trial_record(1, "failed", None, {"lora_r": 4}, cause="oom"),
            trial_record(2, value=0.2, params={"lora_r": 8}, reused_from="0"),
        )
    )
    assert columns == ["trial", "f1_macro", "state", "seconds", "learning_rate", "lora_r"]
    assert rows == [
        ["0 (baseline)", "0.5123", "complete", "1", "0.00046", "8"],
        ["2", "0.2000", "as 0", "1", "-", "8"],
        ["1", "-", "failed: oom", "1", "-", "4"],
    ]


def test_what_exceeds_a_constraint_comes_after_what_may_be_champion_and_says_so():
    given = shown(
        trial_record(0, value=0.5), trial_record(1, value=0.9, seconds=9.0), trial_record(2, "pruned", 0.8),
        trial_record(3, value=0.9, seconds=9.0, reused_from="1"), constraints={"seconds": 5.0, "adapter_mb": 1.0},
    )  # fmt: skip
    assert numbers(given) == ["0", "1", "3", "2"]
    states = [row[2] for row in leaderboard(given)[1]]
    assert states == ["complete", "complete, over max_seconds", "as 1, over max_seconds", "pruned"]
    assert [trial["exceeds"] for trial in given.to_json()["trials"]] == [[], ["max_seconds"], [], ["max_seconds"]]
    assert given.champion.number == 0


def test_null_is_a_value_and_what_a_point_does_not_have_is_none():
    given = shown(trial_record(0, params={"neftune_noise_alpha": None}), trial_record(1, params={"lora_r": 8}))
    assert [row[4:] for row in leaderboard(given)[1]] == [["null", "-"], ["-", "8"]]


def test_the_text_is_aligned_and_begins_with_the_gain():
    text = leaderboard_text(
        shown(trial_record(0, value=0.5, params={"lora_r": 8}), trial_record(1, value=0.6, params={"lora_r": 16}))
    )
    lines = text.splitlines()
    assert lines[0].startswith("champion: trial 1")
    header, first, second = lines[lines.index("") + 1 :]
    assert header.index("state") == first.index("complete") == second.index("complete")
    assert header.index("lora_r") == first.index("16") == second.index("8", 20)


# --- gain ----------------------------------------------------------------------------------------------


def test_no_gain_without_a_complete_trial():
    assert gain(shown(trial_record(0, "failed", None))) == "no trial is complete yet"


def test_no_gain_without_a_trial_that_keeps_the_constraints():
    given = shown(trial_record(0, seconds=9.0), constraints={"seconds": 5.0})
    assert gain(given) == "no champion: no complete trial keeps the constraints"


def test_no_gain_when_every_finalist_failed():
    given = shown(trial_record(0), finalists={"identity": "x", "champion": None, "contestants": []})
    assert gain(given) == "no champion: every finalist had a training that failed"
    assert verdicts(given) == []


def test_the_gain_is_against_the_baseline():
    given = shown(trial_record(0, value=0.5), trial_record(1, value=0.6))
    assert gain(given) == "champion: trial 1, f1_macro 0.6000 (+0.1000 against the baseline's 0.5000)"


def test_the_baseline_is_the_trial_that_the_study_names():
    given = shown(trial_record(0, value=0.5), trial_record(1, value=0.6), trial_record(2, value=0.3), baseline=2)
    assert gain(given) == "champion: trial 1, f1_macro 0.6000 (+0.3000 against the baseline's 0.3000)"


def test_the_gain_of_a_minimized_metric_is_negative():
    given = shown(trial_record(0, value=0.5), trial_record(1, value=0.4), objective=DOWN)
    assert gain(given) == "champion: trial 1, f1_macro 0.4000 (-0.1000 against the baseline's 0.5000)"


def test_the_baseline_may_be_the_champion():
    given = shown(trial_record(0, value=0.5), trial_record(1, value=0.4))
    assert gain(given) == "champion: trial 0, f1_macro 0.5000 (the baseline itself: the search found nothing better)"
    assert gain(shown(trial_record(0, value=0.5))) == "champion: trial 0, f1_macro 0.5000 (the default configuration)"


@pytest.mark.parametrize(
    ("baseline", "how"),
    [
        (trial_record(0, "failed", None, cause="crash"), "failed (crash)"),
        (
            trial_record(0, "pruned", result=trial_result("pruned", 0.3, stopped_by="sweep_budget")),
            "was stopped before its end",
        ),
        (trial_record(0, "running"), "was stopped before its end"),
    ],
)
def test_a_baseline_that_was_lost_is_not_compared_with_and_that_is_said(baseline, how):
    given = shown(baseline, trial_record(1, value=0.4))
    assert gain(given) == f"champion: trial 1, f1_macro 0.4000; not compared with the baseline: trial 0 {how}"


def test_a_baseline_under_way_is_no_lost_one():
    assert gain(shown(trial_record(0, "running"), trial_record(1, value=0.4), state="running")) == (
        "champion: trial 1, f1_macro 0.4000"
    )


def test_the_untouched_base_model_is_named_where_it_has_a_score():
    given = shown(trial_record(0, value=0.5), trial_record(1, value=0.6), base_score={"f1_macro": 0.2})
    assert gain(given).endswith("(+0.1000 against the baseline's 0.5000); the untouched base model: 0.2000")


# --- finalists -----------------------------------------------------------------------------------------


def contestant(trial, *values, is_baseline=False):
    repeats = [
        {"seed": i, "value": v, "metrics": {"f1_macro": v} if v else {}, "run_id": f"{trial}-{i}",
         "cause": None if v else "oom", "seconds": 1.0}
        for i, v in enumerate(values)
    ]  # fmt: skip
    entry = {"trial": trial, "params": {}, "repeats": repeats, "is_baseline": is_baseline}
    if None not in values:
        mean = sum(values) / len(values)
        entry["interval"] = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}
    return entry


def against(trial, difference, p_value):
    return {
        "trial": trial, "difference": difference, "low": difference - 0.1, "high": difference + 0.1,
        "p_value": p_value, "is_beyond_noise": p_value < 0.05,
    }  # fmt: skip


def confirmed(champion=2, p_baseline=0.001, p_runner_up=0.4, test=True, objective=UP, is_baseline_lost=False):
    read = {
        "champion": {"trial": champion, "repeat": 0, "metrics": {}, "interval": {"mean": 0.7, "low": 0.6, "high": 0.8}},
        "baseline": {"trial": 0, "repeat": 1, "metrics": {}, "interval": {"mean": 0.5, "low": 0.4, "high": 0.6}},
        "against_baseline": against(0, 0.2, 0.03),
    }  # fmt: skip
    finalists = {
        "identity": "x", "champion": champion,
        "contestants": [contestant(1, 0.6, 0.7), contestant(2, 0.7, 0.9), contestant(3, 0.9, None),
                        contestant(0, 0.5, None if is_baseline_lost else 0.52, is_baseline=True)],
        "against_baseline": against(0, 0.3, p_baseline) if champion and not is_baseline_lost else None,
        "against_runner_up": against(1, 0.15, p_runner_up), "test": read if test else None,
    }  # fmt: skip
    return shown(*(trial_record(n) for n in range(4)), finalists=finalists, objective=objective)


def test_finalists_are_shown_with_every_repeat_and_the_interval_of_their_mean():
    given = confirmed()
    assert json.loads(json.dumps(given.to_json(), allow_nan=False)) == given.to_json()
    assert (
        given.to_json()["champion"]["number"],
        given.to_json()["champion"]["repeat"],
        given.to_json()["champion"]["value"],
    ) == (2, 1, 0.9)
    assert given.to_json()["test"]["champion"]["interval"]["mean"] == 0.7
    columns, rows = finalists_table(given.finalists, given.objective)
    assert columns == ["trial", "mean f1_macro", "95 % interval", "per seed"]
    assert rows == [
        ["2", "0.8000", "0.7500 to 0.8500", "0.7000 0.9000"],
        ["1", "0.6500", "0.6000 to 0.7000", "0.6000 0.7000"],
        ["0 (baseline)", "0.5100", "0.4600 to 0.5600", "0.5000 0.5200"],
        ["3", "-", "out: a repeat failed", "0.9000 failed"],
    ]
    assert gain(given) == "champion: trial 2, f1_macro 0.9000 (repeat 1)"


def test_the_champion_comes_first_then_the_smallest_mean_of_a_metric_to_be_minimized():
    """Means of other rows, or of fewer seeds, may be better than the champion's."""
    assert [row[0] for row in finalists_table(confirmed(objective=DOWN).finalists, DOWN)[1]] == [
        "2",
        "0 (baseline)",
        "1",
        "3",
    ]


def test_what_is_beyond_noise_and_what_is_not_is_said_plainly():
    assert verdicts(confirmed()) == [
        "over the baseline, on validation: f1_macro +0.3000 (+0.2000 to +0.4000, p 0.001), beyond noise",
        "over the runner-up (trial 1): f1_macro +0.1500 (+0.0500 to +0.2500, p 0.4), "
        "within noise: NOT shown to be different",
        "sealed test: f1_macro 0.7000 (0.6000 to 0.8000), baseline 0.5000",
        "over the baseline, on the test rows: f1_macro +0.2000 (+0.1000 to +0.3000, p 0.03), beyond noise",
    ]


def test_a_baseline_of_which_a_repeat_failed_is_said_to_be_out():
    given = confirmed(is_baseline_lost=True, test=False)
    assert verdicts(given)[0] == "not compared with the baseline: a training of it failed"


def test_a_baseline_that_won_is_said_plainly():
    given = confirmed(champion=0, test=False)
    assert verdicts(given)[0] == "no finalist is better than the baseline: the default configuration stays"


# --- variants ------------------------------------------------------------------------------------------


def judged(variant, passed=True, tokens_per_second=None, measured=True, max_logit_diff=1e-5):
    measurement = {
        "variant": variant, "metrics": {"f1_macro": 0.5}, "max_logit_diff": max_logit_diff, "size_mb": 12.34,
        "latency_p50_ms": 1.0, "latency_p95_ms": 2.0, "tokens_per_second": tokens_per_second,
    }  # fmt: skip
    return {
        "variant": variant,
        "measurement": measurement if measured else None,
        "drop": 0.0,
        "passed": passed,
        "reason": "because",
    }


def table_of(summary):
    return variants_table(summary.torch, summary.variants, "f1_macro")


def with_variants(*variants):
    torch = {"metrics": {"f1_macro": 0.5}, "latency_p50_ms": 3.0}
    return shown(trial_record(0), torch=torch, variants=list(variants))


def test_torch_is_the_first_row_and_every_variant_has_its_verdict():
    columns, rows = table_of(with_variants(judged("fp32"), judged("int8", passed=False)))
    assert [row[0] for row in rows] == ["torch", "fp32", "int8"]
    assert [row[-1] for row in rows] == ["reference", "passed", "refused"]
    assert "tokens/s" not in columns
    assert {len(row) for row in rows} == {len(columns)}


def test_variants_of_another_trial_than_the_champion_are_called_so():
    torch, refused = {"metrics": {"f1_macro": 0.5}, "latency_p50_ms": 3.0}, judged("int8", passed=False)
    given = [shown(trial_record(0, value=0.9), trial_record(3), torch=torch, variants=[refused], variants_trial=trial)
             for trial in (3, 0, None)]  # fmt: skip
    assert [variants_name(one) for one in given] == ["ONNX variants of trial 3", "ONNX variants", "ONNX variants"]
    assert variants_text(given[0].torch, given[0], "f1_macro").startswith("ONNX variants of trial 3: largest diff")


def test_what_did_not_pass_or_is_close_has_its_reason_and_its_gate():
    close, gate = {**judged("int8"), "is_close": True}, {**judged("int4", passed=False), "failed_gates": ["max_drop"]}
    lines = variant_lines(with_variants(judged("fp32"), close, gate))
    assert lines == ["int8 passed, close: because", "int4 refused: because; gate: max_drop"]


def test_tokens_per_second_are_a_column_where_they_were_measured():
    columns, rows = table_of(with_variants(judged("fp32", tokens_per_second=41.7)))
    assert rows[1][columns.index("tokens/s")] == "42"


def test_a_variant_that_could_not_be_written_has_only_its_reason():
    columns, rows = table_of(with_variants(judged("int4", passed=False, measured=False)))
    assert rows[1] == ["int4", *[""] * (len(columns) - 2), "failed"]
