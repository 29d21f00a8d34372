"""Charts of a night's page as SVG, in the look of a sweep's report: values with their intervals. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from hpo.nights.estimates import Estimate

WIDTH = 720
_ROW, _LEFT, _RIGHT, _BELOW = 30, 130, 20, 28
_HEIGHT, _TREND_LEFT, _TREND_BELOW = 220, 60, 30
_MOST_LABELS = 8


@dataclass(frozen=True)
class Mark:
    """One value of a chart."""

    label: str
    estimate: Estimate
    kind: str = ""
    """`champion`, `baseline` or `failed`, as the style sheet colours it."""


def rows_svg(marks: Sequence[Mark], title: str) -> str:
    """One row for each value: a point on its interval."""
    height = _ROW * len(marks) + _BELOW
    scale = _Scale.of(marks, _LEFT, WIDTH - _RIGHT)
    parts = [_axis(f"M{_LEFT} 4V{height - 24}H{WIDTH - _RIGHT}")]
    parts += [_text(place, height - 8, label, "middle") for place, label in scale.ticks()]
    for index, mark in enumerate(marks):
        y = 20 + _ROW * index
        parts.append(_text(_LEFT - 8, y + 4, mark.label, "end", "name"))
        parts.append(_whisker(f"M{scale.at(mark.estimate.low):.1f} {y}H{scale.at(mark.estimate.high):.1f}"))
        parts.append(_point(scale.at(mark.estimate.value), y, mark))
    return _svg(parts, height, title)


def trend_svg(marks: Sequence[Mark], title: str) -> str:
    """One column for each value, the oldest on the left."""
    bottom = _HEIGHT - _TREND_BELOW
    scale = _Scale.of(marks, bottom - 8, 12)
    step = (WIDTH - _TREND_LEFT - _RIGHT) / max(1, len(marks))
    every = math.ceil(len(marks) / _MOST_LABELS)
    parts = [_axis(f"M{_TREND_LEFT} 8V{bottom}H{WIDTH - _RIGHT}")]
    parts += [_text(_TREND_LEFT - 6, place + 4, label, "end") for place, label in scale.ticks()]
    for index, mark in enumerate(marks):
        x = _TREND_LEFT + step * (index + 0.5)
        if index % every == 0:
            parts.append(_text(x, _HEIGHT - 10, mark.label, "middle"))
        parts.append(_whisker(f"M{x:.1f} {scale.at(mark.estimate.low):.1f}V{scale.at(mark.estimate.high):.1f}"))
        parts.append(_point(x, scale.at(mark.estimate.value), mark))
    return _svg(parts, _HEIGHT, title)


@dataclass(frozen=True)
class _Scale:
    """From values to places."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, marks: Sequence[Mark], start: float, end: float) -> _Scale:
        """That holds all intervals."""
        low, high = min(mark.estimate.low for mark in marks), max(mark.estimate.high for mark in marks)
        margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
        return cls(low - margin, high + margin, start, end)

    def at(self, value: float) -> float:
        """The place of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """About four round values, with their places."""
        rough = (self.high - self.low) / 4
        power = 10 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [(self.at(i * step), f"{i * step:.6g}") for i in range(first, last + 1)]


def _svg(parts: Sequence[str], height: int, title: str) -> str:
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _axis(path: str) -> str:
    return f'<path class="axis" fill="none" d="{path}"/>'


def _whisker(path: str) -> str:
    return f'<path class="whisker" d="{path}"/>'


def _point(x: float, y: float, mark: Mark) -> str:
    label = escape(f"{mark.label}: {mark.estimate}")
    return f'<circle class="point {mark.kind}" r="5.5" cx="{x:.1f}" cy="{y:.1f}"><title>{label}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
