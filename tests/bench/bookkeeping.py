"""What the engine itself costs: trials a second, growth with the number of trials, memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.engine import Engine, measure
from tests.bench.tables import Row
from tests.postgres import installed, postgres


def rows() -> list[Row]:
    plain = measure(Engine(strategy="random", trials=1000, database=False, tracked=False))
    hundredth = plain.seconds_per_trial(80, 120)
    thousandth = plain.seconds_per_trial(960, 1000)
    full = measure(Engine(strategy="tpe", trials=40))
    tracking_s = (
        full.seconds_per_trial() - measure(Engine(strategy="tpe", trials=40, tracked=False)).seconds_per_trial()
    )
    return [
        *_on_server(),
        Row("fake trainer, random, in memory, untracked", f"{1 / plain.seconds_per_trial():.0f} trials/s", ">= 40"),
        Row("the thousandth trial against the hundredth", f"{thousandth / hundredth:.2f}x", "2x"),
        Row("TPE, SQLite, MLflow, 5 evaluations", f"{full.seconds_per_trial() * 1000:.0f} ms a trial", "300 ms"),
        Row("of which MLflow", f"{tracking_s * 1000:.0f} ms a trial", "550 ms, 1 % of a trial of the demo"),
        Row("peak resident memory of the sweep", f"{full.peak_mb:.0f} MB", "350 MB"),
    ]


def _on_server() -> list[Row]:
    """The same with the studies on a server, and the lease of one writer; where there is none, what to install."""
    if installed() is None:
        return [Row("studies on PostgreSQL", "left out: apt-get install postgresql")]
    with tempfile.TemporaryDirectory() as folder, postgres(Path(folder)) as url:
        measured = measure(Engine(strategy="tpe", trials=40), url)
    return [Row("TPE, PostgreSQL, MLflow", f"{measured.seconds_per_trial() * 1000:.0f} ms a trial", "300 ms")]


def memory_rows() -> list[Row]:
    """A thousand forks: several minutes."""
    long = measure(Engine(strategy="random", trials=1000, host=True))
    return [
        Row("memory growth over 1,000 trials: sweep", f"{_growth(long.sweep_mb):+.1f} MB", "20 MB"),
        Row("memory growth over 1,000 trials: host", f"{_growth(long.host_mb):+.1f} MB", "20 MB"),
    ]


def _growth(resident_mb: list[float]) -> float:
    """From the first trial's end to the last one's."""
    return resident_mb[-1] - resident_mb[0]
