"""The Optuna room: which point to try next, and the record of all that were tried.

One writer: only the sweep process opens a study for writing. The study is the truth; MLflow is a view of it. A sweep
whose space is edited goes on in a new Optuna study, `NAME@2`, into which the trials that still fit are copied; the
number of a trial is ours and stays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from hpo.attempts import RETRIED
from hpo.config import SweepConfig
from hpo.errors import UsageError
from hpo.gp import GaussianProcess, Tried
from hpo.objective import Objective, excess, value_of
from hpo.records import Attempt, StudyView, TrialRecord
from hpo.samplers import STARTUP_TRIALS, distributions, sampler, suggest
from hpo.space import Point
from hpo.strategy import choose_strategy
from trainers.codec import from_json, to_json
from trainers.spec import TrialResult

optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY_ERRORS = (optuna.exceptions.StorageInternalError, SQLAlchemyError)
"""What Optuna and the database below it raise when the store cannot be written."""

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


class Study:
    """A sweep's trials in Optuna: ask, report, tell, and read back."""

    def __init__(self, config: SweepConfig, storage: optuna.storages.BaseStorage, name: str | None = None) -> None:
        self.config = config
        self.strategy = choose_strategy(config.strategy, config.space, len(config.objectives), config.budget.trials)
        # Reports are ours to judge (hpo/pruning.py); Optuna must not prune on its own.
        self._study = optuna.create_study(
            study_name=name or config.name,
            storage=storage,
            directions=[o.direction for o in config.objectives],
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        self._gp = GaussianProcess(config.space, [o.direction for o in config.objectives])
        self._open: dict[int, optuna.Trial] = {}
        self._attrs = dict(self._study.user_attrs)
        found = self._study.get_trials(deepcopy=False)
        self._records = {r.number: r for t in found if (r := _record(t))}
        for trial in found:
            if trial.state == TrialState.RUNNING and "begun" not in trial.user_attrs:  # a kill in the middle of `begin`
                number = self.next_number
                self._write_begun(optuna.Trial(self._study, trial._trial_id), number, "", None)
                self._records[number] = TrialRecord(number, "running", dict(trial.params), "", revision=self.revision)

    # --- asking ------------------------------------------------------------------------------------------

    def interrupted(self) -> list[int]:
        """Trials that a killed process left running: the caller trains them on under their own numbers."""
        return [number for number, record in sorted(self._records.items()) if not record.is_over]

    def resume(self, number: int, identity_of: Callable[[Point], str]) -> Point:
        """Take up an interrupted trial; suggests what a kill in the middle of `ask` had left out.

        One that waited for the result of an equal trial is trained after all when that one has crashed meanwhile.
        """
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        frozen = next(t for t in running if t.user_attrs["begun"]["number"] == number)
        self._study.sampler = sampler(self._sampling, self._seed(number), self.config.strategy.num_trials)
        trial = self._open[number] = optuna.Trial(self._study, frozen._trial_id)
        params = suggest(trial, self.config.space)
        record = self._records[number]
        identity = record.identity or identity_of(params)
        twin = self.twin(identity, but=number)
        reused_from = None if twin is None else str(twin)
        if (identity, reused_from) != (record.identity, record.reused_from):
            self._write_begun(trial, number, identity, reused_from)
            self._change(number, params=params, identity=identity, reused_from=reused_from)
        return params

    def waiting(self) -> Point | None:
        """A point that a killed process lined up and did not begin: the next `begin` takes it, whatever it is given."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return dict(trials[0].system_attrs["fixed_params"]) if trials else None

    def begin(self, point: Point | None, identity_of: Callable[[Point], str]) -> tuple[int, Point]:
        """Begin a trial at a point, or at one that the strategy's model of the objective chooses.

        Returns our number and the point. A trial of the same identity that came before lends its result: see
        `TrialRecord.reused_from`.
        """
        number = self.next_number
        if self.waiting() is None:
            if point is None and self.strategy.type == "gp" and len(tried := self._tried()) >= STARTUP_TRIALS:
                point = self._gp.ask(tried, self._seed(number))
            if point is not None:
                self._study.enqueue_trial(point)
        self._study.sampler = sampler(self._sampling, self._seed(number), self.config.strategy.num_trials)
        trial = self._study.ask()
        params = suggest(trial, self.config.space)
        identity = identity_of(params)
        twin = self.twin(identity)
        reused_from = None if twin is None else str(twin)
        self._open[number] = trial
        self._write_begun(trial, number, identity, reused_from)
        self._records[number] = TrialRecord(
            number, "running", params, identity, reused_from=reused_from, revision=self.revision
        )
        return number, params

    def twin(self, identity: str, but: int | None = None) -> int | None:
        """The trained (or running) trial of the same identity, whose result another one need not earn again; one
        taken over from another sweep lends too.

        A crash says nothing of the point, so it lends nothing; running out of memory and diverging do.
        """
        for record in self._records.values():
            lends = record.result is None or record.result.cause not in RETRIED
            if record.identity == identity and lends and not _is_duplicate(record) and record.number != but:
                return record.number
        return None

    def _write_begun(self, trial: optuna.Trial, number: int, identity: str, reused_from: str | None) -> None:
        """In one attribute: each write costs a transaction."""
        begun = {"number": number, "revision": self.revision, "identity": identity, "reused_from": reused_from}
        trial.set_user_attr("begun", begun)

    @property
    def _sampling(self) -> str:
        """Strategies that have no sampler of Optuna's draw at random where no point is given."""
        return self.strategy.type if self.strategy.type in ("tpe", "nsga2") else "random"

    @property
    def next_number(self) -> int:
        return max([*self._records, int(self._attrs.get("last_number", -1))], default=-1) + 1

    def _seed(self, number: int) -> int:
        return (self.config.seed * 1_000_003 + number) % 2**32

    def _tried(self) -> list[Tried]:
        """What a model of the objective learns from.

        A pruned trial counts with the value that it was pruned at: without it, the model would go on proposing where
        pruning stops everything. With several objectives, and for a point that cannot be trained, the worst value
        seen stands in; for a trial under way the mean, so that it is not proposed again.
        """
        constraints = self.config.constraints
        known, unknown, running = [], [], []
        for record in self._records.values():
            result = record.result
            if _is_duplicate(record) or (result and result.cause in RETRIED):
                continue
            if result is None:
                running.append(record.params)
            elif result.state == "complete" or (result.state == "pruned" and len(self.config.objectives) == 1):
                known.append((record.params, self._values(result), excess(result, constraints)))
            else:
                unknown.append(record.params)
        if not any(record.state == "complete" for record in self._records.values()):
            return []
        columns = list(zip(*(values for _, values, _ in known), strict=True))
        worst = [max(c, key=o.sort_key) for c, o in zip(columns, self.config.objectives, strict=True)]
        mean = [sum(column) / len(column) for column in columns]
        kept = dict.fromkeys(constraints, 0.0)
        return known + [(p, worst, kept) for p in unknown] + [(p, mean, kept) for p in running]

    def _values(self, result: TrialResult) -> list[float]:
        return [value_of(result, o.metric) for o in self.config.objectives]

    # --- telling -----------------------------------------------------------------------------------------

    def set_run_id(self, number: int, run_id: str) -> None:
        if self._records[number].run_id != run_id:
            self._open[number].set_user_attr("run_id", run_id)
            self._change(number, run_id=run_id)

    def set_attempts(self, number: int, attempts: Sequence[Attempt], resumed_from: int | None) -> None:
        trial = self._open[number]
        trial.set_user_attr("attempts", [to_json(attempt) for attempt in attempts])
        trial.set_user_attr("resumed_from", resumed_from)
        self._change(number, attempts=list(attempts), resumed_from=resumed_from)

    def report(self, number: int, index: int, fraction: float, value: float) -> None:
        """Record an evaluation, once: a resumed trial may repeat what is known."""
        curve = self._records[number].curve
        if index < len(curve):
            return
        fraction = _billionths(fraction) / _BILLION  # as it will be read back: rules compare shares of the budget
        self._change(number, curve=[*curve, (fraction, value)])
        if len(self.config.objectives) == 1:  # TPE ranks pruned trials by their reports
            self._open[number].report(value, step=_billionths(fraction))
        else:  # Optuna takes no reports with several objectives
            self._open[number].set_user_attr(f"curve:{index}", [fraction, value])

    def finish(self, number: int, result: TrialResult) -> None:
        """Tell Optuna how a trial ended; the result goes first, so a final state always has one."""
        trial = self._open[number]
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        state = states[result.state]
        values = self._values(result) if state == TrialState.COMPLETE else None
        if values is not None and any(math.isnan(value) for value in values):
            raise ValueError(f"trial {number} is complete without a value: a trainer must end it as diverged")
        trial.set_user_attr("result", to_json(result))
        if state == TrialState.COMPLETE:
            for name, by in excess(result, self.config.constraints).items():
                if name not in trial.constraints:  # a kill may have come just after it was set
                    trial.set_constraint(name, by)
        if state == TrialState.PRUNED and len(self.config.objectives) > 1:
            state = TrialState.FAIL  # NSGA-II and TPE have no place for a pruned trial of several objectives
        self._study.tell(trial, values, state=state)
        del self._open[number]
        self._change(number, state=result.state, result=result)

    def _change(self, number: int, **changes: Any) -> None:
        self._records[number] = dataclasses.replace(self._records[number], **changes)

    # --- copying -----------------------------------------------------------------------------------------

    def copy(self, record: TrialRecord) -> None:
        """Take over a trial of an earlier revision or another sweep; one that was interrupted will go on here."""
        several = len(self.config.objectives) > 1
        reports = None if several else {_billionths(fraction): value for fraction, value in record.curve}
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "running": TrialState.RUNNING}
        state = states.get(record.state, TrialState.FAIL)
        if state == TrialState.PRUNED and several:
            state = TrialState.FAIL
        result = record.result if state == TrialState.COMPLETE else None
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state, params=record.params, distributions=distributions(self.config.space, record.params),
                values=self._values(result) if result else None, intermediate_values=reports,
                constraints=excess(result, self.config.constraints) if result else None,
                user_attrs=_attrs_of(record, with_curve=several),
            )
        )  # fmt: skip
        self._records[record.number] = record

    # --- reading -----------------------------------------------------------------------------------------

    @property
    def objective(self) -> Objective:
        return self.config.objective

    @property
    def revision(self) -> int:
        return int(self._attrs.get("revision", 1))

    @property
    def curves(self) -> Mapping[int, Sequence[tuple[float, float]]]:
        """Curves of all trials that were trained, running ones included."""
        return {n: r.curve for n, r in self._records.items() if r.curve and not r.reused_from}

    def record(self, number: int) -> TrialRecord:
        return self._records[number]

    def records(self) -> list[TrialRecord]:
        return list(self._records.values())

    def set_attr(self, name: str, value: Any) -> None:
        self._study.set_user_attr(name, value)
        self._attrs[name] = value

    def attrs(self) -> dict[str, Any]:
        return dict(self._attrs)

    def close(self) -> None:
        self._gp.close()


