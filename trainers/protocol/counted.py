"""A count with its noun, for the messages of `hpo` and of `trainers`"""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """`1 row` or `2,000 rows`; `many` is the plural where it is more than an s: `1 row is` or `2 rows are`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
