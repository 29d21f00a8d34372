"""What a night's certifying step left behind, as later readers need it. Pure."""

from __future__ import annotations

from hpo.nights.estimates import Estimate, estimate_of
from hpo.nights.record import NightRecord


def metric_of(record: NightRecord) -> str:
    """The metric that old and new were measured by; empty where they were not."""
    return str(record.facts("certify").get("metric") or "")


def measured_of(record: NightRecord, who: str) -> Estimate | None:
    """What `old`, `new` or `baseline` measured."""
    return estimate_of(record.facts("certify").get(who))


def model_of(record: NightRecord) -> str:
    """The name of the released model: the night's own unless its facts name another."""
    return str(record.facts("certify").get("model") or record.name)


def is_promoted(record: NightRecord) -> bool:
    """Whether a night gave the alias of the champion to another version."""
    return bool(record.facts("promote").get("promoted"))  # also where a later step failed: the alias has moved


def champion_of(record: NightRecord) -> Estimate | None:
    """Who is champion in the morning, as it was measured in that night."""
    old, new = measured_of(record, "old"), measured_of(record, "new")
    return new if is_promoted(record) else old
