"""How many rows have each label, and which share of them: a table for the report and the model card. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def label_table(
    task: str, rows: Mapping[str, int], counts: Mapping[str, Mapping[str, int]], most: int
) -> tuple[list[str], list[list[str]], int]:
    """Column names and the rows of the first `most` labels, and how many labels there are.

    `rows` and `counts` are of each split. Shares are of a split's rows, for tags of its words; where a row may have
    several labels, or none, they do not add up to 1.
    """
    found = {split: labels for split, labels in counts.items() if labels}
    has_several = task == "multi-label-classification"
    wholes = {split: max(1, rows[split] if has_several else sum(found[split].values())) for split in found}

    def share(split: str, label: str) -> str:
        count = found[split].get(label, 0)
        return f"{count:,} ({count / wholes[split]:.1%})"

    labels = list(dict.fromkeys(label for known in found.values() for label in known))
    body = [[label, *(share(split, label) for split in found)] for label in labels[:most]]
    return ["label", *found], body, len(labels)
