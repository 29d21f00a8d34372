"""The benchmark tables, each in a process of its own. Nothing else should run on the machine.

python -m tests.bench             those of `make bench`, one after the other, in about half an hour on two cores:
                                  startup, bookkeeping, report, nights, release, serve, machines

With names, only the tables of these names:

python -m tests.bench startup     the command line, and the first step of a trial (half a minute)
python -m tests.bench bookkeeping what a sweep costs besides its training, with fake trials (a minute)
python -m tests.bench memory      1,000 trials through a real host (several minutes)
python -m tests.bench fitting     what trials need of memory, as its model says it and as it was (minutes)
python -m tests.bench makespan    8 points against transformers' search and, with --ray PYTHON, Ray Tune
python -m tests.bench machines    those points on one and two nodes of a Ray cluster; a first step there (ten minutes)
python -m tests.bench pruning     24 points with and without pruning
python -m tests.bench rules       pruning rules on the curves of those points, replayed (seconds)
python -m tests.bench schedules   when to evaluate, to stop early, and what to keep, replayed on those curves (a minute)
python -m tests.bench first-step  from `hpo sweep` to the first optimizer step of the demo (two minutes)
python -m tests.bench neighbour   two-threaded work beside one busy process, threads spinning and passive (a minute)
python -m tests.bench promotion   the variants of two champions in turns, against each one on all rows (minutes)
python -m tests.bench release     released variants against torch: latencies, F1, tokens a second (ten minutes)
python -m tests.bench report      pages of 200 and 10,000 trials: written, weighed, shown and filtered (half a minute)
python -m tests.bench readers     `hpo list`, `show` and `report` of a sweep of 10,000 trials (a minute)
python -m tests.bench race        the finalists' race on 1,000 simulated finals of each kind (half a minute)
python -m tests.bench ends        how well a sweep's end is said, on simulated sweeps of each kind of finals (minutes)
python -m tests.bench no-signal   20 sweeps of tiny models on random labels, with both claims (minutes)
python -m tests.bench nights      simulated years of nights: false promotions, and how soon a gain is found (minutes)
python -m tests.bench sampling    strategies on simulated surfaces of fine-tuning (minutes)
python -m tests.bench steps       optimizer steps and evaluations against transformers' Trainer
python -m tests.bench layout      trials side by side against threads of each, and rows at a time (minutes)
python -m tests.bench ranks       one trial in two processes against one (two minutes)
python -m tests.bench adapters    adapters on one base against their merged model (minutes)
python -m tests.bench serve       `hpo serve` beside raw onnxruntime and llama.cpp's server (minutes)
python -m tests.bench precision   optimizer steps in fp32, in bf16 by autocast, and with frozen layers in bf16
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hpo.errors import HpoError
from tests.bench import (
    bookkeeping,
    first_step,
    makespan,
    many_trials,
    neighbour,
    nights,
    promotion,
    pruning,
    race,
    rules,
    sampling,
    schedules,
    startup,
)
from tests.bench.tables import Row, show


def _step_rows(count: int) -> list[Row]:
    from tests.bench import steps  # torch and transformers, which the other tables can do without

    return steps.rows(count)


def _precision_rows(count: int) -> list[Row]:
    from tests.bench import precision

    return precision.rows(count)


def _no_signal_rows(sweeps: int) -> list[Row]:
    from tests.bench import no_signal

    return no_signal.rows(sweeps)


def _serve_rows(given: argparse.Namespace) -> Iterable[Row]:
    from tests.bench import serve

    rival = [given.llama_server, given.gguf]
    return serve.rows(given.judge, given.writer, rival if all(rival) else None)


def _ends_rows() -> Iterable[Row]:
    from tests.bench import ends  # with the tests' view of a sweep

    return ends.rows()


def _report_rows() -> list[Row]:
    from tests.bench import report  # with the tests that it draws its pages from

    return report.rows()


def _machine_rows(examples: int | None) -> list[Row]:
    from tests.bench import machines  # with the tests' cluster

    return machines.rows(examples or machines.EXAMPLES)


def _release_rows() -> list[Row]:
    from tests.bench import release

    return release.rows()


def _adapter_rows() -> Iterable[Row]:
    from tests.bench import adapters

    return adapters.rows()


def _fitting_rows() -> list[Row]:
    from tests.bench import fitting

    return fitting.rows()


def _layout_rows(count: int) -> list[Row]:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as the trial host has it; read when torch is loaded
    from tests.bench import layout

    return layout.rows(count)


def _ranks_rows() -> list[Row]:
    from tests.bench import ranks

    return ranks.rows()


TABLES: dict[str, Callable[[argparse.Namespace], Iterable[Row]]] = {
    "startup": lambda _: startup.rows(),
    "bookkeeping": lambda _: bookkeeping.rows(),
    "memory": lambda _: bookkeeping.memory_rows(),
    "fitting": lambda _: _fitting_rows(),
    "makespan": lambda given: makespan.rows(given.examples or makespan.EXAMPLES, given.ray),
    "machines": lambda given: _machine_rows(given.examples),
    "pruning": lambda given: pruning.rows(given.examples or makespan.EXAMPLES),
    "readers": lambda _: many_trials.rows(),
    "race": lambda _: race.rows(),
    "ends": lambda _: _ends_rows(),
    "report": lambda _: _report_rows(),
    "rules": lambda _: rules.rows(),
    "schedules": lambda _: schedules.rows(),
    "nights": lambda given: nights.rows(given.years),
    "sampling": lambda given: sampling.rows(given.strategies),
    "first-step": lambda _: first_step.rows(),
    "neighbour": lambda _: neighbour.rows(),
    "promotion": lambda _: promotion.rows(),
    "release": lambda _: _release_rows(),
    "adapters": lambda _: _adapter_rows(),
    "no-signal": lambda given: _no_signal_rows(given.sweeps),
    "steps": lambda given: _step_rows(given.steps),
    "precision": lambda given: _precision_rows(given.steps),
    "serve": _serve_rows,
    "ranks": lambda _: _ranks_rows(),
    "layout": lambda given: _layout_rows(given.steps),
}


USUAL = ("startup", "bookkeeping", "report", "nights", "release", "serve", "machines")
"""What `make bench` prints, the quickest first."""


def _name(given: str) -> str:
    """Of a table; not by argparse's `choices`, which refuse that there is none on some Pythons."""
    if given not in TABLES:
        raise argparse.ArgumentTypeError(f"no table {given!r}; there are {', '.join(sorted(TABLES))}")
    return given


