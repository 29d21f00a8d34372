"""A table as lines of plain text. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from hpo.quoting import clipped, visible

MOST_OF_A_CELL = 300
"""Characters shown of one cell."""


def aligned(
    rows: Sequence[Sequence[str]], to_the_right: Collection[int] = (), width: Callable[[str], int] = len
) -> list[str]:
    """Rows of cells, the names of the columns first, as lines in which a column begins at one place.

    Columns `to_the_right` end at one place instead. `width` is how many places a terminal takes for a text.
    """
    columns = []
    for index, column in enumerate(zip(*rows, strict=True)):
        widths = [width(cell) for cell in column]
        most = max(widths)
        pads = [" " * (most - each) for each in widths]
        pairs = zip(pads, column, strict=True) if index in to_the_right else zip(column, pads, strict=True)
        columns.append(map("".join, pairs))
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def one_line(text: str) -> str:
    """A text as a cell shows it: on one line, and not endless."""
    return clipped(visible(text).replace("\n", "\\n").replace("\t", "\\t"), MOST_OF_A_CELL)


def is_number(text: str) -> bool:
    """Whether a cell is a number, as tables write them."""
    return text.replace(".", "").replace("-", "").replace(",", "").replace("e", "").replace("+", "").isdigit()


def joined(cells: Sequence[Sequence[str]], count: int) -> list[list[str]]:
    """The same lines of cells, names first, with their last `count` columns as one: `name=value` for
    each, without those that a row does not have (`-`)."""
    head, names = cells[0][:-count], cells[0][-count:]
    rows = [
        [*row[:-count], " ".join(f"{n}={v}" for n, v in zip(names, row[-count:], strict=True) if v != "-")]
        for row in cells[1:]
    ]
    return [[*head, "settings"], *rows]
