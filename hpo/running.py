"""A sweep under way: everything its steps share."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.config import SweepConfig
from hpo.executors.base import Executor
from hpo.home import Home, SweepPaths
from hpo.study import Study
from hpo.tracking import Tracker
from hpo.view import View
from trainers.spec import Inspection


@dataclass(frozen=True)
class RunningSweep:
    config: SweepConfig
    home: Home
    inspection: Inspection
    study: Study
    tracker: Tracker
    executor: Executor
    view: View

    @property
    def paths(self) -> SweepPaths:
        return self.home.sweep(self.config.name)
