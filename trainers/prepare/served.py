"""What a server is asked, compared with what its model was trained on: lengths, labels, words, rare tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trainers.data.splits import Placed
from trainers.prepare.drift import Difference, beyond_chance, longer, shares, words
from trainers.prepare.prepared import Prepared
from trainers.prepare.served_log import OUTSIDE, Asked, Prediction, asked_of, read_logs
from trainers.protocol.counted import counted
from trainers.protocol.served_facts import ServedFacts, Shift, ShiftKind
from trainers.tasks.base import Task

RARE = 3
"""A token that the training rows have fewer times than this is rare."""
SHOWN = 8
"""Words and labels named in a sentence."""
_TAG_MARKS = ("B-", "I-")


def compare_served(made: Prepared, tokenizer: Any, files: Sequence[str]) -> ServedFacts:
    """What has moved beyond chance. Raises `DataProblem` for a file that is no prediction log."""
    log = read_logs(files, made.task.name, made.data.columns)
    rows, refused = log.rows, {name: dict(counts) for name, counts in log.refused_by.items()}
    about = [f"filters refused {counted(log.refused, 'prompt')} ({_filters(refused)})"] if log.refused else []
    texts = [row.asked for row in rows if row.asked is not None]
    train = [asked_of(row.row.values, made.data.columns, made.task.name) for row in made.splits["train"]]
    if not rows or not train:
        nothing = f"the log has no prediction of {made.task.name}"
        return ServedFacts(0, 0, log.others, [], [nothing, *about], log.refused, refused)
    families: dict[ShiftKind, list[Difference]] = {
        "length": [_lengths(train, rows, texts, tokenizer if len(texts) == len(rows) else None)],
        "label": _labels(made, rows),
        "word": words([one.said for one in train], [one.said for one in texts]) if texts else [],
        "rare tokens": _rare(made, train, texts, tokenizer),
    }
    moved = beyond_chance(families)
    shifts = [Shift(kind, *one) for kind, family in moved.items() for one in family]
    compared = f"compared {counted(len(rows), 'prediction')} with {counted(len(train), 'training row')}"
    compared += "" if texts else "; the log has no texts, so words and tokens are not compared"
    notes = _notes(moved) or ["nothing has moved beyond chance"]
    notes += [compared, *about]
    return ServedFacts(len(rows), len(texts), log.others, shifts, notes, log.refused, refused)


def _filters(refused: Mapping[str, Mapping[str, int]]) -> str:
    """Each filter with its categories and their counts; a filter's own name is no category."""
    parts = [
        f"{name if category == name else f'{name}: {category}'} {count:,}"
        for name, counts in refused.items()
        for category, count in counts.items()
    ]
    return ", ".join(parts)


def _lengths(
    train: Sequence[Asked], rows: Sequence[Prediction], texts: Sequence[Asked], tokenizer: Any | None
) -> Difference:
    if tokenizer is None:
        return longer("characters", [len(one.whole) for one in train], [row.characters for row in rows])
    before, after = (_ids(tokenizer, [one.whole for one in group]) for group in (train, texts))
    return longer("tokens", [len(ids) for ids in before], [len(ids) for ids in after])


def _labels(made: Prepared, rows: Sequence[Prediction]) -> list[Difference]:
    """The labels of training rows, and those that were predicted; a row may have several."""
    if not made.labels:
        return []
    before = Counter(label for row in made.splits["train"] for label in labels_of(made.task, row))
    after = Counter(label for row in rows for label in row.labels)
    return shares(before, after, (len(made.splits["train"]), len(rows)))


def labels_of(task: Task, row: Placed[Any]) -> set[str]:
    """The labels of a row of data; of words the names of the entities, as predictions have them."""
    given = {label for label in task.labels([row.example]) if label != OUTSIDE}
    if task.targets != "token":
        return given
    return {label.removeprefix(label[:2]) if label[:2] in _TAG_MARKS else label for label in given}


def _rare(made: Prepared, train: Sequence[Asked], texts: Sequence[Asked], tokenizer: Any) -> list[Difference]:
    """The share of rare tokens in held-out rows, which training has not seen either, and in served texts."""
    held_out = [
        asked_of(row.row.values, made.data.columns, made.task.name)
        for split in ("validation", "test")
        for row in made.splits[split]
    ]
    if not texts or not held_out:
        return []
    counts = Counter(token for ids in _ids(tokenizer, [one.said for one in train]) for token in ids)
    unknown = tokenizer.unk_token_id

    def share(ids: Sequence[int]) -> float:
        rare = [token for token in ids if token == unknown or counts[token] < RARE]
        return len(rare) / max(1, len(ids))

    before, after = (list(map(share, _ids(tokenizer, [one.said for one in group]))) for group in (held_out, texts))
    found = longer("share of a text", before, after)
    return [found._replace(before=sum(before) / len(before), after=sum(after) / len(after))]


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, uncut and without special tokens."""
    return list(tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"])


def _notes(moved: Mapping[ShiftKind, Sequence[Difference]]) -> list[str]:
    """What has moved, in sentences, the size of the effect first."""
    vocabulary = moved["word"]
    by_direction = {
        "more": [one for one in vocabulary if one.effect > 0],
        "less": [one for one in vocabulary if one.effect < 0],
    }
    return [
        *map(_length_note, moved["length"]),
        *map(_label_note, sorted(moved["label"], key=lambda one: -abs(one.effect))[:SHOWN]),
        *(f"words that come {how} often: {_listed(some)}" for how, some in by_direction.items() if some),
        *map(_rare_note, moved["rare tokens"]),
    ]


def _length_note(one: Difference) -> str:
    how = "longer" if one.effect > 0.5 else "shorter"
    of_100 = round(100 * max(one.effect, 1 - one.effect))
    return (
        f"served texts are {how}: in {of_100} of 100 pairs the served text is {how} than the training row; the median "
        f"is {one.after:g} {one.name}, {one.before:g} in training"
    )


def _label_note(one: Difference) -> str:
    points = f"{100 * one.effect:+.0f} points"
    return f"label {one.name}: {points}, {one.after:.0%} of predictions and {one.before:.0%} of training rows"


def _rare_note(one: Difference) -> str:
    return (
        f"rare tokens are {one.after:.1%} of a served text, and {one.before:.1%} of a row held out of training; rare "
        f"is what the training rows have fewer than {RARE} times"
    )


def _listed(some: Sequence[Difference]) -> str:
    shown = [f"{one.name} ({one.after:.1%} of texts, {one.before:.1%} in training)" for one in some[:SHOWN]]
    more = len(some) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
