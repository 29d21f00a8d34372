"""A sweep as data: what `hpo show` prints, and the leaderboard. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hpo.config.budget import Budget, Spent
from hpo.config.dimensions import Choice, edge, wider
from hpo.config.objective import Objective, gate_of
from hpo.config.space import from_resolved
from hpo.results.champion import Champion, choose_champion, front
from hpo.results.diagnosis import Advice, advice, collected, knobs
from hpo.results.records import StudySnapshot, TrialRecord
from trainers.protocol.codec import from_json, to_json
from trainers.protocol.settings import FIELDS


def show(view: StudySnapshot, state: str) -> dict[str, Any]:
    """The sweep as `hpo show --json` gives it."""
    attrs, records = view.attrs, sorted(view.records, key=lambda r: r.number)
    constraints = view.config["constraints"]
    finalists = attrs.get("finalists")
    champion = choose_champion(records, view.objective, constraints, finalists)
    baseline = next((r for r in records if r.number == attrs.get("baseline")), None)
    shown = {
        "sweep": view.name,
        "state": state,
        "task": view.config["task"],
        "objective": to_json(view.objective),
        "objectives": [to_json(objective) for objective in view.objectives],
        "strategy": attrs.get("strategy"),
        "revision": attrs.get("revision", 1),
        "revisions": attrs.get("revisions", []),
        "trials": [_trial(r, baseline, view, is_under_way=state != "interrupted") for r in records],
        "baseline": {**_summary(baseline), "base_model": attrs.get("base_score")} if baseline else None,
        "champion": to_json(champion) if champion else None,
        "pareto_front": front(records, view.objectives, constraints) if len(view.objectives) > 1 else None,
        "edges": edges(champion, view.config["search_space"]) if champion else [],
        "finalists": finalists,
        "test": (finalists or {}).get("test"),
        "spent": spent(records, view.config["budget"], attrs),
        "search_ended_by": attrs.get("search_ended_by"),
        "data": attrs.get("data"),
        "torch": attrs.get("torch"),
        "variants": attrs.get("variants", []),
        "release": attrs.get("release"),
        "refusal": attrs.get("refusal"),
    }
    return {name: _finite(value) for name, value in shown.items()}


def _finite(value: Any) -> Any:
    """A value without the numbers that JSON has no words for: a metric beside the objective may be NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spent(records: Sequence[TrialRecord], budget: Mapping[str, Any], attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What the sweep has used: trials trained, wall time, GPU time, money."""
    used = from_json(Spent, attrs.get("spent", {}))
    return {
        "trials": sum(r.is_over and not r.reused_from for r in records),
        "hours": used.seconds / 3600,
        "gpu_hours": used.gpu_seconds / 3600,
        "cost": used.cost(from_json(Budget, budget)),
    }


def edges(champion: Champion, space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Dimensions in which the champion lies at the edge of the space, with the wider bound to try."""
    found = []
    for name, dimension in from_resolved(space).dimensions.items():
        if isinstance(dimension, Choice) or name not in champion.params:
            continue
        if end := edge(dimension, champion.params[name]):
            bound = "low" if end == "lower" else "high"
            further = wider(dimension, end, FIELDS[name])
            if further is not None:  # None where the setting itself ends there
                found.append({"dimension": name, "value": champion.params[name], "bound": bound,
                              "now": getattr(dimension, bound), "try": further})  # fmt: skip
    return found


def _summary(record: TrialRecord) -> dict[str, Any]:
    result = record.result
    return {
        "number": record.number,
        "value": result.value if result else None,
        "metrics": result.metrics if result else {},
        "params": record.params,
        "run_id": record.run_id,
    }


def _trial(
    record: TrialRecord, baseline: TrialRecord | None, view: StudySnapshot, *, is_under_way: bool
) -> dict[str, Any]:
    result = record.result
    # The study keeps an interrupted trial as running: it will go on under its number.
    state = "interrupted" if record.state == "running" and not is_under_way else record.state
    return {
        **_summary(record),
        "state": state,
        "is_baseline": record is baseline,
        "revision": record.revision,
        "seconds": result.seconds if result else None,
        "trainable_parameters": result.trainable_parameters if result else None,
        "adapter_mb": result.adapter_mb if result else None,
        "cause": result.cause if result else None,
        "message": result.message if result else "",
        "stopped_by": result.stopped_by if result else None,
        "attempts": [to_json(attempt) for attempt in record.attempts],
        "resumed_from": record.resumed_from,
        "reused_from": record.reused_from,
        "curve": [[fraction, value] for fraction, value in record.curve],
        "advice": [to_json(one) for one in _advice(record, view)],
    }


def _advice(record: TrialRecord, view: StudySnapshot) -> list[Advice]:
    if record.result is None or record.is_duplicate:
        return []
    has = knobs(view.config, record.params, view.attrs.get("budget_setting"))
    return advice(record.result, view.objective, has)


def leaderboard(shown: Mapping[str, Any], limit: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Column names and rows, best first, of a sweep as `show` gives it."""
    names = list(dict.fromkeys(name for trial in shown["trials"] for name in trial["params"]))
    objective = Objective(shown["objective"]["metric"], shown["objective"]["direction"])
    order = {"complete": 0, "pruned": 1, "running": 2, "interrupted": 2, "failed": 3}
    trials = sorted(
        shown["trials"],
        key=lambda t: (order[t["state"]], 0 if t["value"] is None else objective.sort_key(t["value"]), t["number"]),
    )
    rows = [
        [
            f"{t['number']}{' (baseline)' if t['is_baseline'] else ''}",
            "-" if t["value"] is None else f"{t['value']:.4f}",
            _state(t),
            "-" if t["seconds"] is None else f"{t['seconds']:.0f}",
            *(_cell(t["params"].get(name)) for name in names),
        ]
        for t in trials[:limit]
    ]
    return ["trial", objective.metric, "state", "seconds", *names], rows


def _state(trial: Mapping[str, Any]) -> str:
    if trial["reused_from"]:
        return f"as {trial['reused_from']}"
    return f"{trial['state']}: {trial['cause']}" if trial["cause"] else str(trial["state"])


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def gain(shown: Mapping[str, Any]) -> str:
    """One sentence: the champion against the baseline, and against the untouched base model where it has the metric."""
    champion, baseline = shown["champion"], shown["baseline"]
    metric = shown["objective"]["metric"]
    if not champion:
        if shown["finalists"]:
            return "no champion: every finalist failed with some seed"
        complete = any(t["state"] == "complete" for t in shown["trials"])
        return "no champion: no complete trial keeps the constraints" if complete else "no trial is complete yet"
    is_baseline = bool(baseline) and champion["number"] == baseline["number"]
    text = f"champion: trial {champion['number']}, {metric} {champion['value']:.4f}"
    if champion["repeat"] is not None:
        text += f" (repeat {champion['repeat']})"
    elif baseline and baseline["value"] is not None and not is_baseline:
        text += f" ({champion['value'] - baseline['value']:+.4f} against the baseline's {baseline['value']:.4f})"
    if is_baseline:
        only = len(shown["trials"]) == 1
        text += " (the default configuration)" if only else " (the baseline itself: the search found nothing better)"
    if baseline and baseline.get("base_model"):
        text += f"; the untouched base model: {baseline['base_model'][metric]:.4f}"
    return text


def finalists_table(shown: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows, best mean first."""
    metric = shown["objective"]["metric"]
    objective = Objective(metric, shown["objective"]["direction"])
    entries = sorted(
        shown["finalists"]["contestants"],
        key=lambda c: objective.sort_key(c["interval"]["mean"]) if "interval" in c else math.inf,
    )
    rows = []
    for entry in entries:
        name = f"{entry['trial']}{' (baseline)' if entry['is_baseline'] else ''}"
        each = " ".join("failed" if r["value"] is None else f"{r['value']:.4f}" for r in entry["repeats"])
        if "interval" not in entry:
            rows.append([name, "-", "out: a repeat failed", each])
            continue
        found = entry["interval"]
        rows.append([name, f"{found['mean']:.4f}", f"{found['low']:.4f} to {found['high']:.4f}", each])
    return ["trial", f"mean {metric}", "95 % interval", "per seed"], rows


def verdicts(shown: Mapping[str, Any]) -> list[str]:
    """What the repeats and the sealed test say, in sentences."""
    finalists, metric = shown["finalists"], shown["objective"]["metric"]
    if not finalists or finalists["champion"] is None:
        return []
    lines = []
    if against := finalists["against_baseline"]:
        lines.append(_verdict("over the baseline, on validation", against, metric))
    elif any(c["is_baseline"] and c["trial"] == finalists["champion"] for c in finalists["contestants"]):
        lines.append("no finalist is better than the baseline: the default configuration stays")
    if against := finalists["against_runner_up"]:
        lines.append(_verdict(f"over the runner-up (trial {against['trial']})", against, metric))
    if test := shown["test"]:
        lines += _test_verdicts(test, metric)
    return lines


def _test_verdicts(test: Mapping[str, Any], metric: str) -> list[str]:
    found = test["champion"]["interval"]
    lines = [f"sealed test: {metric} {found['mean']:.4f} ({found['low']:.4f} to {found['high']:.4f})"]
    if "baseline" in test:
        lines[0] += f", baseline {test['baseline']['interval']['mean']:.4f}"
        lines.append(_verdict("over the baseline, on the test rows", test["against_baseline"], metric))
    return lines


def _verdict(over: str, against: Mapping[str, Any], metric: str) -> str:
    numbers = (
        f"{metric} {against['difference']:+.4f} ({against['low']:+.4f} to {against['high']:+.4f}, "
        f"p {against['p_value']:.2g})"
    )
    word = "beyond noise" if against["is_beyond_noise"] else "within noise: NOT shown to be different"
    return f"{over}: {numbers}, {word}"


def notes(shown: Mapping[str, Any]) -> list[str]:
    """What a person should know before believing the table."""
    lines = [
        f"{e['dimension']} {_cell(e['value'])} lies at the edge of the space: try {e['bound']}: {e['try']:g}"
        for e in shown["edges"]
    ]
    if shown["champion"] and not shown["finalists"] and len(shown["trials"]) > 1 and shown["state"] == "complete":
        lines.append("the champion rests on one seed; finalists: {top: 3, seeds: 3} would tell it from luck")
    lines += collected(shown["trials"])
    if shown["pareto_front"]:
        lines.append(f"Pareto front: trials {', '.join(map(str, shown['pareto_front']))}")
    used = shown["spent"]
    cost = f", cost {used['cost']:.2f}" if used["cost"] is not None else ""
    gpu = f", {used['gpu_hours']:.2f} GPU hours" if used["gpu_hours"] else ""
    lines.append(f"spent: {used['trials']} trials trained, {used['hours']:.2f} hours{gpu}{cost}")
    return lines


def variants_table(shown: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows: torch first, then every ONNX variant with its verdict."""
    metric = gate_of(shown["task"], Objective(**shown["objective"])).metric
    columns = ["variant", metric, "change", "logit diff", "MB", "p50 ms", "p95 ms", "tokens/s", "verdict"]
    torch = shown["torch"]
    reference = torch["metrics"][metric]
    rows = [["torch", f"{reference:.4f}", "", "", "", f"{torch['latency_p50_ms']:.1f}", "", "", "reference"]]
    for judged in shown["variants"]:
        m = judged["measurement"]
        if m is None:
            rows.append([judged["variant"], *[""] * 7, "failed"])
            continue
        found = m["metrics"][metric]
        change = (found - reference) / abs(reference) if reference and found is not None else 0.0
        speed = "" if m["tokens_per_second"] is None else f"{m['tokens_per_second']:.0f}"
        rows.append([
            judged["variant"], _number(found, ".4f"), f"{round(change, 4) + 0.0:+.2%}",
            _number(m["max_logit_diff"], ".0e"), f"{m['size_mb']:.0f}", f"{m['latency_p50_ms']:.1f}",
            f"{m['latency_p95_ms']:.1f}", speed, "passed" if judged["passed"] else "refused",
        ])  # fmt: skip
    if not any(row[7] for row in rows):
        columns, rows = columns[:7] + columns[8:], [row[:7] + row[8:] for row in rows]
    return columns, rows


def _number(value: float | None, form: str) -> str:
    return "nan" if value is None else format(value, form)


def leaderboard_text(shown: Mapping[str, Any]) -> str:
    """The leaderboard as aligned plain text, for a file."""
    columns, rows = leaderboard(shown)
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in [columns, *rows]
    ]
    return "\n".join([gain(shown), *verdicts(shown), *notes(shown), "", *lines, ""])
