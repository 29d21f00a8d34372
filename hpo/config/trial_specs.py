"""The specs of a sweep's trials, made of file, home and prepared data; and what makes two trials equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpo.config.sweep_config import SweepConfig
from hpo.paths import Home
from trainers.protocol.catalog import canonical_settings
from trainers.protocol.codec import fingerprint
from trainers.protocol.events import PreparedData
from trainers.protocol.files import TrialPaths
from trainers.protocol.settings import Setting
from trainers.protocol.trial_spec import TrialSpec


@dataclass(frozen=True)
class TrialSpecs:
    """Makes the spec of any trial of one sweep."""

    config: SweepConfig
    home: Home
    prepared: PreparedData

    def spec(
        self, number: int, point: Mapping[str, Setting], paths: TrialPaths, *, threads: int = 1,
        devices: tuple[str, ...] = (), seed: int | None = None,
    ) -> TrialSpec:  # fmt: skip
        """The trial `number` at `point`, complete; `seed` None means the sweep's own.

        It takes as many of `devices` as it asks for; with none given, as often the CPU.
        """
        config, prepared = self.config, self.prepared
        method = str(point.get("method", config.method))
        searched = {name: value for name, value in point.items() if name != "method"}
        rows = prepared.rows["train"]
        settings = {
            **config.settings, **searched,
            "evaluations": config.evaluations(rows), "evaluation_rows": config.evaluation_rows(prepared),
        }  # fmt: skip
        wanted = int(settings["devices"] or 1)
        if prepared.max_length is not None:
            settings["max_length"] = min(int(settings["max_length"] or 1), prepared.max_length)
        return TrialSpec(
            number=number,
            workload=config.workload(self.home),
            method=method,
            settings=canonical_settings(method, settings),
            metric=config.objective.metric,
            direction=config.objective.direction,
            max_examples=config.examples_per_trial(rows, point),
            largest_budget_examples=config.largest_budget_examples(rows),
            seed=config.seed if seed is None else seed,
            inputs_hash=fingerprint([prepared.fingerprint, prepared.model_fingerprint, *config.code]),
            threads=threads,
            devices=devices[:wanted] or ("cpu",) * wanted,
            dir=str(paths.dir),
        )

    def fingerprint(self, point: Mapping[str, Setting]) -> str:
        """What makes a trial at this point the same as another one: equal ones give equal numbers on one machine.

        Where `devices` is searched, so is what they save: the same trial on more of them is another one then.
        """
        made = self.spec(0, point, self.home.sweep(self.config.name).trial(0)).fingerprint()
        return made if "devices" not in point else fingerprint([made, point["devices"]])
