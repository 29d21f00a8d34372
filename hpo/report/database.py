"""Sweeps as tables of a database in memory, to be asked in SQL: what is asked can read them and nothing else."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.errors import UsageError
from hpo.quoting import clipped, listed
from hpo.results.records import StudySnapshot
from hpo.results.summary import SweepSummary

MOST_ROWS = 100_000
"""Of an answer."""
MOST_SECONDS = 60.0
"""That a question may take."""
MOST_BYTES = 50_000_000
"""Of an answer, and so of one value."""
MOST_MEMORY = 1_000_000_000
"""Bytes that SQLite may use."""
_STEPS = 10_000
"""Of SQLite's machine between two looks at the clock."""

SWEEPS = ("sweep", "state", "task", "metric", "direction", "revision", "trials", "champion", "value", "repeat",
          "low", "high", "baseline", "baseline_value", "hours", "gpu_hours", "cost", "release", "config")  # fmt: skip
TRIALS = ("sweep", "trial", "state", "value", "is_baseline", "is_champion", "revision", "seconds", "stopped_by",
          "cause", "message", "reused_from", "trainable_parameters", "adapter_mb", "began", "ended", "run_id",
          "metrics")  # fmt: skip
EVALUATIONS = ("sweep", "trial", "evaluation", "share", "step", "examples", "tokens", "seconds", "value", "metrics")
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


@dataclass(frozen=True)
class Answer:
    """Columns and rows; a value is a number, a text or None."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Database:
    """Tables `sweeps`, `trials` (with a column for each searched setting) and `evaluations`."""

    def __init__(self, sweeps: Sequence[tuple[StudySnapshot, SweepSummary]]) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        settings = sorted({name for _, summary in sweeps for trial in summary.trials for name in trial.params})
        self.tables: dict[str, tuple[str, ...]] = {
            "sweeps": SWEEPS, "trials": (*TRIALS, *settings), "evaluations": EVALUATIONS,
        }  # fmt: skip
        self._connection.execute("BEGIN")
        for table, columns in self.tables.items():
            names = ", ".join(f'"{column}"' for column in columns)
            self._connection.execute(f"CREATE TABLE {table} ({names})")
        for study, summary in sweeps:
            self._fill("sweeps", [_sweep(study, summary)])
            self._fill("trials", _trials(summary, settings))
            self._fill("evaluations", _evaluations(study))
        self._connection.execute("COMMIT")
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        for bound in ("query_only = ON", "temp_store = MEMORY", f"hard_heap_limit = {MOST_MEMORY}"):
            self._connection.execute(f"PRAGMA {bound}")
        self._connection.set_authorizer(_only_reading)

    def _fill(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        places = ", ".join("?" for _ in self.tables[table])
        self._connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608  # our own names

    def ask(self, question: str) -> Answer:
        """The answer to one SELECT. Raises `UsageError` for anything else, and for one without an end."""
        until = time.monotonic() + MOST_SECONDS
        self._connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
        try:
            cursor = self._connection.execute(question)
            rows = [[_shown(value) for value in row] for row in _bounded(cursor)]
        except (sqlite3.Error, sqlite3.Warning, OverflowError, MemoryError, UnicodeEncodeError) as error:
            raise UsageError(f"query: {self._what(error)}") from error
        if cursor.description is None:
            raise UsageError("query: found nothing to answer; expected one SELECT")
        return Answer([name for name, *_ in cursor.description], rows)

    def _what(self, error: Exception) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_INTERRUPT:
            return f"it took longer than {MOST_SECONDS:.0f} seconds; ask for less"
        if code == sqlite3.SQLITE_AUTH:
            return "it would do something else than read the tables; expected one SELECT"
        tables = "; ".join(f"{table} has {listed(columns)}" for table, columns in self.tables.items())
        return f"{clipped(str(error))}; {tables}; `hpo query` without SQL lists every column"


def _bounded(rows: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
    """The rows of an answer, as long as a person or a program can take them. Raises `UsageError`."""
    size = 0
    for count, row in enumerate(rows):
        size += sum(len(value) for value in row if isinstance(value, (str, bytes)))
        if count >= MOST_ROWS or size > MOST_BYTES:
            raise UsageError(
                f"query: the answer has more than {MOST_ROWS:,} rows or {MOST_BYTES:,} characters; add a LIMIT, or "
                "group them"
            )
        yield row


def _only_reading(action: int, *names: str | None) -> int:
    """SQLite asks this of each thing that a statement would do."""
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _sweep(study: StudySnapshot, summary: SweepSummary) -> list[Any]:
    champion, baseline, finalists = summary.champion, summary.baseline, summary.finalists
    interval = finalists.of(champion.number).interval if finalists and champion else None
    release = summary.release
    return [
        summary.sweep, summary.state, summary.task, summary.objective.metric, summary.objective.direction,
        summary.revision, len(summary.trials), champion and champion.number, champion and champion.value,
        champion and champion.repeat, interval and interval.low, interval and interval.high,
        baseline and baseline.number, baseline and baseline.value, summary.spent.hours, summary.spent.gpu_hours,
        summary.spent.cost, release and f"{release.name}/{release.version}", json.dumps(study.config),
    ]  # fmt: skip


def _trials(summary: SweepSummary, settings: Sequence[str]) -> Iterable[list[Any]]:
    champion = summary.champion.number if summary.champion else None
    times: dict[int, tuple[float, float]] = {}
    for stint in summary.timeline:
        if stint.repeat is None:
            began, ended = times.get(stint.trial, (stint.began, stint.ended))
            times[stint.trial] = (min(began, stint.began), max(ended, stint.ended))
    for t in summary.trials:
        began_ended = times.get(t.number, (None, None))
        yield [
            summary.sweep, t.number, t.state, t.value, t.is_baseline, t.number == champion, t.revision, t.seconds,
            t.stopped_by, t.cause, t.message, t.reused_from, t.trainable_parameters, t.adapter_mb,
            *began_ended, t.run_id, _metrics(t.metrics), *(t.params.get(name) for name in settings),
        ]  # fmt: skip


def _evaluations(study: StudySnapshot) -> Iterable[list[Any]]:
    """Those of finished trials as the trainer reported them; of one under way what its curve has."""
    metric, reported = study.objective.metric, study.reported
    for record in study.records:
        if record.result is None:
            for index, (share, value) in enumerate(record.curve):
                known = {reported: value}
                yield [study.name, record.number, index, share, None, None, None, None, known.get(metric),
                       _metrics(known)]  # fmt: skip
        else:
            for e in record.result.evaluations:
                yield [study.name, record.number, e.index, e.fraction, e.step, e.examples, e.tokens, e.seconds,
                       e.metrics.get(metric), _metrics(e.metrics)]  # fmt: skip


def _metrics(metrics: Mapping[str, float]) -> str:
    """As JSON, without numbers that it does not have: `metrics ->> '$.accuracy'` reads one."""
    return json.dumps({name: value if math.isfinite(value) else None for name, value in metrics.items()})


def _shown(value: Any) -> Any:
    """A value that JSON has: what a question may compute besides is bytes, and infinity."""
    if isinstance(value, bytes):
        return value.hex()
    return None if isinstance(value, float) and not math.isfinite(value) else value
