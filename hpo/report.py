"""A sweep as data: what `hpo show` prints, and the leaderboard. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpo.objective import Objective
from hpo.records import StudyView, TrialRecord


def champion_of(records: Sequence[TrialRecord], objective: Objective) -> TrialRecord | None:
    """The best complete trial; pruned ones have not earned comparison."""
    complete = [
        (r.result.value, r) for r in records if r.state == "complete" and r.result and r.result.value is not None
    ]
    return min(complete, key=lambda pair: objective.sort_key(pair[0]))[1] if complete else None


def show(view: StudyView, state: str) -> dict[str, Any]:
    """The sweep as `hpo show --json` gives it."""
    champion = champion_of(view.records, view.objective)
    baseline = next((r for r in view.records if r.number == 0), None)
    return {
        "sweep": view.name,
        "state": state,
        "task": view.config["task"],
        "objective": {"metric": view.objective.metric, "direction": view.objective.direction},
        "trials": [_trial(r) for r in sorted(view.records, key=lambda r: r.number)],
        "baseline": {**_summary(baseline), "base_model": view.attrs.get("base_score")} if baseline else None,
        "champion": _summary(champion) if champion else None,
        "data": view.attrs.get("data"),
        "torch": view.attrs.get("torch"),
        "variants": view.attrs.get("variants", []),
        "release": view.attrs.get("release"),
        "refusal": view.attrs.get("refusal"),
    }


def _summary(record: TrialRecord) -> dict[str, Any]:
    result = record.result
    return {
        "number": record.number,
        "value": result.value if result else None,
        "metrics": result.metrics if result else {},
        "params": record.params,
        "run_id": record.run_id,
    }


def _trial(record: TrialRecord) -> dict[str, Any]:
    result = record.result
    return {
        "number": record.number,
        "state": record.state,
        "params": record.params,
        "metrics": result.metrics if result else {},
        "value": result.value if result else None,
        "seconds": result.seconds if result else None,
        "run_id": record.run_id,
        "cause": result.cause if result else None,
        "stopped_by": result.stopped_by if result else None,
        "curve": [[fraction, value] for fraction, value in record.curve],
    }


def leaderboard(shown: Mapping[str, Any], limit: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Column names and rows, best first, of a sweep as `show` gives it."""
    names = list(dict.fromkeys(name for trial in shown["trials"] for name in trial["params"]))
    objective = Objective(shown["objective"]["metric"], shown["objective"]["direction"])
    order = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}
    trials = sorted(
        shown["trials"],
        key=lambda t: (order[t["state"]], 0 if t["value"] is None else objective.sort_key(t["value"]), t["number"]),
    )
    rows = [
        [
            f"{t['number']}{' (baseline)' if t['number'] == 0 else ''}",
            "-" if t["value"] is None else f"{t['value']:.4f}",
            t["state"] if not t["cause"] else f"{t['state']}: {t['cause']}",
            "-" if t["seconds"] is None else f"{t['seconds']:.0f}",
            *(_cell(t["params"].get(name)) for name in names),
        ]
        for t in trials[:limit]
    ]
    return ["trial", objective.metric, "state", "seconds", *names], rows


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def gain(shown: Mapping[str, Any]) -> str:
    """One sentence: the champion against the baseline, and against the untouched base model where it has the metric."""
    champion, baseline = shown["champion"], shown["baseline"]
    metric = shown["objective"]["metric"]
    if not champion:
        return "no trial is complete"
    text = f"champion: trial {champion['number']}, {metric} {champion['value']:.4f}"
    if baseline and baseline["value"] is not None and champion["number"] != 0:
        text += f" ({champion['value'] - baseline['value']:+.4f} against the baseline's {baseline['value']:.4f})"
    elif champion["number"] == 0:
        only = len(shown["trials"]) == 1
        text += " (the default configuration)" if only else " (the baseline itself: the search found nothing better)"
    if baseline and baseline.get("base_model"):
        text += f"; the untouched base model: {baseline['base_model'][metric]:.4f}"
    return text


def variants_table(shown: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows: torch first, then every ONNX variant with its verdict."""
    metric = shown["objective"]["metric"]
    columns = ["variant", metric, "change", "logit diff", "MB", "p50 ms", "p95 ms", "tokens/s", "verdict"]
    torch = shown["torch"]
    reference = torch["metrics"][metric]
    rows = [["torch", f"{reference:.4f}", "", "", "", f"{torch['latency_p50_ms']:.1f}", "", "", "reference"]]
    for judged in shown["variants"]:
        m = judged["measurement"]
        if m is None:
            rows.append([judged["variant"], *[""] * 7, "failed"])
            continue
        change = (m["metrics"][metric] - reference) / abs(reference) if reference else 0.0
        speed = "" if m["tokens_per_second"] is None else f"{m['tokens_per_second']:.0f}"
        rows.append([
            judged["variant"], f"{m['metrics'][metric]:.4f}", f"{round(change, 4) + 0.0:+.2%}",
            f"{m['max_logit_diff']:.0e}", f"{m['size_mb']:.0f}", f"{m['latency_p50_ms']:.1f}",
            f"{m['latency_p95_ms']:.1f}", speed, "passed" if judged["passed"] else "refused",
        ])  # fmt: skip
    if not any(row[7] for row in rows):
        columns, rows = columns[:7] + columns[8:], [row[:7] + row[8:] for row in rows]
    return columns, rows


def leaderboard_text(shown: Mapping[str, Any]) -> str:
    """The leaderboard as aligned plain text, for a file."""
    columns, rows = leaderboard(shown)
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in [columns, *rows]
    ]
    return "\n".join([gain(shown), "", *lines, ""])
