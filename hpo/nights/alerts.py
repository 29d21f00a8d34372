"""What somebody should look at after a night, and which of the words of `notify.on` it was. Pure."""

from __future__ import annotations

from hpo.config.notify import Event
from hpo.nights.certificate import is_promoted
from hpo.nights.record import NightRecord

FAILED = ("failed", "missed")
"""States of a night without a result, which nobody wanted."""


def events_of(record: NightRecord) -> list[Event]:
    """What happened in a night that is over."""
    found: list[Event] = ["end"]
    if record.state in FAILED:
        found.append("failure")
    if is_promoted(record):
        found.append("promotion")
    if regressions_of(record):
        found.append("regression")
    return found


def alerts_of(record: NightRecord) -> list[str]:
    """What somebody should look at, in sentences; empty after a good night."""
    alerts = []
    if record.state in FAILED:
        alerts.append(f"the night is {record.state}" + (f": {record.reason}" if record.reason else ""))
    return [*alerts, *(f"regression: {line}" for line in regressions_of(record))]


def regressions_of(record: NightRecord) -> list[str]:
    """What the steps of a night found to be worse than before, beyond noise, in sentences."""
    swept, certified = record.facts("sweep"), record.facts("certify")
    found = [swept.get("regression"), *(certified.get("regressions") or [])]
    return list(dict.fromkeys(str(line) for line in found if line))
