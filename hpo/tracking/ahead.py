"""MLflow made ready while a sweep still looks at its data: imported, and its database created outside the home."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from hpo.databases.sqlite import usable
from hpo.paths import Home


@contextmanager
def made_ready(home: Home, folder: Path) -> Iterator[Callable[[], None]]:
    """Import MLflow in a thread, and create there the database that the home lacks, in a new `folder` that goes away.

    It yields a function that waits for the thread and moves the database to its place in the home; without that call
    there is none. The function raises what the thread raised. Until it is called, this thread must import nothing.
    """
    shutil.rmtree(folder, ignore_errors=True)  # a kill left it
    try:
        with ThreadPoolExecutor(1) as thread:
            created = thread.submit(_create, home, folder)

            def put() -> None:
                if database := created.result():
                    from hpo.tracking.mlflow_store import put_in_place

                    put_in_place(database, home)

            yield put
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _create(home: Home, folder: Path) -> Path | None:
    """The new database; None where the home has one."""
    gc.disable()  # collecting is half of the time: imports make a million objects, and all of them stay
    try:
        from hpo.tracking.mlflow_store import create_database
        from hpo.tracking.mlflow_tracker import Tracker  # noqa: F401  # it is needed later, by another thread

        return None if usable(home.mlflow_db) else create_database(folder)
    finally:
        gc.freeze()
        gc.enable()
