"""Studies read with a few statements of SQL: Optuna's objects, and Optuna itself, would take most of a reader's time.

All statements of a reader see the database at one moment.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from typing import Any, TypeVar

import msgspec

from hpo.databases.migrations import REVISION_QUERY, VERSION_TABLE, optuna_migrations
from hpo.databases.sqlite import connect, usable
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError
from hpo.results.records import StudySnapshot
from hpo.study.stored_state import read_state
from hpo.study.stored_trial import StoredTrial, read_trials
from trainers.protocol.events import TrialResult
from trainers.protocol.settings import Setting

SCHEMA = "v3.2.0.a"
"""The tables that these statements read, by Optuna's own name for their version."""
T = TypeVar("T")
Revisions = dict[str, list[tuple[str, int]]]
"""Sweep -> (name, id) of its Optuna studies, the newest last."""
Ask = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]
"""The rows of a statement whose values are named `:name`."""

_OF_TRIALS = "JOIN trials t ON t.trial_id = x.trial_id WHERE t.study_id = :study"
_TRIALS = "SELECT trial_id, state FROM trials WHERE study_id = :study ORDER BY trial_id"
_POINTS = f"""SELECT x.trial_id, x.param_name, x.param_value, x.distribution_json
    FROM trial_params x {_OF_TRIALS} ORDER BY t.trial_id, x.param_id"""  # noqa: S608  # a constant
_ATTRIBUTES = f"""SELECT x.trial_id, x.key, x.value_json
    FROM trial_user_attributes x {_OF_TRIALS}"""  # noqa: S608  # a constant
_REPORTS = f"""SELECT x.trial_id, x.step, x.intermediate_value, x.intermediate_value_type
    FROM trial_intermediate_values x {_OF_TRIALS}"""  # noqa: S608  # a constant
_STATE = "SELECT key, value_json FROM study_user_attributes WHERE study_id = :study"
_OPENED = """SELECT s.study_name, s.study_id FROM studies s
    JOIN study_user_attributes a ON a.study_id = s.study_id AND a.key = 'config'"""
_NUMBERS: Mapping[str, float] = {"NAN": math.nan, "INF_POS": math.inf, "INF_NEG": -math.inf}
"""What a database has no number for."""


class StudiesReader:
    """The studies of a database at one moment."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def revisions(self) -> Revisions:
        """Of every sweep; only those that were opened to the end."""
        found: dict[str, list[tuple[int, str, int]]] = {}
        for full, study in self._ask(_OPENED, {}):
            name, _, revision = full.partition("@")
            found.setdefault(name, []).append((int(revision or 1), full, study))
        return {name: [(full, study) for _, full, study in sorted(known)] for name, known in found.items()}

    def attributes(self, study: int) -> dict[str, Any]:
        """What a study says about itself."""
        return {key: json.loads(value) for key, value in self._ask(_STATE, {"study": study})}

    def trials(self, study: int, *, is_brief: bool = False) -> list[StoredTrial]:
        """The trials of a study, in the order in which they began; in brief without what came before their results."""
        key = {"study": study}
        points: defaultdict[int, dict[str, Setting]] = defaultdict(dict)
        for trial, name, value, distribution in self._ask(_POINTS, key):
            points[trial][name] = _reading(distribution)(value)
        attributes: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        rows = self._ask(_ATTRIBUTES, key)
        results = [row for row in rows if row[1] == "result"]
        others = [row for row in rows if row[1] != "result"]
        values = [
            *_parsed([row[2] for row in results], list[TrialResult]),
            *_parsed([row[2] for row in others], list[Any]),
        ]
        for (trial, name, _), value in zip([*results, *others], values, strict=True):
            attributes[trial][name] = value
        reports: defaultdict[int, dict[int, float]] = defaultdict(dict)
        for trial, step, value, kind in [] if is_brief else self._ask(_REPORTS, key):
            reports[trial][step] = _NUMBERS.get(kind, value)
        return [
            StoredTrial(state, points[trial], attributes[trial], reports[trial])
            for trial, state in self._ask(_TRIALS, key)
        ]

    def snapshot(self, name: str, study: int, *, is_brief: bool = False) -> StudySnapshot:
        """A revision of a sweep. Raises `LookupError`, `TypeError` or `ValueError` where its records do not fit."""
        state = read_state(self.attributes(study))
        return StudySnapshot(name, state, read_trials(self.trials(study, is_brief=is_brief), state.run_ids))


def read(database: StudiesDatabase, of: Callable[[StudiesReader], T], nothing: T) -> T:
    """What `of` reads; `nothing` where there are no studies yet, and nothing is made.

    Raises `HpoError` where something else is at that place, or it cannot be read.
    """
    if database.file and not usable(database.file, to_write=False):
        return nothing

    def of_all(ask: Ask) -> T:
        return of(StudiesReader(ask)) if _has_studies(database, ask) else nothing

    return _read_file(database, of_all) if database.file else _read_server(database, of_all)


def _has_studies(database: StudiesDatabase, ask: Ask) -> bool:
    """Raises `HpoError` for tables of another version."""
    catalog = (
        "sqlite_master WHERE name" if database.file else "pg_tables WHERE schemaname = current_schema() AND tablename"
    )
    if not ask(f"SELECT 1 FROM {catalog} = :table", {"table": VERSION_TABLE}):  # noqa: S608  # constants
        return False
    found = ask(REVISION_QUERY, {})
    if found and (revision := str(found[0][0])) != SCHEMA:
        optuna_migrations().check(str(database), revision)
        raise HpoError(f"{database}: has schema {revision} of Optuna, and this hpo reads {SCHEMA}: use the hpo that "
                       "wrote it")  # fmt: skip
    return bool(found)


def _read_file(database: StudiesDatabase, of: Callable[[Ask], T]) -> T:
    assert database.file  # noqa: S101  # the caller looked
    try:
        with closing(connect(database.file)) as connection:
            connection.execute("BEGIN")
            return of(lambda statement, values: connection.execute(statement, values).fetchall())
    except sqlite3.Error as error:
        raise database.refusal(error) from error


def _read_server(database: StudiesDatabase, of: Callable[[Ask], T]) -> T:
    from sqlalchemy import text  # late: who reads a file does without

    from hpo.databases.postgres import opened, patiently

    with opened(database) as engine:

        def reading(_: bool) -> T:
            with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
                return of(lambda statement, values: connection.execute(text(statement), values).all())

        return patiently(database, reading)


def _parsed(texts: Iterable[str], kind: type[list[T]]) -> list[T]:
    """The values of JSON texts, parsed as one: a call for each of 30,000 would take longer than the parsing.

    msgspec makes results themselves, most of what a study holds, in a fifth of the time of Python's parser and `codec`.

    Raises `ValueError` where one is no JSON, or not of that kind.
    """
    text = f"[{','.join(texts)}]"
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # a number is NaN, which Python writes and JSON does not have
        return msgspec.convert(json.loads(text), kind)


@cache
def _reading(distribution: str) -> Callable[[float], Setting]:
    """What makes the setting of the number that Optuna keeps for it; a study has few dimensions, and each trial repeats
    their text. Raises `ValueError` for a kind of dimension that no sweep has."""
    content = json.loads(distribution)
    kind, choices = content["name"], content["attributes"].get("choices", ())
    readings: dict[str, Callable[[float], Setting]] = {
        "FloatDistribution": float, "IntDistribution": int,
        "CategoricalDistribution": lambda place: choices[int(place)],
    }  # fmt: skip
    if kind not in readings:
        raise ValueError(f"a dimension of kind {kind}")
    return readings[kind]
