"""`python -m tests.bench`: start-up and bookkeeping, in a minute. By name, and alone on the machine, the long ones:

python -m tests.bench memory      1,000 trials through a real host (several minutes)
python -m tests.bench makespan    8 points against transformers' search and, with --ray PYTHON, Ray Tune
python -m tests.bench pruning     24 points with and without pruning
"""

from __future__ import annotations

import argparse

from tests.bench import bookkeeping, makespan, pruning, startup
from tests.bench.tables import show


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("what", nargs="*", choices=["startup", "bookkeeping", "memory", "makespan", "pruning"])
    parser.add_argument("--ray", metavar="PYTHON", help="an interpreter that has ray[tune] and this project's packages")
    parser.add_argument("--examples", type=int, default=3200, help="per trial, in makespan and pruning (default: 3200)")
    given = parser.parse_args()
    tables = {
        "startup": startup.rows, "bookkeeping": bookkeeping.rows, "memory": bookkeeping.memory_rows,
        "makespan": lambda: makespan.rows(given.examples, given.ray), "pruning": lambda: pruning.rows(given.examples),
    }  # fmt: skip
    for name in given.what or ["startup", "bookkeeping"]:
        show(tables[name]())


if __name__ == "__main__":
    main()
