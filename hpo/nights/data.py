"""The data of a night: rows frozen on the sides that they have for ever, and compared with those of the night before"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from hpo.config.intent import intent_of
from hpo.config.sweep_config import SweepConfig
from hpo.errors import ConfigError, Problem
from hpo.executors.base import Executor
from hpo.nights.night import Night
from hpo.nights.record import NightFiles, read_night
from hpo.paths import Home
from hpo.quoting import listed, quoted
from hpo.trials.calls import lines_of, run_alone
from trainers.protocol.codec import from_json
from trainers.protocol.counted import counted
from trainers.protocol.events import Checked
from trainers.protocol.frozen_facts import FrozenRows, frozen_sources
from trainers.protocol.requests import Check, Freeze

SIDES = ("train", "validation", "certify", "test")


@dataclass(frozen=True)
class FrozenData:
    """The rows of one night."""

    version: str
    """NAME@DATE."""
    sha256: str
    """Of the frozen files; equal rows on equal sides have an equal one, whatever the order they came in."""
    folder: str
    rows: dict[str, int]
    """Side -> rows, likewise below; of running text passages of a few thousand characters."""
    labels: dict[str, dict[str, int]]
    """Side -> label -> rows."""
    added: dict[str, int]
    gone: dict[str, int]
    relabelled: dict[str, int]
    since: str | None = None
    """The version that rows are added to and gone from; None for the first one."""
    is_running_text: bool = False
    notes: list[str] = field(default_factory=list)

    def said(self) -> str:
        """The version in a sentence: how many rows, and how they differ from the night before."""
        rows = ", ".join(f"{side} {self.rows[side]:,}" for side in SIDES)
        if self.since is None:
            return f"{self.version}: {rows} rows; the first version"
        changes = {"added": self.added, "gone": self.gone, "with another label or answer": self.relabelled}
        counts = ", ".join(f"{sum(many.values()):,} {what}" for what, many in changes.items())
        return f"{self.version}: {rows} rows; since {self.since}: {counts}"


@dataclass(frozen=True)
class Look:
    """What is known of frozen rows before anything is trained on them."""

    findings: list[str] = field(default_factory=list)
    """Problems for which a sweep would be refused."""
    shift: list[str] = field(default_factory=list)
    """How they differ from the rows of the night before, in sentences."""
    notes: list[str] = field(default_factory=list)
    stops: str | None = None
    """Why nothing may be trained on them; None where that is no problem."""


def freeze(executor: Executor, config: SweepConfig, home: Home, night: Night) -> FrozenData:
    """Read the rows as they are now and freeze them. Raises `ConfigError` for rows that no sweep could use."""
    files = NightFiles(home.nights(night.name))
    before = frozen_before(files, night)
    request = Freeze(config.workload(home), str(files.data), str(files.dir), before.folder if before else None)
    with lines_of(config):
        rows = run_alone(executor, request)
    assert isinstance(rows, FrozenRows)  # noqa: S101  # the protocol's answer to Freeze
    return FrozenData(
        version=night.version, sha256=rows.sha256, folder=str(executor.fetch(Path(rows.dir))), rows=rows.rows,
        labels=rows.labels, added=rows.added, gone=rows.gone, relabelled=rows.relabelled,
        since=before.version if before else None, is_running_text=rows.is_running_text, notes=rows.notes,
    )  # fmt: skip


def frozen_before(files: NightFiles, night: Night) -> FrozenData | None:
    """The rows of the last night before this one that could be trained on, where they are still there.

    Rows that stopped their night are not what the next one is compared with: a label that vanished would be missed
    once, and then never again.
    """
    earlier = [path for path in files.paths() if path.stem < night.date.isoformat()]
    for record in map(read_night, reversed(earlier)):
        frozen, looked = record.step("freeze"), record.step("look")
        if frozen is None or (looked and looked.facts.get("stops")):
            continue
        data = from_json(FrozenData, frozen.facts)
        folder = files.data / data.sha256  # where it is now: a home may have been moved
        if folder.is_dir():
            return dataclasses.replace(data, folder=str(folder))
    return None


def frozen_config(config: SweepConfig, frozen: FrozenData, night: Night) -> SweepConfig:
    """The night's sweep: the file's, under the night's name and on the frozen rows, of which nothing is cut again.

    It knows nothing of the certifying rows.
    """
    return dataclasses.replace(_on_frozen_rows(config, frozen, "validation"), name=night.sweep)


def certifying_config(config: SweepConfig, frozen: FrozenData) -> SweepConfig:
    """A night's sweep with the certifying rows in place of those of validation.

    Labels and scales come from the training rows, so they are those of the sweep.
    """
    return _on_frozen_rows(config, frozen, "certify")


def _on_frozen_rows(config: SweepConfig, frozen: FrozenData, *validation: str) -> SweepConfig:
    sources = frozen_sources(Path(frozen.folder), validation)
    data = dataclasses.replace(config.data.with_sources(sources), is_running_text=frozen.is_running_text)
    return dataclasses.replace(config, data=data)


def look(executor: Executor, config: SweepConfig, home: Home, frozen: FrozenData, before: FrozenData | None) -> Look:
    """Check the frozen rows as `hpo check` does, and compare them with those of an earlier night: all rows, with those
    that certify among the ones for validation.

    What stops a night: any problem for which a sweep is refused, and a label that has vanished. A shift stops none:
    whether the new rows make a better model is for the released models to show.
    """
    on_frozen = _on_frozen_rows(config, frozen, "validation", "certify")
    request = Check(on_frozen.workload(home), intent=intent_of(config), before=before.folder if before else None)
    try:
        with lines_of(config):
            checked = run_alone(executor, request)
    except ConfigError as error:
        return Look(found := [str(problem) for problem in error.problems], stops=_why(found))
    assert isinstance(checked, Checked)  # noqa: S101  # the protocol's answer to Check
    findings = [str(Problem(config.place(f.where), f.found, f.expected)) for f in checked.findings]
    shift = checked.since.notes if checked.since else []
    return Look(findings, shift, checked.notes, _why(findings) or _vanished(frozen, before))


def _why(findings: list[str]) -> str | None:
    if not findings:
        return None
    more = f" (and {counted(len(findings) - 1, 'more problem')})" if len(findings) > 1 else ""
    return f"the rows cannot be trained on: {findings[0]}{more}"


def _vanished(frozen: FrozenData, before: FrozenData | None) -> str | None:
    """Labels that training rows of the earlier night had, and that no row has now."""
    if before is None:
        return None
    now = {label for counts in frozen.labels.values() for label in counts}
    had = before.labels.get("train", {})
    lost = [f"{quoted(label)} ({counted(had[label], 'training row')})" for label in had if label not in now]
    if not lost:
        return None
    return (
        f"labels that rows of {before.version} have, and no row has now: {listed(lost)}; a complete source, or another "
        "name for the sweep where they are gone for good"
    )
