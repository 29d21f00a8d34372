"""A sweep under way: everything its steps share."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpo.config.budget import Meter
from hpo.config.sweep_config import SweepConfig
from hpo.config.trial_specs import TrialSpecs
from hpo.executors.base import Executor
from hpo.paths import Home, SweepPaths
from hpo.results.champion import Champion, as_champion, choose_champion
from hpo.results.needed import trained_in
from hpo.study.study import Study
from hpo.terminal import ProgressView
from hpo.tracking.base import RunTracker
from hpo.trials.observer import Observer, Unobserved
from hpo.trials.slots import Slots
from trainers.protocol.events import PreparedData
from trainers.protocol.files import TrialPaths


@dataclass(frozen=True)
class SweepContext:
    """What controllers, scheduler and promotion are given."""

    specs: TrialSpecs
    study: Study
    tracker: RunTracker
    executor: Executor
    view: ProgressView
    slots: Slots
    meter: Meter
    observer: Observer = field(default_factory=Unobserved)

    @property
    def config(self) -> SweepConfig:
        """What the file asks for."""
        return self.specs.config

    @property
    def home(self) -> Home:
        """Where all data lies."""
        return self.specs.home

    @property
    def inspection(self) -> PreparedData:
        """Data and model as the trainer prepared them."""
        return self.specs.prepared

    @property
    def paths(self) -> SweepPaths:
        """Where this sweep's files lie."""
        return self.home.sweep(self.config.name)

    def champion(self) -> Champion | None:
        """None when no complete trial keeps the constraints."""
        return choose_champion(
            self.study.records(), self.config.objective, self.config.constraints, self.study.state.finalists
        )

    def to_release(self) -> Champion | None:
        """The trial that a person chose to release, else the champion."""
        champion, chosen = self.champion(), self.study.state.chosen_trial
        if chosen is None or (champion and champion.number == chosen):
            return champion
        return as_champion(self.study.record(chosen))

    def champion_paths(self, champion: Champion) -> TrialPaths:
        """Where the adapter of the champion lies: in a repeat, in its trial, or in the sweep it was taken over from."""
        if champion.repeat is not None:
            return self.paths.repeat(champion.number, champion.repeat)
        return self.trial_paths(champion.number)

    def trial_paths(self, number: int) -> TrialPaths:
        """Where the files of a trial lie that the search, an equal trial or an earlier sweep has trained."""
        origin, original = trained_in(self.config.name, self.study.record(number), self.study.records())
        return self.home.sweep(origin).trial(original)