def arguments() -> argparse.ArgumentParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, formatter_class=as_written)
    parser.add_argument("what", metavar="NAME", nargs="*", type=_name, help="default: those of `make bench`")
    parser.add_argument("--ray", metavar="PYTHON", help="an interpreter that has ray[tune] and this project's packages")
    parser.add_argument(
        "--examples", type=int, help="per trial, in makespan and pruning (default: 3200) and in machines (default: 480)"
    )
    parser.add_argument("--sweeps", type=int, default=20, help="in no-signal (default: 20)")
    parser.add_argument("--years", type=int, default=200, help="in nights, of each kind (default: 200)")
    parser.add_argument("--strategies", help="in sampling, between commas (default: tpe,qmc,informed)")
    parser.add_argument("--steps", type=int, default=40, help="in steps, precision and layout (default: 40)")
    parser.add_argument("--judge", type=Path, help="in serve, a classifier's release folder (default: made here)")
    parser.add_argument("--writer", type=Path, help="in serve, a chat model's release folder (default: made here)")
    parser.add_argument("--llama-server", metavar="PATH", help="in serve, llama.cpp's server")
    parser.add_argument("--gguf", metavar="FILE", help="in serve, the writer's base for llama.cpp's server")
    return parser


def main() -> None:
    given = arguments().parse_args()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # transformers asks too, when it is imported
    if len(given.what) != 1:
        failed = shown_in_turn(given.what or USUAL, given)
        sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
    try:
        show(TABLES[given.what[0]](given))
    except HpoError as error:
        sys.exit(f"error: {error}")


def shown_in_turn(names: Sequence[str], given: argparse.Namespace) -> list[str]:
    """Print several tables, each made by a process of its own: so none has another's memory and threads, and one that
    fails loses no other. Returns the names of those that failed."""
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in vars(given).items()
        if name != "what" and value is not None
    ]
    failed = []
    for name in names:
        print(f"\n{name}", flush=True)
        if subprocess.run([sys.executable, "-m", "tests.bench", name, *options]).returncode:
            failed.append(name)
    return failed


if __name__ == "__main__":
    main()
