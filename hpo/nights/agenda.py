"""Which nights a call has to run, continue or close, so that none is lost and their order is kept. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Literal

from hpo.config.nightly import Missed
from hpo.nights.night import Night, nights_between
from hpo.nights.record import NightRecord

MOST_MISSED = 366
"""Nights in a row that are noted as missed: a longer gap is a clock that was wrong."""


@dataclass(frozen=True)
class Due:
    """A night, and what becomes of it."""

    night: Night
    what: Literal["run", "finish", "close"]
    """`run` continues at the step that it was in, or that failed; `finish` does what comes after its end; `close` ends
    it as missed."""
    why: str = ""
    is_reported: bool = True
    """Whether somebody hears of a night that no call came to: of several in a row, only the last one is reported."""


def agenda(
    records: Sequence[NightRecord], tonight: Night, missed: Missed, ends: Callable[[Night], datetime.datetime],
    now: datetime.datetime, *, always: bool = False,
) -> list[Due]:  # fmt: skip
    """What is due, the earliest night first, and tonight's last.

    `records` are all of this name; those of later dates, which a wrong clock left, count for nothing. `ends` is when a
    night's window is over. `always` is a person's wish to run tonight's sweep although nothing has changed.
    """
    known = {record.night: record for record in records if record.night <= tonight}
    past = [_of_past(night, known, missed) for night in _nights(sorted(known), tonight)]
    found = _with_reports([due for due in past if due], known)
    own = _of_tonight(tonight, known.get(tonight), missed, ends(tonight), now, always=always)
    return [*found, own] if own else found


def is_settled(record: NightRecord) -> bool:
    """Whether nothing of a night is left to do: it has ended, and whoever waits for it knows."""
    return record.is_over and (record.step("signal") is not None or not (record.began or record.steps))


def has_result(record: NightRecord) -> bool:
    """Whether its sweep has ended, so that what is left is about its release."""
    return record.step("sweep") is not None


def _nights(known: Sequence[Night], tonight: Night) -> list[Night]:
    """Every night from the first that is known to the one before tonight."""
    found = list(known)
    for earlier, later in pairwise([*known, tonight]):
        found += nights_between(earlier, later)[-MOST_MISSED:]
    return sorted(night for night in found if night < tonight)


def _with_reports(found: Sequence[Due], known: Mapping[Night, NightRecord]) -> list[Due]:
    """The same, where the last night of each gap speaks for all of it."""
    reported: list[Due] = []
    silent = 0
    for due, later in zip_longest(found, found[1:]):
        if not _is_gap(due, known):
            reported.append(due)
        elif later is not None and _is_gap(later, known) and not nights_between(due.night, later.night):
            reported.append(replace(due, is_reported=False))
            silent += 1
        else:
            before = f", nor the {'one' if silent == 1 else f'{silent:,}'} before it" if silent else ""
            reported.append(replace(due, why=due.why + before))
            silent = 0
    return reported


def _is_gap(due: Due, known: Mapping[Night, NightRecord]) -> bool:
    return due.what == "close" and due.night not in known


def _of_past(night: Night, known: dict[Night, NightRecord], missed: Missed) -> Due | None:
    record = known.get(night)
    if record is None:
        is_last = night > max(known)
        return Due(night, "run") if missed == "all" and is_last else Due(night, "close", "no call began this night")
    if record.is_over:
        return None if is_settled(record) else Due(night, "finish")
    if has_result(record) or missed == "all":
        return Due(night, "run")
    return Due(night, "close", "it was cut short without a result, and a later night has begun")


def _of_tonight(
    night: Night, record: NightRecord | None, missed: Missed, end: datetime.datetime, now: datetime.datetime, *,
    always: bool,
) -> Due | None:  # fmt: skip
    is_late = missed == "skip" and now >= end
    over = f"its window was over at {end.astimezone(now.tzinfo):%H:%M}"
    if record is None:
        return Due(night, "close", f"{over}, before a call came") if is_late else Due(night, "run")
    was_never_begun = record.state == "missed" and not record.began  # said by a clock that was ahead
    is_wanted = always and record.state == "skipped"
    if (record.state == "failed" or was_never_begun or is_wanted) and not is_late:
        return Due(night, "run")
    if record.is_over:
        return None if is_settled(record) else Due(night, "finish")
    if is_late and not has_result(record):
        return Due(night, "close", f"{over}, before it had a result")
    return Due(night, "run")
