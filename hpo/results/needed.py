"""Which adapters of finished sweeps are still needed: champions, finalists, fronts, releases, starting points. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from hpo.results.champion import choose_champion, front
from hpo.results.records import StudySnapshot, TrialRecord

Training = tuple[str, int]
"""A sweep and the number of a trial that it trained."""


def needed_trainings(
    snapshots: Iterable[StudySnapshot], left_out: Mapping[str, Sequence[TrialRecord]], closed: Collection[str] = ()
) -> set[Training]:
    """The trials of which something needs what they learned; of a sweep that is not finished, all that it has or took
    over. A trial that a spent budget interrupted needs its checkpoint, unless its sweep is `closed`: never continued.

    `left_out` has by sweep the trials that an edit left out: a release may still be of one of them.
    """
    found: set[Training] = set()
    for view in snapshots:
        others = left_out.get(view.name, ())
        records, released = [*view.records, *others], _released(view)
        needed = _needed(view, may_go_on=view.name not in closed)
        needed = [*needed, *(record for record in others if record.number in released)]
        found |= {trained_in(view.name, record, records) for record in needed}
    return found


def starting_points(snapshots: Iterable[StudySnapshot]) -> list[Path]:
    """The folders of adapters that sweeps started from, with links resolved."""
    given = [view.config.get("model", {}).get("adapter") for view in snapshots]
    return [Path(str(adapter)) for adapter in given if adapter]


def is_finished(view: StudySnapshot) -> bool:
    """Whether the sweep ran to its end."""
    return view.state.state == "complete"


def _needed(view: StudySnapshot, *, may_go_on: bool) -> list[TrialRecord]:
    if not is_finished(view):
        return view.records
    state, constraints, objectives = view.state, view.config["constraints"], view.objectives
    finalists = state.finalists
    champion = choose_champion(view.records, view.objective, constraints, finalists)
    needed = {champion.number} if champion else set()
    needed |= {contestant.trial for contestant in finalists.contestants} if finalists else set()
    needed |= _released(view)
    needed |= set() if state.chosen_trial is None else {state.chosen_trial}
    if len(objectives) > 1:
        needed |= set(front(view.records, objectives, constraints))
    return [r for r in view.records if r.number in needed or (may_go_on and not r.is_over)]


def _released(view: StudySnapshot) -> set[int]:
    return {release.trial for release in (view.state.release, view.state.challenger) if release}


def trained_in(sweep: str, record: TrialRecord, records: Iterable[TrialRecord]) -> Training:
    """Where a trial was trained: here, in an equal one of the sweep's `records`, or in the sweep it was taken over
    from."""
    if record.is_duplicate:  # its twin may itself have been taken over
        record = next((twin for twin in records if str(twin.number) == record.reused_from), record)
    origin, _, number = (record.reused_from or str(record.number)).rpartition("/")
    return origin or sweep, int(number)
