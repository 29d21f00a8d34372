"""How MLflow's page of runs shows a sweep: which runs, columns, order and charts, as a view that its link names. Pure.

MLflow's UI keeps such views in tags of the experiment, lists them under "Views", and opens one by its key in the link.
The fields are those of MLflow 3.17; it fills in what is missing, and ignores what it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hpo.config.objective import Objective
from hpo.config.space import SearchSpace
from hpo.tracking.metric_names import safe_name
from trainers.protocol.catalog import RESOURCES

_TRAINING = "workflowType=machine_learning"
"""Without it, MLflow 3.17 opens on traces of language models."""
MOST_CHARTS = 12
"""Dimensions with a chart of their own: each takes a seventh of a screen."""
_NAME = "attributes.`Run Name`"
_STATE = "tags.`hpo.state`"
_SECTION = "hpo-comparison"
_CLOSED = ("validation", "train", "best", "Model metrics", "System metrics")
"""Sections that MLflow makes itself of all metrics: they begin closed."""


def view_tag(sweep: str) -> str:
    """The tag of an experiment that has the view of a sweep."""
    return f"mlflow.sharedViewState.{sweep}"


def link(address: str, experiment_id: str, sweep: str, *, charts: bool = False) -> str:
    """The link to a sweep's comparison on the MLflow server at `address`: its table, or its charts.

    Without an address it leads from one page of a server to another.
    """
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"{address}#/experiments/{experiment_id}/runs?{_TRAINING}&viewStateShareKey={sweep}{mode}"


def run_link(address: str, experiment_id: str, run_id: str, tab: str = "") -> str:
    """The link to the page of a run, or to one of its tabs."""
    return f"{address}#/experiments/{experiment_id}/runs/{run_id}{tab and '/'}{tab}?{_TRAINING}"


def saved_view(sweep: str, space: SearchSpace, objectives: Sequence[Objective], made_ms: int) -> str:
    """The view of a sweep's trials, best first, as MLflow's UI saves one."""
    state = {**_rows(sweep, objectives[0]), **_columns(space, objectives), **_charts(space, objectives)}
    name = f"Comparison of {sweep}"
    return json.dumps({"name": name, "createdAt": made_ms, "updatedAt": made_ms, "state": json.dumps(state)})


def _rows(sweep: str, objective: Objective) -> dict[str, Any]:
    """The trials alone: where runs are sorted by a metric, MLflow puts no run below its parent."""
    return {
        "searchFilter": f"tags.`hpo.sweep` = '{sweep}' AND tags.`hpo.kind` = 'trial'",
        "orderByKey": f"metrics.`{_best(objective)}`",
        "orderByAsc": objective.direction == "minimize",
        "startTime": "ALL", "lifecycleFilter": "Active", "modelVersionFilter": "All Runs", "datasetsFilter": [],
        "runsHiddenMode": "SHOW_ALL",
    }  # fmt: skip


def _columns(space: SearchSpace, objectives: Sequence[Objective]) -> dict[str, Any]:
    """What tells trials apart: the objectives, how they ended, and what was searched."""
    metrics = [f"metrics.`{_best(objective)}`" for objective in objectives]
    params = [f"params.`{safe_name(name)}`" for name in space.dimensions]
    shown = list(dict.fromkeys([*metrics, *params, _STATE, "metrics.`seconds`"]))
    return {"selectedColumns": shown, "columnOrder": [_NAME, *shown], "columnWidths": {_NAME: 250}}


def _charts(space: SearchSpace, objectives: Sequence[Objective]) -> dict[str, Any]:
    """All dimensions at once, the learning curves, and the objective against each dimension."""
    always = [safe_name(name) for name in space.dimensions if name not in space.conditions]
    best = [_best(objective) for objective in objectives]
    charts = [_parallel(always, best)] if always else []
    charts += [_curve(f"validation/{o.metric}") for o in objectives if o.metric not in RESOURCES]
    charts += [_curve("train/loss")]
    charts += [_scatter(name, best[0]) for name in map(safe_name, list(space.dimensions)[:MOST_CHARTS])]
    if len(best) > 1:
        charts.append(_chart(f"scatter-{best[1]}", "SCATTER", xaxis=_metric(best[1]), yaxis=_metric(best[0])))
    sections = [{"uuid": _SECTION, "name": "Comparison", "display": True, "isReordered": True}]
    sections += [{"uuid": f"hpo-{n}", "name": n, "display": False, "isReordered": False} for n in _CLOSED]
    # MLflow sorts sections by their names unless a person has moved one.
    return {"compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": True}


def _parallel(params: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """MLflow leaves a run out that lacks one of them, so conditional dimensions are none of them."""
    return _chart("parallel", "PARALLEL", selectedParams=list(params), selectedMetrics=list(metrics), showAllRuns=True)


def _curve(metric: str) -> dict[str, Any]:
    name = safe_name(metric)
    return _chart(
        f"curve-{name}", "LINE", metricKey=name, selectedMetricKeys=[name], xAxisKey="step", useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True, lineSmoothness=0, scaleType="linear", xAxisScaleType="linear", range={},
        selectedXAxisMetricKey="", yAxisKey="metric", yAxisExpressions=[], ignoreOutliers=False,
        displayName=f"{metric} over training examples",
    )  # fmt: skip


def _scatter(param: str, metric: str) -> dict[str, Any]:
    return _chart(f"scatter-{param}", "SCATTER", xaxis={"key": param, "type": "PARAM"}, yaxis=_metric(metric))


def _chart(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    common = {"uuid": f"hpo-{name}", "type": kind, "metricSectionId": _SECTION, "deleted": False, "isGenerated": False}
    return {**common, "runsCountToCompare": 100, **fields}


def _metric(name: str) -> Mapping[str, str]:
    return {"key": name, "type": "METRIC"}


def _best(objective: Objective) -> str:
    """The metric of a run that the objective is compared by; what a trial costs is one under its own name."""
    return objective.metric if objective.metric in RESOURCES else safe_name(f"best/{objective.metric}")