def open_study(config: SweepConfig, database: Path | None, name: str | None = None) -> Study:
    """Open or create a study; `database` None keeps it in memory (tests, benchmarks)."""
    return Study(config, _storage(database), name)


def newest_study_name(database: Path, name: str) -> str | None:
    """The Optuna study of a sweep's newest revision; None when there is no such sweep."""
    revisions = _revisions(database).get(name)
    return revisions[-1] if revisions else None


def stored_attrs(database: Path, name: str) -> dict[str, Any]:
    """What a sweep has written down about itself; empty when there is no such sweep."""
    newest = newest_study_name(database, name)
    return dict(optuna.load_study(study_name=newest, storage=_storage(database)).user_attrs) if newest else {}


def view_study(database: Path, name: str) -> StudyView:
    """Read a study. Raises `UsageError` naming the sweeps there are."""
    newest = newest_study_name(database, name)
    if newest is None:
        names = study_names(database)
        known = f"there are: {', '.join(names)}" if names else "there are none yet"
        raise UsageError(f"no sweep {name!r}; {known}")
    study = optuna.load_study(study_name=newest, storage=_storage(database))
    attrs = dict(study.user_attrs)
    objectives = tuple(Objective(o["metric"], o["direction"]) for o in attrs["config"]["objective"])
    records = [record for trial in study.get_trials(deepcopy=False) if (record := _record(trial))]
    return StudyView(name, attrs["config"], objectives, records, attrs)


