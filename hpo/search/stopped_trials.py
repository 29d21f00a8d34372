"""Trials that the pruner stopped: their checkpoints are kept until the search is over, so that one may go on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from hpo.garbage import size_of
from hpo.paths import SweepPaths
from hpo.pruning.base import Peers
from hpo.pruning.second_chance import is_level, second_chance
from hpo.results.records import TrialRecord
from hpo.study.study import Study
from trainers.protocol.events import TrialResult
from trainers.protocol.files import TrialPaths

SHARE_OF_FREE_DISK = 0.1
"""A checkpoint is kept when it takes no more of what is free beside it."""


class StoppedTrials:
    """The trials of one search that may go on from their checkpoints."""

    def __init__(self, study: Study, paths: SweepPaths) -> None:
        self._study = study
        self._paths = paths
        self._noise = study.config.pruner.rule.noise

    def settle(self, result: TrialResult, paths: TrialPaths) -> None:
        """After a trial's end: keep its checkpoint when it may go on, else remove it."""
        may_go_on = self._noise and _was_pruned(result) and len(self._study.config.objectives) == 1
        if not (may_go_on and _has_room(paths)):
            shutil.rmtree(paths.checkpoints, ignore_errors=True)

    def next(self, peers: Peers, champion: int) -> TrialRecord | None:
        """The trial that goes on, as it was stopped: in the study it is under way again. None when there is none.

        The study comes first: after a kill in between, the result on disk ends the trial as before.
        """
        if self._noise is None:
            return None
        kept = {record.number: record for record in self._kept()}
        number = second_chance(self._noise, peers, kept, champion)
        if number is None:
            return None
        self._study.reopen(number)
        self._paths.trial(number).result.unlink(missing_ok=True)  # a restored backup may be past this point
        return kept[number]

    def may_go_on(self, peers: Peers, number: int, champion: int) -> bool:
        """Whether a trial is level with the champion."""
        return self._noise is not None and is_level(self._noise, peers, number, champion)

    def clear(self) -> None:
        """Remove the checkpoints that are left."""
        for record in self._kept():
            shutil.rmtree(self._paths.trial(record.number).checkpoints, ignore_errors=True)

    def _kept(self) -> Iterator[TrialRecord]:
        for record in self._study.records():
            is_own = record.reused_from is None and record.result is not None and _was_pruned(record.result)
            if is_own and self._paths.trial(record.number).checkpoints.exists():
                yield record


def _was_pruned(result: TrialResult) -> bool:
    return result.state == "pruned" and result.stopped_by == "pruner"


def _has_room(paths: TrialPaths) -> bool:
    return size_of([paths.checkpoints]) <= SHARE_OF_FREE_DISK * shutil.disk_usage(paths.dir).free
