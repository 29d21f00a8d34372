"""`hpo nights`: what happened, night by night: states, the metric's trend, promotions, cost, and the ledger."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.certify.claims import Claims, claims_of
from hpo.errors import HpoError, SweepError, UsageError
from hpo.nights.afterwards import Afterwards, afterwards
from hpo.nights.certificate import model_of
from hpo.nights.estimates import Estimate
from hpo.nights.night import Night
from hpo.nights.page import night_text
from hpo.nights.record import NightFiles, NightRecord, fitting, read_night
from hpo.nights.story import Story, story_of
from hpo.paths import Home
from hpo.progress_view import ProgressView
from hpo.quoting import listed, quoted
from trainers.protocol.codec import to_json

_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 60


@dataclass(frozen=True)
class History:
    """The nights of one name, and the ledgers of the models that they released."""

    name: str
    stories: Sequence[Story]
    """The oldest first."""
    ledgers: Sequence[Claims]
    unread: Sequence[str] = ()
    """Why something is missing here: each of a file that cannot be read."""

    def to_json(self) -> dict[str, Any]:
        """As `hpo nights NAME --json` prints it."""
        return {
            "name": self.name,
            "nights": [story.to_json() for story in self.stories],
            "ledgers": [to_json(claims) for claims in self.ledgers],
            "unread": list(self.unread),
        }


def read_history(home: Home, name: str) -> History:
    """Everything that is known of the nights of a name; a damaged file does not hide the others.

    Raises `UsageError` where there are no nights, `SweepError` where none of them can be read.
    """
    records, stories, models, unread = dict[Path, NightRecord](), [], [], list[str]()
    for path in _paths(home, name):
        try:
            records[path] = read_night(path)
        except SweepError as error:
            unread.append(str(error))
    after = _afterwards(home, list(records.values()), unread)
    for path, record in records.items():
        try:
            with fitting(path):
                stories.append(story_of(record, after.get(record.date)))
        except SweepError as error:
            unread.append(str(error))
        else:
            models += [model_of(record)] if record.step("certify") else []
    if not stories:
        raise SweepError("\n".join(unread[:10]))
    ledgers = []
    for model in dict.fromkeys(models):
        try:
            ledgers.append(claims_of(model, home.ledger(model)))
        except (SweepError, UsageError) as error:
            unread.append(str(error))
    return History(name, stories, ledgers, unread)


def tell_night(home: Home, name: str, date: str) -> tuple[Story, str]:
    """One night, and the same as text. Raises `UsageError` where there is no such night, `SweepError` for a damaged
    file."""
    try:
        night = Night(name, datetime.date.fromisoformat(date))
    except ValueError:
        raise UsageError(f"{quoted(date)} is not a date; expected YYYY-MM-DD, e.g. 2026-11-28") from None
    paths = _paths(home, name)
    if (path := NightFiles(home.nights(name)).record(night)) not in paths:
        raise UsageError(f"no night {date} of {name!r}; there are: {listed(path.stem for path in reversed(paths))}")
    record, unread = read_night(path), list[str]()
    after = _afterwards(home, [record], unread).get(record.date)
    with fitting(path):
        text = night_text(record, after)
        return story_of(record, after), "\n".join([text, *(f"not shown: {why}" for why in unread)])


def _afterwards(home: Home, records: Sequence[NightRecord], unread: list[str]) -> Mapping[str, Afterwards]:
    """What became of releases that waited; why that is missing goes to `unread`."""
    try:
        return afterwards(home, records)
    except HpoError as error:
        unread.append(f"what became of releases that waited: {error}")
        return {}


def show_history(view: ProgressView, home: Home, history: History) -> None:
    """Show the nights in a table, the newest last, and below it the trend and the ledgers."""
    columns = ["night", "state", "metric", "champion", "95 %", "promoted", "cost"]
    view.table(f"nights of {history.name}", columns, [_row(story) for story in history.stories])
    view.say("")
    ledgers = [claims.in_words() for claims in history.ledgers]
    for line in [*_trend(history.stories), *ledgers, *(f"not shown: {why}" for why in history.unread)]:
        view.say(line)
    last = history.stories[-1]
    for alert in last.alerts:
        view.say(f"ALERT of {last.date}: {alert}")
    page = NightFiles(home.nights(history.name)).page(Night(last.name, datetime.date.fromisoformat(last.date)))
    if page.exists():
        view.say(f"the last report: {page}")


def _paths(home: Home, name: str) -> list[Path]:
    """The records of a name's nights, the oldest first. Raises `UsageError` where there are none."""
    paths = NightFiles(home.nights(name)).paths()
    if not paths:
        folder = home.nights(name).parent
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []
        there = f"there are: {listed(names)}" if names else "no night has run yet; hpo nightly FILE runs one"
        raise UsageError(f"no nights of {name!r}; {there}")
    return paths


def _row(story: Story) -> list[str]:
    found = story.champion
    interval = f"{found.low:.4f} to {found.high:.4f}" if found and found.low != found.high else "-"
    value = f"{found.value:.4f}" if found else "-"
    flag = " !" if story.alerts else ""
    return [
        story.date, story.word + flag, story.metric or "-", value, interval, "yes" if story.is_promoted else "-",
        story.cost or "-",
    ]  # fmt: skip


def _trend(stories: Sequence[Story]) -> list[str]:
    """The champion's metric over the nights that measured the last one's; one line, or none before there are two."""
    metric = next((story.metric for story in reversed(stories) if story.champion), "")
    found = [story.champion for story in stories if story.champion and story.metric == metric]
    if len(found) < 2:
        return []
    first, last = found[0], found[-1]
    change = f"{last.value - first.value:+.4f} since the first of {len(found):,} nights"
    return [f"{metric} of the champion: {_bars(found[-_MOST_BARS:])}  {last}; {change}"]


def _bars(found: Sequence[Estimate]) -> str:
    low, high = min(e.value for e in found), max(e.value for e in found)
    span = high - low or 1.0
    return "".join(_BARS[round((e.value - low) / span * (len(_BARS) - 1))] for e in found)