def study_names(database: Path) -> list[str]:
    return sorted(_revisions(database))


def delete_unopened(database: Path, study_name: str) -> None:
    """Remove a revision that a kill left half copied."""
    storage = _storage(database)
    for study in storage.get_all_studies():
        if study.study_name == study_name and "config" not in study.user_attrs:
            optuna.delete_study(study_name=study_name, storage=storage)


def _revisions(database: Path) -> dict[str, list[str]]:
    """Sweep -> its Optuna studies, the newest last; only those that were opened to the end."""
    if not database.exists():
        return {}
    found: dict[str, list[tuple[int, str]]] = {}
    for study in _storage(database).get_all_studies():
        name, _, revision = study.study_name.partition("@")
        if "config" in study.user_attrs:
            found.setdefault(name, []).append((int(revision or 1), study.study_name))
    return {name: [full for _, full in sorted(revisions)] for name, revisions in found.items()}


def _storage(database: Path | None) -> optuna.storages.BaseStorage:
    if database is None:
        return optuna.storages.InMemoryStorage()
    return optuna.storages.RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 30}})


# --- one trial, to and from Optuna's attributes ----------------------------------------------------------

_BILLION = 1_000_000_000  # fits the 32 bits that a database has for a step


def _billionths(fraction: float) -> int:
    """A share of the budget as Optuna's step, a whole number."""
    return round(fraction * _BILLION)


