"""A confusion matrix as a picture: SVG by hand, so that a browser and MLflow's UI show it as it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hpo.quoting import visible

CELL = 44
"""Pixels of a cell's side."""
_LETTER = 7
"""Pixels of a letter, about."""
_LONGEST = 24
"""Letters of a label that are shown."""
_TITLE = 40


def confusion_svg(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """The picture of `counts[true][predicted]`: a cell is as dark as its share of the true label's rows."""
    labels = [visible(label) for label in labels]  # XML has no control characters
    names = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in labels]
    margin = _TITLE + _LETTER * max(len(name) for name in names)
    side = CELL * len(names)
    size = margin + side + CELL
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" '
        f'viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="12">',
        f'<rect width="{size}" height="{size}" fill="white"/>',
        f'<text x="{margin + side / 2}" y="16" text-anchor="middle" font-weight="bold">predicted</text>',
        f'<text transform="translate(16 {margin + side / 2}) rotate(-90)" text-anchor="middle" font-weight="bold">'
        "true</text>",
    ]
    for index, name in enumerate(names):
        middle, text = margin + CELL * (index + 0.5), escape(name, quote=False)
        lines.append(f'<text x="{margin - 8}" y="{middle + 4}" text-anchor="end">{text}</text>')
        lines.append(f'<text transform="translate({middle + 4} {margin - 8}) rotate(-90)">{text}</text>')
    for true, row in enumerate(counts):
        for predicted, count in enumerate(row):
            if count:
                lines += _cell(margin + CELL * predicted, margin + CELL * true, count, count / sum(row))
    lines.append(f'<rect x="{margin}" y="{margin}" width="{side}" height="{side}" fill="none" stroke="#888"/>')
    return "\n".join([*lines, "</svg>", ""])


def _cell(x: int, y: int, count: int, share: float) -> list[str]:
    red, green, blue = (round(255 - share * (255 - full)) for full in (8, 81, 156))
    ink = "white" if share > 0.5 else "black"
    middle_x, middle_y = x + CELL / 2, y + CELL / 2 + 4
    return [
        f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="rgb({red},{green},{blue})"/>',
        f'<text x="{middle_x}" y="{middle_y}" text-anchor="middle" fill="{ink}">{count}</text>',
    ]
