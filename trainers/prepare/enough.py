"""Why a split has no rows: the step that removed them, and the setting that would keep some. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainers.data.splits import SPLITS
from trainers.protocol.counted import counted
from trainers.protocol.events import Finding
from trainers.protocol.trial_spec import DataRef


@dataclass(frozen=True)
class Counts:
    """The number of rows that each step of the preparation leaves."""

    given: Mapping[str, int]
    """Valid rows of every split that the data names."""
    repeats: Sequence[tuple[str, str]]
    """(split of a row that was dropped as a duplicate, split of the row that is kept)."""
    cut: Mapping[str, int]
    """Rows of train, validation and test."""
    strata: int
    """Different strata (labels, for example) among the training rows before they are split."""
    are_documents: bool
    """Whether the training rows are running text; sizes from 1 on then count documents."""
    learned: Mapping[str, int]
    """Rows with something to learn, for every split with rows that could be tokenized."""


def why_empty(counts: Counts, data: DataRef, learns_uncut: Callable[[str], bool]) -> list[Finding]:
    """A finding for each reason why splits are empty.

    `learns_uncut` says whether a split would have something to learn with a larger `max_length`.
    """
    splits: dict[tuple[str, str, str], list[str]] = {}
    for name in SPLITS:
        if counts.cut[name] == 0:
            reason = _all_gone(name, counts) if name in counts.given else _not_cut_off(name, counts, data)
        elif counts.learned.get(name) == 0:
            reason = _nothing_to_learn(counts.cut[name], learns_uncut(name))
        else:
            continue
        splits.setdefault(reason, []).append(name)
    return [
        Finding(key or f"data.{names[0]}", f"no rows left for {' and '.join(names)}: {why}", expected)
        for (key, why, expected), names in splits.items()
    ]


def _all_gone(split: str, counts: Counts) -> tuple[str, str, str]:
    """For a split with its own source: (key path or "", why it is empty, what would be right)."""
    given, more = counts.given[split], "more rows, or smaller validation_size and test_size"
    if given == 0:
        return "", "none of its rows can be used", "rows without findings"
    elsewhere = [kept for dropped, kept in counts.repeats if dropped == split and kept != split]
    if len(elsewhere) == given:
        others = " and ".join(dict.fromkeys(elsewhere))
        its = "its only row is" if given == 1 else f"all {given:,} of its rows are"
        why = f"{its} in {others} too, and held-out rows are never used for training"
        return "", why, f"a source with rows that are not in {others}"
    if counts.are_documents:
        why = f"its {counted(given, 'document goes', 'documents go')} to the other splits"
        return "", why, "validation_size and test_size below 1 (larger ones count documents)"
    left = given - sum(dropped == split for dropped, _ in counts.repeats)
    return "", f"its {counted(left, 'row goes', 'different rows go')} to the other splits", more


def _not_cut_off(split: str, counts: Counts, data: DataRef) -> tuple[str, str, str]:
    """For a split that is cut from train: as above."""
    repeats = sum(dropped == "train" for dropped, _ in counts.repeats)
    rows = counts.given["train"] - repeats
    if rows < 3:
        of = f" (of {counts.given['train']:,} rows; the others are duplicates)" if repeats else ""
        has = counted(rows, "row", "different rows")
        return "data.train", f"train has {has}{of}", "at least 3: one each to train, validate and test"
    if counts.strata >= rows:
        why = f"all {rows:,} rows have different labels, so none can be held out"
        return "data.label", why, "a column whose values repeat (is this one an id?)"
    size = data.test_size if split == "test" else data.validation_size
    left = rows - (counts.cut["test"] if split == "validation" and "test" not in counts.given else 0)
    if counts.strata > 1 and counts.cut["train"] and (size if size >= 1 else round(size * left)) >= 1:
        why = f"the {rows:,} rows have {counts.strata:,} different labels, and one row of each stays in train"
        return "", why, "a column whose values repeat more often, or more rows"
    share = f"{size:g}" if size >= 1 else f"a share of {size:g} of {rows:,} rows"
    return f"data.{split}_size", f"{share} is less than one row", f"a larger share, or a number: {split}_size: 1"


def _nothing_to_learn(rows: int, learns_uncut: bool) -> tuple[str, str, str]:
    why = f"{'the only row has' if rows == 1 else f'all {rows:,} rows have'} nothing to learn"
    if learns_uncut:
        why += " within max_length"
        return "", why, "a larger training.max_length, or shorter texts before the answer"
    return "", why, "rows with an answer (here all weights are 0, or all answers are empty)"
