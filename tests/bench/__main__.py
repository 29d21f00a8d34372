"""`python -m tests.bench`: start-up and bookkeeping, in a minute. By name, and alone on the machine, the long ones:

python -m tests.bench memory      1,000 trials through a real host (several minutes)
python -m tests.bench fitting     what trials need of memory, as its model says it and as it was (minutes)
python -m tests.bench makespan    8 points against transformers' search and, with --ray PYTHON, Ray Tune
python -m tests.bench machines    those points on one and on two nodes of a Ray cluster; a first step there (minutes)
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
from collections.abc import Callable, Iterable
from pathlib import Path

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


def _report_rows() -> list[Row]:
    from tests.bench import report  # with the tests that it draws its pages from

    return report.rows()


def _machine_rows(examples: int) -> list[Row]:
    from tests.bench import machines  # with the tests' cluster

    return machines.rows(examples)


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
    "makespan": lambda given: makespan.rows(given.examples, given.ray),
    "machines": lambda given: _machine_rows(given.examples),
    "pruning": lambda given: pruning.rows(given.examples),
    "readers": lambda _: many_trials.rows(),
    "race": lambda _: race.rows(),
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


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("what", nargs="*", choices=TABLES)
    parser.add_argument("--ray", metavar="PYTHON", help="an interpreter that has ray[tune] and this project's packages")
    parser.add_argument(
        "--examples", type=int, default=3200, help="per trial, in makespan, machines and pruning (default: 3200)"
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
    for name in given.what or ["startup", "bookkeeping"]:
        show(TABLES[name](given))


if __name__ == "__main__":
    main()