def _is_duplicate(record: TrialRecord) -> bool:
    """Whether a trial has the result of another one of this sweep."""
    return (record.reused_from or "").isdigit()


def _attrs_of(record: TrialRecord, *, with_curve: bool) -> dict[str, Any]:
    begun = {
        "number": record.number, "revision": record.revision, "identity": record.identity,
        "reused_from": record.reused_from,
    }  # fmt: skip
    attrs = {
        "begun": begun, "run_id": record.run_id, "attempts": [to_json(a) for a in record.attempts],
        "resumed_from": record.resumed_from, "result": to_json(record.result) if record.result else None,
    }  # fmt: skip
    curve = {f"curve:{index}": list(point) for index, point in enumerate(record.curve)} if with_curve else {}
    return {name: value for name, value in {**attrs, **curve}.items() if value is not None}


def _record(trial: FrozenTrial) -> TrialRecord | None:
    """None for a trial that waits, or that a kill caught before it had a number."""
    attrs = trial.user_attrs
    if trial.state == TrialState.WAITING or "begun" not in attrs:
        return None
    begun = attrs["begun"]
    is_over = trial.state != TrialState.RUNNING
    result = from_json(TrialResult, attrs["result"]) if is_over and attrs.get("result") else None
    return TrialRecord(
        number=begun["number"],
        state=result.state if result else _STATES[trial.state],
        params=dict(trial.params),
        identity=begun["identity"],
        curve=_curve(trial),
        run_id=attrs.get("run_id"),
        result=result,
        attempts=[from_json(Attempt, attempt) for attempt in attrs.get("attempts", [])],
        resumed_from=attrs.get("resumed_from"),
        reused_from=begun["reused_from"],
        revision=begun["revision"],
    )


def _curve(trial: FrozenTrial) -> list[tuple[float, float]]:
    if trial.intermediate_values:
        return [(step / _BILLION, value) for step, value in sorted(trial.intermediate_values.items())]
    curve: list[tuple[float, float]] = []
    while (point := trial.user_attrs.get(f"curve:{len(curve)}")) is not None:
        curve.append((point[0], point[1]))
    return curve
