"""Points from a Gaussian process, asked in a process of its own: Optuna's sampler needs torch, which a sweep never
loads.

    python -m hpo.study.gp      one JSON line in (seed, directions, space, what was tried), one point out
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hpo.config.space import Point, SearchSpace, from_resolved
from hpo.errors import SweepError
from hpo.module_command import module_command

if TYPE_CHECKING:
    from hpo.study.tried import Tried


class GaussianProcess:
    """The sweep's end: starts the process at the first question and keeps it."""

    def __init__(self, space: SearchSpace, directions: Sequence[str]) -> None:
        self._space = space
        self._directions = list(directions)
        self._process: subprocess.Popen[str] | None = None

    def ask(self, tried: Sequence[Tried], seed: int) -> Point:
        """The next point after `tried`. Raises `SweepError` if the process died."""
        if self._process is None:
            self._process = subprocess.Popen(
                module_command("hpo.study.gp"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None  # noqa: S101  # PIPE was asked for
        assert self._process.stdout is not None  # noqa: S101  # PIPE was asked for
        question = {
            "seed": seed, "directions": self._directions, "space": self._space.resolved(),
            "tried": [[point, list(values), dict(excess)] for point, values, excess in tried],
        }  # fmt: skip
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SweepError(
                "the process of the Gaussian process ended; the same command continues the sweep; "
                "if it ends again, search_strategy: {type: tpe} does without it"
            )
        point: Point = json.loads(answer)
        return point

    def close(self) -> None:
        """End the process that answers, if it was started."""
        if self._process:
            assert self._process.stdin is not None  # noqa: S101  # PIPE was asked for
            assert self._process.stdout is not None  # noqa: S101  # PIPE was asked for
            with suppress(BrokenPipeError):  # it died with a question unread
                self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            self._process = None


def answer(question: dict[str, Any]) -> Point:
    """The point that Optuna's GPSampler chooses."""
    import optuna

    from hpo.study.samplers import distributions, sampler, suggest

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its hints on speed are not for the person who runs a sweep
    space = from_resolved(question["space"])
    study = optuna.create_study(directions=question["directions"], sampler=sampler("gp", question["seed"], 0))
    for point, values, excess in question["tried"]:
        study.add_trial(
            optuna.trial.create_trial(
                params=point, distributions=distributions(space, point), values=values, constraints=excess
            )
        )
    return suggest(study.ask(), space)


def main() -> None:
    """Answer questions on standard input with points on standard output, one JSON line each, until it is closed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the sweep, which closes the pipe once it has stopped
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
