"""The view in which MLflow's page of runs opens on a sweep."""

from __future__ import annotations

import json

from hpo.tracking.comparison import MOST_CHARTS, link, run_link, saved_view, view_tag
from tests.hpo.builders import RATE, make_config

SPACE = {
    **RATE,
    "method": {"type": "choice", "values": ["lora", "dora"]},
    "lora_dropout": {"type": "choice", "values": [0.0, 0.1], "when": {"method": "dora"}},
}


def view_of(folder, **changes):
    config = make_config(folder, **changes)
    saved = json.loads(saved_view("seen", config.space, config.objectives, 5))
    assert (saved["name"], saved["createdAt"], saved["updatedAt"]) == ("Comparison of seen", 5, 5)
    return json.loads(saved["state"])


def test_trials_alone_best_first_with_the_columns_that_differ(tmp_path):
    view = view_of(tmp_path, search_space=SPACE)
    assert view["searchFilter"] == "tags.`hpo.sweep` = 'seen' AND tags.`hpo.kind` = 'trial'"
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`best/f1_macro`", False)
    assert view["selectedColumns"] == [
        "metrics.`best/f1_macro`", "params.`learning_rate`", "params.`method`", "params.`lora_dropout`",
        "tags.`hpo.state`", "metrics.`seconds`",
    ]  # fmt: skip
    assert view_of(tmp_path, objective={"metric": "loss"})["orderByAsc"] is True


def test_all_dimensions_at_once_then_curves_then_each_dimension(tmp_path):
    charts = view_of(tmp_path, search_space=SPACE)["compareRunCharts"]
    assert [chart["type"] for chart in charts] == ["PARALLEL", "LINE", "LINE", "SCATTER", "SCATTER", "SCATTER"]
    assert charts[0]["selectedParams"] == ["learning_rate", "method"]  # a run without one of them would be left out
    assert charts[1]["metricKey"] == "validation/f1_macro"
    assert {chart["xaxis"]["key"] for chart in charts[3:]} == set(SPACE)
    assert len({chart["uuid"] for chart in charts}) == len(charts)


def test_what_a_trial_costs_as_an_objective_is_a_metric_of_its_own(tmp_path):
    view = view_of(tmp_path, search_space=RATE, objective=[{"metric": "f1_macro"}, {"metric": "adapter_mb"}])
    assert view["selectedColumns"][:2] == ["metrics.`best/f1_macro`", "metrics.`adapter_mb`"]
    assert [c["metricKey"] for c in view["compareRunCharts"] if c["type"] == "LINE"] == [
        "validation/f1_macro", "train/loss",
    ]  # fmt: skip
    assert view["compareRunCharts"][-1]["xaxis"] == {"key": "adapter_mb", "type": "METRIC"}


def test_a_sweep_without_a_space_has_its_curves(tmp_path):
    assert [chart["type"] for chart in view_of(tmp_path)["compareRunCharts"]] == ["LINE", "LINE"]


def test_a_view_fits_into_a_tag_of_any_server(tmp_path):
    names = ("learning_rate", "weight_decay", "warmup_ratio", "lora_dropout", "max_grad_norm", "lora_alpha")
    config = make_config(tmp_path, search_space={name: {"type": "choice", "values": [1e-3, 2e-3]} for name in names})
    assert len(names) <= MOST_CHARTS
    assert len(saved_view("s" * 100, config.space, config.objectives, 1 << 41)) < 10_000


def test_links():
    at = "http://127.0.0.1:5000/"
    table = f"{at}#/experiments/3/runs?workflowType=machine_learning&viewStateShareKey=seen"
    assert link(at, "3", "seen") == table
    assert link(at, "3", "seen", charts=True) == f"{table}&compareRunsMode=CHART"
    assert run_link("", "3", "ab", "artifacts/report.html").startswith("#/experiments/3/runs/ab/artifacts/report.html?")
    assert view_tag("seen") == "mlflow.sharedViewState.seen"
