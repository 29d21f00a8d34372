"""What a night's certifying step left behind, as later readers need it. Pure."""

from __future__ import annotations

from typing import Any

from hpo.nights.estimates import Estimate, estimate_of
from hpo.nights.record import NightRecord, StepName


def facts_of(record: NightRecord, name: StepName) -> dict[str, Any]:
    """The plain values that a step left; empty where it has not happened."""
    step = record.step(name)
    return step.facts if step else {}


def metric_of(record: NightRecord) -> str:
    """The metric that old and new were measured by; empty where they were not."""
    return str(facts_of(record, "certify").get("metric") or "")


def measured_of(record: NightRecord, who: str) -> Estimate | None:
    """What `old`, `new` or `baseline` measured."""
    return estimate_of(facts_of(record, "certify").get(who))


def model_of(record: NightRecord) -> str:
    """The name of the released model: the night's own unless its facts name another."""
    return str(facts_of(record, "certify").get("model") or record.name)


def is_promoted(record: NightRecord) -> bool:
    """Whether a night gave the alias of the champion to another version."""
    is_decided = facts_of(record, "certify").get("decision") == "promote"
    return record.state == "complete" and bool(facts_of(record, "promote").get("promoted", is_decided))


def champion_of(record: NightRecord) -> Estimate | None:
    """Who is champion in the morning, as it was measured in that night."""
    old, new = measured_of(record, "old"), measured_of(record, "new")
    return new if is_promoted(record) else old or new
