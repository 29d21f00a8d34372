"""A night as people read it, out of the facts of its steps; what has not happened is absent."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.nights.afterwards import Afterwards
from hpo.nights.alerts import alerts_of
from hpo.nights.certificate import champion_of, is_promoted, measured_of, metric_of, model_of
from hpo.nights.estimates import Estimate, estimate_of
from hpo.nights.record import NightRecord, Step, StepName
from hpo.results.progress_text import duration
from trainers.protocol.codec import to_json
from trainers.protocol.counted import counted

SEATS: Mapping[str, str] = {"champion": "promoted", "waits": "waits for you", "challenger": "kept the champion"}
"""What a night came to, by the seat of its release."""
AFTERWARDS: Mapping[Afterwards, str] = {
    "approved": "waited for you and became champion later",
    "replaced": "waited for you until a later version took its place",
    "deleted": "waited for you and was deleted later",
}
"""What became of a release that waited, where it waits no more."""
STATES: Mapping[str, str] = {
    "skipped": "nothing had changed",
    "failed": "FAILED",
    "missed": "MISSED",
    "running": "not over yet",
}
_DECIDING: tuple[StepName, ...] = ("certify", "promote")
SIDES = ("train", "validation", "certify", "test")
MOST_ODDS = 1_000_000
"""Evidence grows with the number of rows without end, and says no more to anybody."""
WHO = ("old", "new", "baseline")
"""The champion before the night, the night's own model, and what its sweep began with."""


@dataclass(frozen=True)
class Passage:
    """A step, and how long it took."""

    name: StepName
    began: str
    seconds: float
    said: str


@dataclass(frozen=True)
class Story:
    """What happened in a night, in the order in which people ask."""

    name: str
    date: str
    state: str
    word: str
    """How it ended, in a few words."""
    headline: str
    """In one line; the subject of a mail."""
    is_promoted: bool
    """Whether the champion changed."""
    alerts: Sequence[str]
    changed: Sequence[str]
    """What the data has that it had not the night before."""
    answer: Sequence[str]
    """What became of the champion, and why."""
    metric: str
    measured: Sequence[tuple[str, Estimate]]
    """Old champion, new model, baseline: those that were measured, on the same rows."""
    champion: Estimate | None
    """The model that is champion in the morning, as it was measured in this night."""
    cost: str
    passages: Sequence[Passage]
    links: Mapping[str, str] = field(default_factory=dict)
    """What to open or to type for more."""

    def to_json(self) -> dict[str, Any]:
        """As `hpo nights --json` prints it."""
        return {**to_json(self), "measured": {who: to_json(found) for who, found in self.measured}}


def story_of(record: NightRecord, after: Afterwards | None = None) -> Story:
    """The story of a night, as far as it has come; `after` is what has become of its release since, if it waited."""
    facts = {step.name: step.facts for step in record.steps}
    certified = facts.get("certify", {})
    metric = metric_of(record)
    measured = [(who, found) for who in WHO if (found := measured_of(record, who))]
    word = _word(record, after)
    return Story(
        record.name, record.date, record.state, word, _headline(record, word, metric, dict(measured)),
        is_promoted(record), alerts_of(record), _changed(facts, record), _answer(record, certified, word, after),
        metric, measured, champion_of(record), _cost(facts.get("sweep", {}), record), _passages(record),
        _links(record, facts, after),
    )  # fmt: skip


def _word(record: NightRecord, after: Afterwards | None) -> str:
    if record.state != "complete":
        return STATES[record.state]
    if after in AFTERWARDS:
        return str(after)
    return SEATS.get(str(record.facts("promote").get("seat")), "nothing to decide")


def _headline(record: NightRecord, word: str, metric: str, measured: Mapping[str, Estimate]) -> str:
    parts = [f"{record.name} {record.date}: {word}"]
    new, old = measured.get("new"), measured.get("old")
    if new is not None:
        parts.append(f"{metric} {new.value:.4f}" + (f", champion before {old.value:.4f}" if old else ""))
    elif old is not None:
        parts.append(f"{metric} {old.value:.4f}")
    return "; ".join(parts)


def _changed(facts: Mapping[StepName, Mapping[str, Any]], record: NightRecord) -> list[str]:
    frozen, looked = facts.get("freeze", {}), facts.get("look", {})
    lines = []
    if frozen:
        lines.append(f"data {frozen.get('version', record.night.version)}: {_rows_in_words(frozen)}")
    for source in (frozen, looked):
        lines += [str(line) for key in ("shift", "findings", "notes") for line in source.get(key) or []]
    if stopped := looked.get("stops"):
        lines.append(f"the data stopped the night: {stopped}")
    return list(dict.fromkeys(lines))


def _rows_in_words(frozen: Mapping[str, Any]) -> str:
    """`1,200 train (+40, -2), 150 validation, 150 test rows; 3 with another label or answer`."""
    rows, added, gone, relabelled = (_counts(frozen.get(key)) for key in ("rows", "added", "gone", "relabelled"))
    parts = []
    for split, count in rows.items():
        changes = [f"{sign}{found[split]:,}" for sign, found in (("+", added), ("-", gone)) if found.get(split)]
        parts.append(f"{count:,} {split}" + (f" ({', '.join(changes)})" if changes else ""))
    other, change = sum(relabelled.values()), sum(added.values()) + sum(gone.values())
    more = f"; {other:,} with another label or answer" if other else "" if change else "; the same rows as before"
    return ", ".join(parts) + f" rows{more if added or gone else ''}" if parts else "frozen"


