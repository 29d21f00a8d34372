"""The report of a night: one HTML page that needs no network and no script, and the same as plain text."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment

from hpo import report
from hpo.nights.afterwards import Afterwards, afterwards
from hpo.nights.certificate import champion_of, is_promoted, metric_of
from hpo.nights.intervals_svg import Mark, rows_svg, trend_svg
from hpo.nights.night import night_of
from hpo.nights.record import NightFiles, NightRecord
from hpo.nights.story import Story, story_of
from hpo.paths import Home
from hpo.quoting import visible
from hpo.results.progress_text import duration
from trainers.protocol.files import write_atomically

NAMES: Mapping[str, str] = {"old": "champion before", "new": "tonight's model", "baseline": "baseline"}
"""What was measured, as people read it."""
TREND_NIGHTS = 60
"""Most nights of the page's trend."""
_STYLE = Path(report.__path__[0]) / "page.css"
_TEMPLATE = Path(__file__).with_name("page.html")


def write_page(home: Home, record: NightRecord, earlier: Sequence[NightRecord]) -> Path:
    """Write the page of a night, and return its file. Raises `OSError`."""
    path = NightFiles(home.nights(record.name)).page(record.night)
    write_atomically(path, night_page(record, earlier, afterwards(home, [record]).get(record.date)))
    return path


def rewrite_page(home: Home, sweep: str) -> None:
    """Bring the page of the night that ran a sweep up to date; nothing to do where it has none.

    Raises `SweepError` for a damaged record, `OSError`.
    """
    if (night := night_of(sweep)) is None:
        return
    files = NightFiles(home.nights(night.name))
    if files.page(night).exists() and (record := files.read(night)):
        since = night.date - datetime.timedelta(days=TREND_NIGHTS)
        write_page(home, record, [other for other in files.all(since) if other.night < night])


def night_page(record: NightRecord, earlier: Sequence[NightRecord], after: Afterwards | None = None) -> str:
    """The whole page; `earlier` are the nights before it, the oldest first, and `after` is what has become of a release
    that waited. What a person wrote is escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    story = story_of(record, after)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        story=story,
        zone=record.zone,
        names=NAMES,
        chart=_chart(story),
        trend=_trend(story, [*earlier, record]),
        duration=duration,
        style=_STYLE.read_text(encoding="utf-8"),
    )


def night_text(record: NightRecord, after: Afterwards | None = None) -> str:
    """The night for mail, chat and a terminal; its first line says how it ended."""
    story = story_of(record, after)
    lines = [story.headline]
    lines += _part("ALERT", story.alerts)
    lines += _part("What changed since the night before", story.changed)
    lines += _part("The answer", story.answer)
    measured = [f"{NAMES[who]}: {found}" for who, found in story.measured]
    lines += _part(f"Old, new, baseline ({story.metric}, the same rows, 95 %)", measured)
    lines += _part("Cost", [story.cost] if story.cost else [])
    steps = [f"{step.began[11:16]} {step.name}, {duration(step.seconds)}: {step.said}" for step in story.passages]
    lines += _part("Steps", steps)
    lines += _part("More", [f"{what}: {command}" for what, command in story.links.items()])
    return visible("\n".join(lines))


def _part(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *(f"- {line}" for line in lines)] if lines else []


def _chart(story: Story) -> str:
    kinds = {"new": "champion" if story.is_promoted else "", "old": "" if story.is_promoted else "champion"}
    marks = [Mark(NAMES[who], found, kinds.get(who, who)) for who, found in story.measured]
    return rows_svg(marks, f"{story.metric} of each model, with its interval") if marks else ""


def _trend(story: Story, records: Sequence[NightRecord]) -> str:
    """Of the nights that measured the same metric; empty while there is only one."""
    marks = []
    for night in records[-TREND_NIGHTS:]:
        if (champion := champion_of(night)) is not None and metric_of(night) == story.metric:
            marks.append(Mark(night.date, champion, "champion" if is_promoted(night) else ""))
    return trend_svg(marks, f"{story.metric} of the champion, night by night") if len(marks) > 1 else ""
