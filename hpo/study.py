"""The Optuna room: which point to try next, and the record of all that were tried.

One writer: only the sweep process opens a study for writing. The study is the truth; MLflow is a view of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from hpo.config import SweepConfig
from hpo.errors import UsageError
from hpo.objective import Objective
from hpo.records import StudyView, TrialRecord
from hpo.space import Choice, Dimension, Int
from trainers.catalog import Setting
from trainers.codec import from_json, to_json
from trainers.spec import TrialResult

optuna.logging.set_verbosity(optuna.logging.WARNING)

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class Study:
    """A sweep's trials in Optuna: ask, report, tell, and read back."""

    def __init__(self, config: SweepConfig, storage: optuna.storages.BaseStorage) -> None:
        self._config = config
        self.objective = config.objective
        # Reports are ours to judge (hpo/pruning.py); Optuna must not prune on its own.
        self._study = optuna.create_study(
            study_name=config.name,
            storage=storage,
            direction=config.objective.direction,
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        self._running: dict[int, optuna.Trial] = {}
        self._curves: dict[int, list[tuple[float, float]]] = {
            t.number: list(t.curve) for t in self.records() if t.curve
        }
        if "config" not in self._study.user_attrs:
            self._open(config)

    def _open(self, config: SweepConfig) -> None:
        """First use: line up the baseline and, for a grid, every point; remember the config last, so that a kill in
        between is done again."""
        points = config.space.grid() if config.strategy.type == "grid" and config.space.dimensions else []
        for point in [config.baseline(), *points]:
            self._study.enqueue_trial(point, skip_if_exists=True)
        self._study.set_user_attr("config_text", config.file.read_text(encoding="utf-8"))
        self._study.set_user_attr("optuna_version", optuna.__version__)
        self._study.set_user_attr("config", config.resolved())

    # --- asking and telling ------------------------------------------------------------------------

    def interrupted(self) -> list[int]:
        """Trials that a killed process left running: the caller trains them again under their own numbers."""
        return [t.number for t in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]

    def resume(self, number: int) -> dict[str, Setting]:
        """Take up an interrupted trial; suggests what a kill in the middle of `ask` had left out."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        self._study.sampler = self._sampler(number)
        self._running[number] = optuna.Trial(self._study, frozen._trial_id)
        self._curves.pop(number, None)
        return self._suggest(number)

    def ask(self) -> tuple[int, dict[str, Setting]]:
        """The next point: (trial number, parameters)."""
        # A reopened seeded sampler would start its stream anew and repeat trial 0: seed by number instead.
        self._study.sampler = self._sampler(len(self._study.get_trials(deepcopy=False)))
        trial = self._study.ask()
        self._running[trial.number] = trial
        return trial.number, self._suggest(trial.number)

    def _sampler(self, count: int) -> optuna.samplers.BaseSampler:
        seed = (self._config.seed * 1_000_003 + count) % 2**32
        if self._config.strategy.type == "tpe":
            with warnings.catch_warnings():
                # Some options carry Optuna's "experimental" mark; we chose them knowingly.
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, multivariate=True, constant_liar=True)
        return optuna.samplers.RandomSampler(seed=seed)

    def _suggest(self, number: int) -> dict[str, Setting]:
        trial = self._running[number]
        return {name: _suggest(trial, name, d) for name, d in self._config.space.dimensions.items()}

    def report(self, number: int, fraction: float, value: float) -> None:
        """Record an evaluation. Evaluations that a resumed trial repeats are not written twice."""
        curve = self._curves.setdefault(number, [])
        curve.append((fraction, value))
        trial = self._running[number]
        known = self._study.get_trials(deepcopy=False)[number].intermediate_values
        if len(curve) - 1 not in known:
            trial.report(value, step=len(curve) - 1)

    def set_run_id(self, number: int, run_id: str) -> None:
        self._running[number].set_user_attr("run_id", run_id)

    def finish(self, number: int, result: TrialResult) -> None:
        """Tell Optuna how a trial ended; the result goes first, so a final state always has one."""
        trial = self._running.pop(number)
        trial.set_user_attr("fractions", [fraction for fraction, _ in self._curves.get(number, [])])
        trial.set_user_attr("result", to_json(result))
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        state = states[result.state]
        value = result.value if state == TrialState.COMPLETE else None
        if value is not None and math.isnan(value):
            raise ValueError(f"trial {number} is complete without a value: a trainer must end it as diverged")
        self._study.tell(trial, value, state=state)

    # --- reading -----------------------------------------------------------------------------------

    @property
    def curves(self) -> Mapping[int, Sequence[tuple[float, float]]]:
        """Curves of all trials, running ones included."""
        return self._curves

    def finished_or_running(self) -> int:
        """How many trials have been handed out; waiting ones (a grid's queue) do not count."""
        return sum(t.state != TrialState.WAITING for t in self._study.get_trials(deepcopy=False))

    def records(self) -> list[TrialRecord]:
        return _records(self._study)

    def set_attr(self, name: str, value: Any) -> None:
        self._study.set_user_attr(name, value)

    def attrs(self) -> dict[str, Any]:
        return dict(self._study.user_attrs)


def open_study(config: SweepConfig, database: Path | None) -> Study:
    """Open or create the study of a sweep; `database` None keeps it in memory (tests, benchmarks)."""
    return Study(config, _storage(database))


def stored_attrs(database: Path, name: str) -> dict[str, Any]:
    """What a sweep has written down about itself; empty when there is no such sweep."""
    if name not in study_names(database):
        return {}
    return dict(optuna.load_study(study_name=name, storage=_storage(database)).user_attrs)


def view_study(database: Path, name: str) -> StudyView:
    """Read a study. Raises `UsageError` naming the sweeps there are."""
    names = study_names(database)
    if name not in names:
        known = f"there are: {', '.join(names)}" if names else "there are none yet"
        raise UsageError(f"no sweep {name!r}; {known}")
    study = optuna.load_study(study_name=name, storage=_storage(database))
    attrs = dict(study.user_attrs)
    objective = attrs["config"]["objective"]
    return StudyView(
        name, attrs["config"], Objective(objective["metric"], objective["direction"]), _records(study), attrs
    )


def study_names(database: Path) -> list[str]:
    if not database.exists():
        return []
    studies = _storage(database).get_all_studies()
    return sorted(study.study_name for study in studies if "config" in study.user_attrs)


def _storage(database: Path | None) -> optuna.storages.BaseStorage:
    if database is None:
        return optuna.storages.InMemoryStorage()
    return optuna.storages.RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 30}})


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Setting:
    value: Setting
    if isinstance(dimension, Choice):
        value = trial.suggest_categorical(name, dimension.values)
    elif isinstance(dimension, Int):
        # Optuna takes no step with log.
        value = trial.suggest_int(
            name, dimension.low, dimension.last, log=dimension.log, step=1 if dimension.log else dimension.step
        )
    else:
        value = trial.suggest_float(name, dimension.low, dimension.last, log=dimension.log, step=dimension.step)
    return value


def _records(study: optuna.Study) -> list[TrialRecord]:
    records = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.WAITING:
            continue
        fractions = trial.user_attrs.get("fractions", [])
        values = [value for _, value in sorted(trial.intermediate_values.items())]
        stored = trial.user_attrs.get("result")
        records.append(
            TrialRecord(
                number=trial.number,
                state=_STATES[trial.state],
                params=dict(trial.params),
                curve=list(zip(fractions, values, strict=False)),
                run_id=trial.user_attrs.get("run_id"),
                result=from_json(TrialResult, stored) if stored else None,
            )
        )
    return records
