"""`nightly:`, how a file is run night after night: the date of a night, what is made up for, what is kept."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from hpo.config.budget import TIME_OF_DAY
from hpo.config.keys import Described, Group, Number, OneOf, Whole, read_all
from hpo.config.notify import NOTIFY, Notify, parse_notify
from hpo.config.yaml_source import Section
from hpo.errors import did_you_mean

Missed = Literal["latest", "all", "skip"]
"""Which nights run late: the newest one, each one, or none."""
Overlap = Literal["skip", "queue"]
"""What a call does while another process runs a night of the same name."""
KeptCheckpoints = Literal["best", "all"]
NOON = "12:00"
_ZONE = Described("tz", None, "the time zone of dates and times, as `Europe/Berlin`; `--tz` replaces it",
                  shown="the machine's", described={"type": ["string", "null"], "minLength": 1})  # fmt: skip
_CUTOFF = Described("cutoff", NOON,
                    "from this time of day on, a night has that day's date; before it, that of the day before",
                    described={"type": "string", "pattern": f"^{TIME_OF_DAY}$"})  # fmt: skip
KEEP = Group(
    "keep", None, "what stays of earlier nights",
    keys=(
        Whole("nights", 30,
              "so many nights keep their sweep, data and releases; what has an alias or is served stays longer",
              low=1, high=36_500),  # a hundred years: dates end
        OneOf("checkpoints", "best",
              "of which trials a night's adapters and checkpoints stay: of the `best`, as with `hpo gc`, or of `all`",
              choices=("best", "all")),
    ),
)  # fmt: skip
NIGHTLY = Group(
    "nightly", None, "how `hpo nightly FILE` runs the file; `hpo sweep` does not read it",
    keys=(
        _ZONE,
        _CUTOFF,
        OneOf("missed", "latest",
              "which nights run late, when `budget.until` has passed or a later night has begun: the newest one "
              "(`latest`), each one that was missed, the oldest first (`all`), or none (`skip`)",
              choices=("latest", "all", "skip")),
        OneOf("overlap", "skip",
              "while another process runs a night of this name: end at once (`skip`), or wait for it (`queue`)",
              choices=("skip", "queue")),
        Whole("warm_start", 7, "the champions' settings of so many earlier nights are tried first; 0 for none",
              low=0, high=100),
        Number("error_budget", 0.05, "share of wrong promotions that all nights together may reach", above=0, below=1),
        KEEP,
        NOTIFY,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Keep:
    """What stays of earlier nights."""

    nights: int = 30
    checkpoints: KeptCheckpoints = "best"


@dataclass(frozen=True)
class Nightly:
    """The keys of `nightly:`; a file without them is run with the defaults."""

    tz: str | None = None
    """None for the machine's zone."""
    cutoff: str = NOON
    missed: Missed = "latest"
    overlap: Overlap = "skip"
    warm_start: int = 7
    error_budget: float = 0.05
    """Of all claims of one model's name together."""
    keep: Keep = field(default_factory=Keep)
    notify: Notify | None = None
    """None where nobody waits for a night."""

    @property
    def cutoff_time(self) -> datetime.time:
        """The time of day from which on a night is of that day's date."""
        return datetime.time.fromisoformat(self.cutoff)


def parse_nightly(root: Section, folder: Path) -> Nightly | None:
    """Read `nightly:`, with files of secrets below the YAML's `folder`; None where the file has none."""
    if root.raw("nightly") is None:
        return None
    section = root.section("nightly")
    keep = section.section("keep")
    kept = Keep(**read_all(keep, KEEP.keys))
    keep.finish()
    given: dict[str, Any] = read_all(section, NIGHTLY.keys)
    nightly = Nightly(
        tz=_zone(section), cutoff=_cutoff(section), keep=kept, notify=parse_notify(section, folder), **given
    )
    section.finish()
    return nightly


def why_no_zone(name: str) -> str | None:
    """Why a text does not name a time zone, with what would be right; None where it does."""
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        return _known_zones(name)
    return None


def _known_zones(name: str) -> str:
    return f"expected the name of a time zone, e.g. Europe/Berlin; {did_you_mean(name, sorted(available_timezones()))}"


def _zone(section: Section) -> str | None:
    name = section.text("tz")
    if name is not None and (why := why_no_zone(name)):
        section.got(name, why, "tz")
        return None
    return name


def _cutoff(section: Section) -> str:
    value = section.raw("cutoff")
    if "cutoff" not in section:
        return NOON
    if not isinstance(value, str) or not re.fullmatch(TIME_OF_DAY, value):
        section.got(value, 'expected a time of day, e.g. "12:00"', "cutoff")
        return NOON
    return value.rjust(5, "0")
