"""A sweep under way: everything its steps share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hpo.config.budget import Meter
from hpo.config.space import Point
from hpo.config.sweep_config import SweepConfig
from hpo.config.trial_specs import TrialSpecs
from hpo.executors.base import Executor
from hpo.paths import Home, SweepPaths
from hpo.progress_view import ProgressView
from hpo.results.champion import Champion, as_champion, choose_champion
from hpo.results.needed import trained_in
from hpo.study.study import Study
from hpo.tracking.base import RunTracker
from hpo.trials.fitting import Fitting, free_settings
from hpo.trials.observer import Observer, Unobserved
from hpo.trials.slots import Slots, first_devices
from hpo.trials.trial_files import is_of, read_spec
from trainers.protocol.events import PreparedData
from trainers.protocol.files import TrialPaths
from trainers.protocol.trial_spec import TrialSpec


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
    fitting: Fitting = field(default_factory=Fitting)

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

    def as_it_runs(self, spec: TrialSpec, paths: TrialPaths) -> TrialSpec:
        """The same trial in the cheapest way that fits into memory. One that had begun goes on in its own way: other
        groups of rows would draw other dropout and round other sums."""
        if not is_of(spec, paths):
            return self.fitting.fitted(spec)
        begun = read_spec(paths).settings
        own = {name: begun[name] for name in free_settings(self.config) if name in begun}
        return replace(spec, settings={**spec.settings, **own})

    def is_possible(self, point: Point) -> bool:
        """Whether a trial at this point may fit into memory."""
        devices = first_devices(self.inspection, self.config.devices_per_trial())
        return self.fitting.refuse(self.specs.spec(0, point, self.paths.trial(0), devices=devices)) is None

    def planned_trials(self) -> int:
        """How many trials there will be, without points of a grid that cannot fit."""
        return self.study.state.left_out.planned(self.config.most_trials(), self.config.space.most_points())

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
