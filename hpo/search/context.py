"""A sweep under way: everything its steps share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpo.config.budget import Meter
from hpo.config.sweep_config import SweepConfig
from hpo.executors.base import Executor
from hpo.paths import Home, SweepPaths
from hpo.results.champion import Champion, choose_champion
from hpo.study.study import Study
from hpo.terminal import ProgressView
from hpo.trials.slots import Slots
from trainers.protocol.files import TrialPaths
from trainers.protocol.messages import PreparedData

if TYPE_CHECKING:
    from hpo.tracking.mlflow_tracker import (
        Tracker,  # MLflow takes two seconds to import: commands that write no run do without
    )


@dataclass(frozen=True)
class SweepContext:
    config: SweepConfig
    home: Home
    inspection: PreparedData
    study: Study
    tracker: Tracker
    executor: Executor
    view: ProgressView
    slots: Slots
    meter: Meter

    @property
    def paths(self) -> SweepPaths:
        return self.home.sweep(self.config.name)

    def champion(self) -> Champion | None:
        """None when no complete trial keeps the constraints."""
        return choose_champion(
            self.study.records(), self.config.objective, self.config.constraints, self.study.attrs().get("finalists")
        )

    def champion_paths(self, champion: Champion) -> TrialPaths:
        """Where the adapter of the champion lies: in a repeat, in its trial, or in the sweep it was taken over from."""
        if champion.repeat is not None:
            return self.paths.repeat(champion.number, champion.repeat)
        origin, _, number = (self.study.record(champion.number).reused_from or "").rpartition("/")
        return self.home.sweep(origin).trial(int(number)) if origin else self.paths.trial(champion.number)
