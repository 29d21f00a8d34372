"""How rows have moved since an earlier night: those added and those gone, against the rows that there were"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.data.formats.base import cut
from trainers.data.passages import passages
from trainers.data.sides import hash_of
from trainers.data.splits import SPLITS, Placed
from trainers.prepare.drift import WORD, Difference, beyond_chance, longer, shares, words
from trainers.prepare.prepared import Prepared, read_given
from trainers.prepare.separation import Separation, separation
from trainers.prepare.served import SHOWN, labels_of
from trainers.prepare.served_log import Asked, asked_of
from trainers.protocol.catalog import TASKS as CATALOG
from trainers.protocol.counted import counted
from trainers.protocol.frozen_facts import Moved, NightShift, RowShift, What, frozen_sources

FALSE_ALARMS = 0.01
"""The share of nights that report a shift although nothing has moved; all comparisons of a night together."""
FEWEST = 25
"""Fewer rows on one side say nothing."""


@dataclass(frozen=True)
class _Seen:
    asked: Asked
    labels: frozenset[str]


Rows = Mapping[str, _Seen]
"""Hash of the input, or of a passage -> the row."""
_Separations = Mapping[What, Separation]
"""By what the classifier reads: the words, and the words with labels where rows have any."""


def compare_nights(made: Prepared, before: Path) -> NightShift:
    """Rows of now against those in the folder of an earlier night. Raises `DataProblem` where it cannot be read."""
    sources = frozen_sources(before, ("validation", "certify"))
    earlier = _seen(made, read_given(made.task, made.data.with_sources(sources)).splits)
    now = _seen(made, made.splits)
    stayed = _all_but(earlier, now, is_in=True)
    groups: dict[Moved, tuple[Rows, Rows]] = {
        "added": (earlier, _all_but(now, earlier)),
        "gone": (stayed, _all_but(earlier, now)),
    }
    return compare_groups(groups)


def compare_groups(groups: Mapping[Moved, tuple[Rows, Rows]]) -> NightShift:
    """What differs beyond chance in each pair of groups."""
    enough = {moved: pair for moved, pair in groups.items() if min(map(len, pair)) >= FEWEST}
    families: dict[tuple[Moved, What], list[Difference]] = {}
    separated: dict[Moved, _Separations] = {}
    for moved, (first, second) in enough.items():
        separated[moved] = _separations(first, second)
        families.update({(moved, what): found for what, found in _compared(first, second, separated[moved]).items()})
    shifts = [
        _shift(moved, what, one, separated[moved].get(what))
        for (moved, what), family in beyond_chance(families, FALSE_ALARMS).items()
        for one in family
        if what != "labelling" or _are_labels_clearer(separated[moved])
    ]
    return NightShift({moved: len(second) for moved, (_, second) in groups.items()}, shifts, _notes(shifts, groups))


def _seen(made: Prepared, splits: Mapping[str, Sequence[Placed[Any]]]) -> dict[str, _Seen]:
    found = {}
    for row in (row for split in SPLITS for row in splits[split]):
        if row.row.is_document and CATALOG[made.task.name].makes_blocks:
            for passage in passages(row.example.text):
                found[hash_of(passage.text)] = _Seen(Asked(passage.text, passage.text), frozenset())
        else:
            asked = asked_of(row.row.values, made.data.columns, made.task.name)
            found[hash_of(made.task.input_of(row))] = _Seen(asked, frozenset(labels_of(made.task, row)))
    return found


def _all_but(rows: Rows, others: Rows, *, is_in: bool = False) -> dict[str, _Seen]:
    """The rows that are not among the others; with `is_in` those that are."""
    return {key: row for key, row in rows.items() if (key in others) == is_in}


def _separations(first: Rows, second: Rows) -> _Separations:
    found: dict[What, Separation] = {"classifier": separation(_said(first), _said(second))}
    if any(row.labels for row in first.values()) and any(row.labels for row in second.values()):
        found["labelling"] = separation(_labelled(first), _labelled(second))
    return found


def _are_labels_clearer(separated: _Separations) -> bool:
    """Whether words with their labels tell the rows apart better than words alone: the same words have other labels."""
    return separated["labelling"].low > separated["classifier"].high


def _compared(first: Rows, second: Rows, separated: _Separations) -> dict[What, list[Difference]]:
    counts = [Counter(label for row in group.values() for label in row.labels) for group in (first, second)]
    lengths = [[len(row.asked.whole) for row in group.values()] for group in (first, second)]
    found: dict[What, list[Difference]] = {
        "length": [longer("characters", *lengths)],
        "label": shares(counts[0], counts[1], (len(first), len(second))),
        "word": words(_said(first), _said(second)),
    }
    by_words = separated["classifier"].auc
    for what, one in separated.items():
        before = 0.5 if what == "classifier" else by_words
        found[what] = [Difference("area under the curve", before, one.auc, one.auc - 0.5, one.p_value)]
    return found


def _said(rows: Rows) -> list[str]:
    return [row.asked.said for row in rows.values()]


def _labelled(rows: Rows) -> list[str]:
    """Each row as a text of words that end in a label: each word of the row once with each of its labels."""
    texts = []
    for row in rows.values():
        ends = [hash_of(label)[:8] for label in sorted(row.labels)]
        texts.append(" ".join(f"{word}_{end}" for word in WORD.findall(row.asked.said) for end in ends))
    return texts


def _shift(moved: Moved, what: What, one: Difference, separated: Separation | None) -> RowShift:
    bounds = (separated.low, separated.high) if separated else (None, None)
    return RowShift(moved, what, one.name, one.before, one.after, one.p_value, *bounds)


def _notes(shifts: Sequence[RowShift], groups: Mapping[Moved, tuple[Rows, Rows]]) -> list[str]:
    """The shifts in sentences; where there is none, what that means."""
    notes = [
        f"{counted(len(second), 'row is', 'rows are')} {moved}: too few to compare, {FEWEST} would do"
        for moved, (_, second) in groups.items()
        if 0 < len(second) < FEWEST
    ]
    for moved in groups:
        mine = [shift for shift in shifts if shift.rows == moved]
        notes += [_LINES[shift.what].format(r=f"rows {moved}", s=shift) for shift in mine if shift.what in _LINES]
        notes += [_label_line(shift) for shift in _largest(mine, "label")]
        notes += _word_lines(moved, [shift for shift in mine if shift.what == "word"])
    if not shifts and any(len(second) >= FEWEST for _, second in groups.values()):
        once = f"a false alarm comes about once in {1 / FALSE_ALARMS:.0f} nights"
        notes.append(f"nothing differs more than by chance ({once})")
    return notes


_LINES: Mapping[What, str] = {
    "length": "{r} have another length: their median is {s.after:g} {s.name}, and {s.before:g} for the others",
    "classifier": "a classifier tells {r} from the others: area under the curve {s.after:.2f} ({s.low:.2f} to "
    "{s.high:.2f}; 0.5 is no difference)",
    "labelling": "the same words have other labels in {r}: a classifier that reads both tells them from the others, "
    "area under the curve {s.after:.2f} ({s.low:.2f} to {s.high:.2f}; {s.before:.2f} by words alone)",
}


def _label_line(shift: RowShift) -> str:
    return f"label {cut(shift.name)}: {shift.after:.0%} of rows {shift.rows}, and {shift.before:.0%} of the others"


def _largest(shifts: Sequence[RowShift], what: What) -> list[RowShift]:
    mine = [shift for shift in shifts if shift.what == what]
    return sorted(mine, key=lambda shift: -abs(shift.after - shift.before))[:SHOWN]


def _word_lines(moved: Moved, shifts: Sequence[RowShift]) -> list[str]:
    lines = []
    for how, some in (
        ("more", [shift for shift in shifts if shift.after > shift.before]),
        ("less", [shift for shift in shifts if shift.after < shift.before]),
    ):
        shown = [f"{cut(one.name)} ({one.after:.1%}, {one.before:.1%} of the others)" for one in some[:SHOWN]]
        more = f" and {len(some) - SHOWN:,} more" if len(some) > SHOWN else ""
        if some:
            lines.append(f"words that come {how} often in rows {moved}: {', '.join(shown)}{more}")
    return lines
