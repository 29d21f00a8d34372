"""Whether a released version takes the alias from the champion of its name: both answer the same validation rows."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from hpo.config.objective import gate_of
from hpo.errors import HpoError
from hpo.release.same_rows import SameRows
from hpo.release.versions import Version, version_of
from hpo.results.released import Decision, Release, Rivalry
from hpo.results.rivals import answer, answer_to_itself, decide, in_words, rivalry
from hpo.search.scoreboard import row_parts
from hpo.trials.context import SweepContext
from trainers.runtime.card import ReleaseError


@dataclass(frozen=True)
class Ruling:
    """What becomes of a challenger, and why."""

    decision: Decision
    why: str
    rivalry: Rivalry | None = None


def rule_on(sweep: SweepContext, release: Release, incumbent: Version | None) -> Ruling:
    """Whether a released version becomes champion, waits for a person, or has shown too little.

    `incumbent` is the champion of that name now. Both released artifacts answer the same validation rows: those that
    certify where other rows chose the sweep's champion, else all.
    """
    wanted = sweep.config.promote
    assert wanted is not None  # noqa: S101  # the caller promotes
    if incumbent is None:
        return Ruling(decide(wanted.approve, "yes"), "")
    if incumbent.run_id == release.run_id:
        return Ruling(decide(wanted.approve, "yes"), f"{incumbent}: the same training, released under another gate")
    asks = answer_to_itself if _was_passed_over(sweep, incumbent) else answer
    found: Rivalry | None = None
    try:
        found = _compare(sweep, release, incumbent)
        why = (
            f"{incumbent}: {found.metric} {found.champion:.4f} on these validation rows, trial {release.trial} has "
            f"{found.challenger:.4f}: {in_words(found)}"
        )
    except (HpoError, ReleaseError) as error:
        why = f"{incumbent}: version {release.version} cannot be compared with it ({error})"
    finally:
        shutil.rmtree(sweep.paths.release, ignore_errors=True)
    return Ruling(decide(wanted.approve, asks(wanted.requirement, found, wanted.max_drop)), why, found)


def _was_passed_over(sweep: SweepContext, incumbent: Version) -> bool:
    """Whether the sweep has chosen its champion among trials of which the incumbent is one: an edit may have left it
    out."""
    trials = {str(record.number) for record in sweep.study.records()}
    return incumbent.sweep == sweep.config.name and incumbent.tags.get("trial") in trials


def _compare(sweep: SweepContext, release: Release, incumbent: Version) -> Rivalry:
    """Both artifacts on the same rows. Raises `HpoError` or `ReleaseError` where they do not compare."""
    gate = gate_of(sweep.config.task, sweep.config.objective)
    same = SameRows(sweep.executor, sweep.config.task, sweep.inspection, sweep.paths.release)
    old, new = incumbent.folder(), _folder_of(sweep, release)
    same.check_comparable(old)
    with sweep.view.doing(f"measuring {incumbent} and version {release.version} on the same validation rows"):
        champion, challenger = same.answered(old, "champion"), same.answered(new, "challenger")
    if len(champion.rows) != len(challenger.rows):
        raise HpoError(f"they answered {len(champion.rows)} and {len(challenger.rows)} rows")
    parts = row_parts(sweep)
    certifying = parts.certifying
    return rivalry(
        champion.rows[certifying], same.metric(gate.metric, champion.labels),
        challenger.rows[certifying], same.metric(gate.metric, challenger.labels), gate,
        parts.units_of(certifying),
    )  # fmt: skip


def _folder_of(sweep: SweepContext, release: Release) -> Path:
    found = version_of(sweep.home, release.name, release.version)
    if found is None:
        raise HpoError(f"version {release.version} of {release.name!r} was deleted meanwhile")
    return found.folder()
