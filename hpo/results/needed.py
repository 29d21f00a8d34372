"""Which adapters of finished sweeps are still needed: champions, finalists, fronts, starting points. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpo.results.champion import choose_champion, front
from hpo.results.records import StudySnapshot, TrialRecord

Training = tuple[str, int]
"""A sweep and the number of a trial that it trained."""


def needed_trainings(snapshots: Iterable[StudySnapshot]) -> set[Training]:
    """The trials whose adapter something needs; of a sweep that is not finished, all that it has or took over."""
    return {trained_in(view.name, record) for view in snapshots for record in _needed(view)}


def starting_points(snapshots: Iterable[StudySnapshot]) -> list[Path]:
    """The folders of adapters that sweeps started from."""
    given = [view.config.get("model", {}).get("adapter") for view in snapshots]
    return [Path(str(adapter)) for adapter in given if adapter]


def is_finished(view: StudySnapshot) -> bool:
    """Whether the sweep ran to its end."""
    return view.state.state == "complete"


def _needed(view: StudySnapshot) -> list[TrialRecord]:
    if not is_finished(view):
        return view.records
    constraints, finalists, objectives = view.config["constraints"], view.state.finalists, view.objectives
    champion = choose_champion(view.records, view.objective, constraints, finalists)
    needed = {champion.number} if champion else set()
    needed |= {contestant.trial for contestant in finalists.contestants} if finalists else set()
    if len(objectives) > 1:
        needed |= set(front(view.records, objectives, constraints))
    return [record for record in view.records if record.number in needed or not record.is_over]


def trained_in(sweep: str, record: TrialRecord) -> Training:
    """Where a trial was trained: here, or in the trial whose result it has."""
    origin, _, number = (record.reused_from or str(record.number)).rpartition("/")
    return origin or sweep, int(number)
