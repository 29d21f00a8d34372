"""The Optuna room: which point to try next, and the record of all that were tried.

One writer: only the sweep process opens a study for writing. The study is the truth; MLflow is a view of it. A sweep
whose space is edited goes on in a new Optuna study, `NAME@2`, into which the trials that still fit are copied; the
number of a trial is ours and stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from hpo.config.objective import Objective
from hpo.config.space import Point
from hpo.config.strategy import choose_strategy, spread_point
from hpo.config.sweep_config import SweepConfig
from hpo.results.records import Attempt, TrialRecord, is_lost
from hpo.results.state import SweepState
from hpo.study.asking import Allowed, anything, asked
from hpo.study.gp import GaussianProcess
from hpo.study.informed import propose
from hpo.study.optuna_trial import as_optuna_sees
from hpo.study.samplers import STARTUP_TRIALS, distributions, sampler, suggest
from hpo.study.storage import close_storage
from hpo.study.stored_state import read_state
from hpo.study.stored_trial import BILLION, StoredTrial, attrs_of, begun_of, billionths, read_trials
from hpo.study.tried import points_tried
from trainers.protocol.codec import to_json, to_plain, to_record
from trainers.protocol.events import TrialResult


def _stored(trial: optuna.trial.FrozenTrial) -> StoredTrial:
    return StoredTrial(trial.state.name, dict(trial.params), trial.user_attrs, trial.intermediate_values)


class Study:
    """A sweep's trials in Optuna: ask, report, tell, and read back."""

    def __init__(
        self, config: SweepConfig, fingerprint_of: Callable[[Point], str], storage: optuna.storages.BaseStorage,
        name: str | None = None,
    ) -> None:  # fmt: skip
        """`fingerprint_of` is that of the trial at a point; `name` is Optuna's, where it is not the sweep's."""
        self.config = config
        self.fingerprint_of = fingerprint_of
        self._storage = storage
        # Reports are ours to judge (hpo/pruning/); Optuna must not prune on its own.
        self._study = optuna.create_study(
            study_name=name or config.name,
            storage=storage,
            directions=[o.direction for o in config.objectives],
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        self._directions = [o.direction for o in config.objectives]
        self._gp = GaussianProcess(config.space, self._directions)
        self._open: dict[int, optuna.Trial] = {}
        self.state: SweepState = read_state(self._study.user_attrs)
        self.strategy = choose_strategy(
            config.strategy, config.space, len(config.objectives), config.budget.trials, self.state.strategy
        )
        found = self._study.get_trials(deepcopy=False)
        self._records = {r.number: r for r in read_trials(map(_stored, found), self.state.run_ids)}
        for trial in found:
            if trial.state == TrialState.RUNNING and "begun" not in trial.user_attrs:  # a kill in the middle of `begin`
                if "fixed_params" not in trial.system_attrs:  # a sampler's point, which may not even be allowed
                    self._study.tell(trial.number, state=TrialState.FAIL)
                    continue
                ghost = TrialRecord(self.next_number, "running", dict(trial.params), "", revision=self.revision)
                self._write_begun(optuna.Trial(self._study, trial._trial_id), ghost)

    # --- asking ------------------------------------------------------------------------------------------

    def interrupted(self) -> list[int]:
        """Trials that a killed process left running: the caller trains them on under their own numbers."""
        return [number for number, record in sorted(self._records.items()) if not record.is_over]

    def resume(self, number: int) -> Point:
        """Take up an interrupted trial; suggests what a kill in the middle of `ask` had left out.

        One that waited for the result of an equal trial is trained after all when that one has crashed meanwhile.
        """
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        frozen = next(t for t in running if t.user_attrs["begun"]["number"] == number)
        self._study.sampler = sampler(self._sampling, self._seed(number), self.config.strategy.num_trials)
        trial = self._open[number] = optuna.Trial(self._study, frozen._trial_id)
        record, params = self._records[number], suggest(trial, self.config.space)
        fingerprint = record.fingerprint or self.fingerprint_of(params)
        reused_from = self.twin(fingerprint, but=number)
        if (fingerprint, reused_from) != (record.fingerprint, record.reused_from):
            found = dataclasses.replace(record, params=params, fingerprint=fingerprint, reused_from=reused_from)
            self._write_begun(trial, found)
        return params

    def reopen(self, number: int) -> None:
        """Make a trial that was stopped an interrupted one, to be taken up by `resume`. Raises `KeyError`.

        Optuna changes nothing of a trial that is over: it gets a second one with our number, which counts from then on.
        """
        self.copy(dataclasses.replace(self._records[number], state="running", result=None, has_gone_on=True))

    def waiting(self) -> Point | None:
        """A point that a killed process lined up and did not begin: the next `begin` takes it, whatever it is given."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return dict(trials[0].system_attrs["fixed_params"]) if trials else None

    def begin(self, point: Point | None, allowed: Allowed = anything) -> tuple[int, Point] | None:
        """Begin a trial at a point, or at an `allowed` one that the strategy chooses.

        Returns our number and the point; None where the strategy finds none that is allowed. An equal trial that came
        before lends its result: see `TrialRecord.reused_from`.
        """
        number = self.next_number
        if self.waiting() is None:
            if point is None and (modelled := self._modelled(number, allowed)) and allowed(modelled):
                point = modelled
            if point is not None:
                self._study.enqueue_trial(point)
        is_given = self.waiting() is not None
        kind, trials = self._sampling, self.config.strategy.num_trials
        begun = asked(
            self._study, self.config.space, lambda seed: sampler(kind, seed, trials), self._seed(number),
            anything if is_given else allowed,
        )  # fmt: skip
        if begun is None:
            return None
        self._open[number], params = begun
        fingerprint = self.fingerprint_of(params)
        twin = self.twin(fingerprint)
        record = TrialRecord(number, "running", params, fingerprint, reused_from=twin, revision=self.revision)
        self._write_begun(self._open[number], record)
        return number, params

    def _modelled(self, number: int, allowed: Allowed) -> Point | None:
        """What a model of the objective that is not Optuna's sampler proposes; None where there is none, or too early.

        Until a trial is complete, `informed` has nothing to learn from: trials begun meanwhile are spread evenly.
        """
        kind = self.strategy.type
        if kind == "gp" and len(tried := points_tried(self.records(), self.config)) >= STARTUP_TRIALS:
            return self._gp.ask(tried, self._seed(number))
        if kind != "informed":
            return None
        if tried := points_tried(self.records(), self.config):
            return propose(self.config.space, self._directions, tried, self._seed(number), allowed)
        return spread_point(self.config.space, number, self.config.seed)

    def twin(self, fingerprint: str, but: int | None = None) -> str | None:
        """The number of the trained (or running) trial with the same fingerprint: another one takes its result over
        without training. One that was itself taken over from another sweep counts too.

        What was lost (see `is_lost`) lends nothing; running out of memory and diverging do.
        """
        for record in self._records.values():
            lends = record.result is None or not is_lost(record.result)
            if record.fingerprint == fingerprint and lends and not record.is_duplicate and record.number != but:
                return str(record.number)
        return None

    def _write_begun(self, trial: optuna.Trial, record: TrialRecord) -> None:
        trial.set_user_attr("begun", begun_of(record))
        self._records[record.number] = record

    @property
    def _sampling(self) -> str:
        """Strategies that have no sampler of Optuna's draw at random where no point is given."""
        return self.strategy.type if self.strategy.type in ("tpe", "nsga2") else "random"

    @property
    def next_number(self) -> int:
        """The number that the next trial gets: one more than any trial of any revision had."""
        return max([*self._records, self.state.last_number]) + 1

    def _seed(self, number: int) -> int:
        return (self.config.seed * 1_000_003 + number) % 2**32

    # --- telling -----------------------------------------------------------------------------------------

    def set_run_id(self, number: int, run_id: str) -> None:
        """Record the MLflow run of a trial that is under way."""
        if self._records[number].run_id != run_id:
            self._open[number].set_user_attr("run_id", run_id)
            self._change(number, run_id=run_id)

    def replace_run(self, number: int, run_id: str) -> None:
        """The run of a trial that is over was made anew. Optuna changes nothing of such a trial: the study notes it."""
        self.update_state(run_ids={**self.state.run_ids, str(number): run_id})
        self._change(number, run_id=run_id)

    def set_attempts(self, number: int, attempts: Sequence[Attempt], resumed_from: int | None) -> None:
        """Record the attempts before the current one, and the step that this one resumed from."""
        trial = self._open[number]
        trial.set_user_attr("attempts", [to_record(attempt) for attempt in attempts])
        trial.set_user_attr("resumed_from", resumed_from)
        self._change(number, attempts=list(attempts), resumed_from=resumed_from)

    def report(self, number: int, index: int, fraction: float, value: float) -> None:
        """Record an evaluation, once: a resumed trial may repeat what is known."""
        curve = self._records[number].curve
        if index < len(curve):
            return
        fraction = billionths(fraction) / BILLION  # as it will be read back: rules compare shares of the budget
        self._change(number, curve=[*curve, (fraction, value)])
        if len(self.config.objectives) == 1:  # TPE ranks pruned trials by their reports
            self._open[number].report(value, step=billionths(fraction))
        else:  # Optuna takes no reports with several objectives
            self._open[number].set_user_attr(f"curve:{index}", [fraction, value])

    def finish(self, number: int, result: TrialResult) -> None:
        """Tell Optuna how a trial ended; the result goes first, so a final state always has one."""
        trial = self._open[number]
        record = dataclasses.replace(self._records[number], state=result.state, result=result)
        seen = as_optuna_sees(record, self.config)
        trial.set_user_attr("result", to_json(result))
        for name, by in seen.constraints.items():
            if name not in trial.constraints:  # a kill may have come just after it was set
                trial.set_constraint(name, by)
        self._study.tell(trial, seen.values, state=seen.state)
        del self._open[number]
        self._records[number] = record

    def _change(self, number: int, **changes: Any) -> None:
        self._records[number] = dataclasses.replace(self._records[number], **changes)

    # --- copying -----------------------------------------------------------------------------------------

    def copy(self, record: TrialRecord) -> None:
        """Take over a trial of an earlier revision or another sweep; one that was interrupted will go on here."""
        several, seen = len(self.config.objectives) > 1, as_optuna_sees(record, self.config)
        reports = None if several else {billionths(fraction): value for fraction, value in record.curve}
        self._study.add_trial(
            optuna.trial.create_trial(
                state=seen.state, params=record.params, distributions=distributions(self.config.space, record.params),
                values=seen.values, intermediate_values=reports, constraints=seen.constraints,
                user_attrs=attrs_of(record, with_curve=several),
            )
        )  # fmt: skip
        self._records[record.number] = record

    # --- reading -----------------------------------------------------------------------------------------

    @property
    def objective(self) -> Objective:
        """What the search optimizes; of several objectives the first."""
        return self.config.objective

    @property
    def revision(self) -> int:
        """How often the file was edited in a way that trials notice, plus one."""
        return self.state.revision

    @property
    def curves(self) -> Mapping[int, Sequence[tuple[float, float]]]:
        """Curves of all trials that were trained, running ones included."""
        return {n: r.curve for n, r in self._records.items() if r.curve and not r.reused_from}

    def record(self, number: int) -> TrialRecord:
        """One trial by its number. Raises `KeyError` for a number that no trial has."""
        return self._records[number]

    def records(self) -> list[TrialRecord]:
        """All trials, in the order in which they began."""
        return list(self._records.values())

    def update_state(self, **changes: Any) -> None:
        """Write fields of the state, in the order given; a kill in between leaves the first ones."""
        self.state = dataclasses.replace(self.state, **changes)
        for name, value in changes.items():
            self._study.set_user_attr(name, to_plain(value))

    def close(self) -> None:
        """End the process that the Gaussian process runs in, if it was started, and close the database."""
        self._gp.close()
        close_storage(self._storage)
