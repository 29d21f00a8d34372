"""One trial in Optuna's attributes: a record written, and read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hpo.results.records import Attempt, TrialRecord
from trainers.protocol.codec import from_json, to_json, to_record
from trainers.protocol.events import TrialResult
from trainers.protocol.settings import Setting

_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
BILLION = 1_000_000_000
"""Steps of a whole budget: fits the 32 bits that a database has for one."""


class StoredTrial(NamedTuple):
    """A trial as the database has it."""

    state: str
    """Optuna's name of it."""
    params: dict[str, Setting]
    user_attrs: Mapping[str, Any]
    reports: Mapping[int, float]
    """Step, in billionths of the budget -> value."""


def billionths(fraction: float) -> int:
    """A share of the budget as Optuna's step, a whole number."""
    return round(fraction * BILLION)


def begun_of(record: TrialRecord) -> dict[str, Any]:
    """How a trial began, for one attribute: each write costs a transaction."""
    begun = {
        "number": record.number, "revision": record.revision, "identity": record.fingerprint,
        "reused_from": record.reused_from,
    }  # fmt: skip
    return {**begun, "has_gone_on": True} if record.has_gone_on else begun


def attrs_of(record: TrialRecord, *, with_curve: bool) -> dict[str, Any]:
    """What `read_trial` reads besides state, point and reports."""
    attrs = {
        "begun": begun_of(record), "run_id": record.run_id, "attempts": [to_record(a) for a in record.attempts],
        "resumed_from": record.resumed_from, "result": to_json(record.result) if record.result else None,
    }  # fmt: skip
    curve = {f"curve:{index}": list(point) for index, point in enumerate(record.curve)} if with_curve else {}
    return {name: value for name, value in {**attrs, **curve}.items() if value is not None}


def read_trials(trials: Iterable[StoredTrial], run_ids: Mapping[str, str]) -> list[TrialRecord]:
    """The trials of a study. `run_ids` has the runs that were made anew after a trial's end.

    Of a trial that was stopped and went on, Optuna has two: the later one counts.
    """
    records = {record.number: record for trial in trials if (record := read_trial(trial))}
    for number in map(int, run_ids):
        if number in records:
            records[number] = dataclasses.replace(records[number], run_id=run_ids[str(number)])
    return list(records.values())


def read_trial(trial: StoredTrial) -> TrialRecord | None:
    """None for a trial that waits, or that a kill caught before it had a number."""
    attrs = trial.user_attrs
    if trial.state == "WAITING" or "begun" not in attrs:
        return None
    begun = attrs["begun"]
    is_over = trial.state != "RUNNING"
    result = from_json(TrialResult, attrs["result"]) if is_over and attrs.get("result") else None
    return TrialRecord(
        number=begun["number"],
        state=result.state if result else _STATES[trial.state],
        params=trial.params,
        fingerprint=begun["identity"],
        curve=_curve(trial),
        run_id=attrs.get("run_id"),
        result=result,
        attempts=[from_json(Attempt, attempt) for attempt in attrs.get("attempts", [])],
        resumed_from=attrs.get("resumed_from"),
        reused_from=begun["reused_from"],
        revision=begun["revision"],
        has_gone_on=begun.get("has_gone_on", False),
    )


def _curve(trial: StoredTrial) -> list[tuple[float, float]]:
    if trial.reports:
        return [(step / BILLION, value) for step, value in sorted(trial.reports.items())]
    curve: list[tuple[float, float]] = []
    while (point := trial.user_attrs.get(f"curve:{len(curve)}")) is not None:
        curve.append((point[0], point[1]))
    return curve
