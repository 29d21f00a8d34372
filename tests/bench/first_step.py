"""From `hpo sweep` to the first optimizer step, on the demo, its model and data fetched before.

python -m tests.bench.first_step HOME      run the demo sweep in HOME up to that step
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from hpo.demo.fetch import fetch
from hpo.errors import Interrupted
from hpo.paths import Home
from hpo.progress_view import Silent
from tests.bench.tables import Row

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "search_spaces/movie-sentiment.yaml"
FETCHED = ("all-MiniLM-L6-v2", "vader-movie")
REPEATS = 5
IMPORTS = """
from trainers.host.dispatch import work
from trainers.protocol.requests import Import
list(work(Import()))
"""


def rows() -> list[Row]:
    """Medians of several runs, in turns."""
    fetched = Home(ROOT / "mlruns")
    for name in FETCHED:
        fetch(name, fetched.dir, say=print)
    new, used, imports = list[float](), list[float](), list[float]()
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            home = Home(Path(folder))
            home.cache.mkdir()
            for name in FETCHED:
                (home.cache / name).symlink_to(fetched.cache / name)
            new.append(_seconds(folder))
            (home.dir / "studies.db").unlink()
            used.append(_seconds(folder))
        imports.append(_seconds_of_imports())
    return [
        Row("hpo sweep to the first optimizer step (demo), a new home", f"{statistics.median(new):.1f} s", "5 s"),
        Row("the same, a home with a database and tokens", f"{statistics.median(used):.1f} s", "5 s"),
        Row("torch and transformers imported, alone, for comparison", f"{statistics.median(imports):.1f} s"),
    ]


def _seconds(home: str) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "tests.bench.first_step", home]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # PIPE was asked for
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
    if line != "step\n":
        raise RuntimeError(f"the sweep ended without a step: {line}")
    return seconds


def _seconds_of_imports() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, cwd=ROOT)
    return time.perf_counter() - began


class _UpToAStep(Silent):
    """Says that there was a step, and interrupts the sweep."""

    def step(self, number: int, fraction: float, loss: float | None, seconds: float = 0.0) -> None:
        print("step", flush=True)
        raise KeyboardInterrupt


def main() -> None:
    from hpo.commands.sweep import run_sweep  # a part of what is measured

    with suppress(Interrupted):
        run_sweep(DEMO, Home(Path(sys.argv[1])), view=_UpToAStep())


if __name__ == "__main__":
    main()
