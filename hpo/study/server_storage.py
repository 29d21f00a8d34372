"""Optuna's storage on a PostgreSQL server that may vanish: a call waits and is repeated, and nothing happens twice."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from hpo.databases.postgres import engine_settings, opened, patiently
from hpo.databases.studies import StudiesDatabase
from hpo.study.lease import Lease

T = TypeVar("T")

_NEWEST = text("SELECT max(trial_id) FROM trials WHERE study_id = :study")
_CREATING = text("SELECT pg_advisory_xact_lock(7049813)")
"""Held while Optuna creates its tables: two processes that do so at once disturb each other."""


def repeated(call: Callable[..., Any]) -> Callable[..., Any]:
    """A call of Optuna's that may be carried out twice: it reads, or writes the same row again."""

    @functools.wraps(call)
    def repeating(self: ServerStorage, *arguments: Any, **keywords: Any) -> Any:
        return self.patiently(lambda _: call(self, *arguments, **keywords))

    return repeating


class ServerStorage(RDBStorage):
    """Optuna's storage. One process writes a study, so a trial that was not there before a broken call is this one's.

    Each transaction that writes first renews `lease`, and fails where this process does not hold it any more.
    """

    def __init__(self, database: StudiesDatabase, lease: Lease) -> None:
        self._database = database
        self._lease = lease
        patiently(database, lambda _: self._open())
        lease.guard(self.engine)

    def _open(self) -> None:
        with opened(self._database) as engine, engine.begin() as connection:
            connection.execute(_CREATING)
            super().__init__(self._database.url, engine_settings(self._database))

    def patiently(self, step: Callable[[bool], T]) -> T:
        """As `postgres.patiently`; a repeated `step` begins when the server has ended the earlier transaction."""

        def settled(is_again: bool) -> T:
            if is_again:
                self._lease.renew()  # waits for whatever holds the lease's row
            return step(is_again)

        return patiently(self._database, settled)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        before = self._newest(study_id)

        def create(is_again: bool) -> FrozenTrial:
            if is_again and (made := self._newest(study_id)) != before:
                return self.get_trial(made)
            return RDBStorage._create_new_trial(self, study_id, template_trial)

        return self.patiently(create)

    def _newest(self, study_id: int) -> int:
        def read(_: bool) -> int:
            with self.engine.connect() as connection:
                return int(connection.execute(_NEWEST, {"study": study_id}).scalar() or 0)

        return self.patiently(read)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:  # fmt: skip
        """As Optuna's; a state that is reached already was set by the broken call."""

        def write(is_again: bool) -> bool:
            if is_again and self.get_trial(trial_id).state == state:
                return True
            return bool(RDBStorage.set_trial_state_values(self, trial_id, state, values))

        return self.patiently(write)

    create_new_study = repeated(RDBStorage.create_new_study)  # a name that exists already is loaded by the caller
    set_study_user_attr = repeated(RDBStorage.set_study_user_attr)
    set_study_system_attr = repeated(RDBStorage.set_study_system_attr)
    set_trial_user_attr = repeated(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = repeated(RDBStorage.set_trial_system_attr)
    set_trial_intermediate_value = repeated(RDBStorage.set_trial_intermediate_value)
    _set_trial_param = repeated(RDBStorage._set_trial_param)
    get_study_id_from_name = repeated(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = repeated(RDBStorage.get_study_name_from_id)
    get_study_directions = repeated(RDBStorage.get_study_directions)
    get_study_user_attrs = repeated(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = repeated(RDBStorage.get_study_system_attrs)
    get_all_studies = repeated(RDBStorage.get_all_studies)
    get_trial = repeated(RDBStorage.get_trial)
    get_trial_id_from_study_id_trial_number = repeated(RDBStorage.get_trial_id_from_study_id_trial_number)
    _get_trials = repeated(RDBStorage._get_trials)
    _get_best_trial_id = repeated(RDBStorage._get_best_trial_id)