def _counts(value: Any) -> dict[str, int]:
    return {side: int(value[side]) for side in SIDES if side in value} if isinstance(value, Mapping) else {}


def _answer(
    record: NightRecord, certified: Mapping[str, Any], word: str, after: Afterwards | None
) -> list[str]:  # fmt: skip
    lines = [word + (f": {record.reason}" if record.reason else "")]
    if (evidence := evidence_in_words(certified)) is not None:
        lines.append(evidence)
    if isinstance(lead := certified.get("lead"), Mapping):
        spread = f"{lead.get('low', 0):+.4f} to {lead.get('high', 0):+.4f}"
        lines.append(f"tonight's model against the champion: {lead.get('difference', 0):+.4f} ({spread})")
    if (test := _test_in_words(certified)) is not None:
        lines.append(test)
    said = [_said(found, after) for step in _DECIDING if (found := record.step(step))]
    lines += [text for i, text in enumerate(said) if not any(text in later for later in said[i + 1 :])]
    if missing := certified.get("no_baseline"):
        lines.append(f"no baseline: {missing}")
    return lines + [str(line) for line in record.facts("sweep").get("not_tried") or []]


def _said(step: Step, after: Afterwards | None) -> str:
    """What came of a step, as it stands now."""
    if step.name != "promote" or after is None or after not in AFTERWARDS:
        return step.said
    return f"version {step.facts.get('version')} of {step.facts.get('model')!r} {AFTERWARDS[after]}"


def evidence_in_words(certified: Mapping[str, Any]) -> str | None:
    """`evidence 1 : 340, needed 1 : 1,250`, with what that means; None where nothing was claimed."""
    e_value, needed = _number(certified.get("e_value")), _number(certified.get("threshold"))
    if e_value is None:
        return None
    line = f"evidence {odds(e_value)}" + (f", needed {odds(needed)}" if needed else "")
    if e_value > 1:
        often = "less than" if e_value > MOST_ODDS else "at most"
        line += f" (a model that is no better gets as much in {often} 1 of {min(e_value, MOST_ODDS):,.0f} nights)"
    claims = _number(certified.get("tests_so_far"))
    return line + (f"; claim {claims:.0f} of this name" if claims else "")


def odds(e_value: float) -> str:
    """`1 : 340`; below 10 with a digit more, and above `MOST_ODDS` only that it is more."""
    if e_value > MOST_ODDS:
        return f"more than 1 : {MOST_ODDS:,}"
    return f"1 : {e_value:,.0f}" if e_value >= 10 else f"1 : {e_value:.1f}"


def _test_in_words(certified: Mapping[str, Any]) -> str | None:
    """What the sealed test showed tonight, and how often nights have read it; None where none has."""
    found, count = certified.get("test"), _number(certified.get("test_readings"))
    test = found if isinstance(found, Mapping) else {}
    values = ", ".join(f"{who} {value}" for who in ("new", "old") if (value := estimate_of(test.get(who))))
    shown = f": {test.get('metric', '')} {values}" if values else ""
    often = f"; nights of this name have read it {times(int(count))}" if count else ""
    return f"sealed test{shown or ' not read tonight'}{often}" if shown or often else None


def times(count: int) -> str:
    """`once`, or `3 times`."""
    return "once" if count == 1 else f"{count:,} times"


def _cost(swept: Mapping[str, Any], record: NightRecord) -> str:
    parts = []
    if record.ended and record.began:
        parts.append(f"{duration(seconds_between(record.began, record.ended))} in all")
    if (trials := _number(swept.get("trials"))) is not None:
        parts.append(counted(round(trials), "trial"))
    if seconds := _number(swept.get("seconds")):
        parts.append(f"{duration(seconds)} of training")
    if hours := _number(swept.get("gpu_hours")):
        parts.append(f"{hours:.2f} GPU hours")
    if (cost := _number(swept.get("cost"))) is not None:
        parts.append(f"cost {cost:.2f}")
    return ", ".join(parts)


def _passages(record: NightRecord) -> list[Passage]:
    return [Passage(step.name, step.began, seconds_between(step.began, step.ended), step.said) for step in record.steps]


def _links(
    record: NightRecord, facts: Mapping[StepName, Mapping[str, Any]], after: Afterwards | None
) -> dict[str, str]:  # fmt: skip
    if "sweep" not in facts:
        return {}
    sweep = str(facts["sweep"].get("sweep") or record.night.sweep)
    found = {"the sweep's report": f"hpo report {sweep}", "the ledger and all nights": f"hpo nights {record.name}"}
    seated = facts.get("promote", {})
    if seated.get("seat") == "waits" and after not in ("approved", "deleted"):
        found["to promote it"] = f"hpo approve {seated['model']}/{seated['version']}"
    if is_promoted(record) and seated.get("previous"):
        found["to take it back"] = f"hpo rollback {model_of(record)}"
    return found


def seconds_between(began: str, ended: str) -> float:
    """Between two ISO times; 0 where one cannot be read."""
    try:
        return max(
            0.0, (datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(began)).total_seconds()
        )
    except (ValueError, TypeError):
        return 0.0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
