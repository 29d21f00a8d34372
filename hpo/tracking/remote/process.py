"""Copies a sweep's runs to a tracking server while the sweep runs: `python -m hpo.tracking.remote.process`.

`live_copy` starts it with a home, a sweep, and the seconds that it may take once the sweep has ended. That is
when its input ends, which has no lines. Its output is for people.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from hpo.lock import held_if_free
from hpo.paths import Home
from hpo.tracking.remote.delivery import Delivery, opened_delivery
from hpo.tracking.remote.problems import NotAllowed, OwnStore, Unavailable
from hpo.tracking.remote.server import VARIABLE
from trainers.protocol.counted import counted

_LOOKS_EVERY_S = 1.0
_WAITS_AFTER_FAILURE_S = (2.0, 5.0, 10.0, 20.0, 30.0)
_IDLE_PER_WORK = 10.0
"""After a look at a large sweep that took a second, it waits ten."""


class Courier:
    """Delivers whenever the home's store has changed, until the sweep has ended."""

    def __init__(self, sweep: str, url: str, last_s: float, out: TextIO) -> None:
        """`last_s`: seconds for what is on its way when the sweep ends."""
        self._sweep = sweep
        self._last_s = last_s
        self._url = url
        self._out = out
        self._has_ended = threading.Event()
        self._delivery: Delivery | None = None
        self._failures = 0
        self._has_failed = False
        self._refusals: set[str] = set()
        self._end = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Wait for the sweep's end, and a few seconds more."""
        while os.read(sys.stdin.fileno(), 1):
            pass
        self._has_ended.set()
        time.sleep(self._last_s)
        self._say_end()
        os._exit(0)  # it hangs in a request; what it has delivered is written down

    def run(self, home: Home) -> None:
        """Deliver until the sweep has ended and everything is there, or the server fails after its end."""
        while not self._has_run(home):
            if self._has_ended.wait(_LOOKS_EVERY_S):
                return

    def _has_run(self, home: Home) -> bool:
        """The whole of it; False where another process delivers: a person's `hpo sync`, say."""
        with held_if_free(home.sweep(self._sweep).remote_lock) as is_mine:
            if is_mine:
                with opened_delivery(home, self._sweep, self._url) as delivery:
                    self._delivery = delivery
                    while self._continues(delivery):
                        pass
                    self._say_end()
        return is_mine

    def _continues(self, delivery: Delivery) -> bool:
        """Deliver once, then wait for more; False where nothing is left to do."""
        is_last = self._has_ended.is_set()
        began = time.monotonic()
        try:
            is_all = self._delivered(delivery)
        except Unavailable as problem:
            return self._failed(problem)
        self._failures = 0
        self._note_refusals(delivery.refusals)
        if is_all and is_last:
            return False
        if is_all:
            self._has_ended.wait(_IDLE_PER_WORK * (time.monotonic() - began))
            while not delivery.has_changed() and not self._has_ended.wait(_LOOKS_EVERY_S):
                pass
        return True

    def _delivered(self, delivery: Delivery) -> bool:
        """Deliver the records, then files until there are new records; whether that was all."""
        delivery.has_changed()
        delivery.records()
        return not any(delivery.has_changed() for _ in delivery.files())

    def _failed(self, problem: Unavailable) -> bool:
        """Say so the first time, and wait; False where no further attempt is worth it."""
        if not self._has_failed:
            later = f": the runs wait in the home; hpo sync {self._sweep} copies them later"
            self._say(f"note: {self._url} {problem}{'' if isinstance(problem, OwnStore) else later}")
        self._has_failed = True
        if self._has_ended.is_set() or isinstance(problem, NotAllowed):
            return False
        self._has_ended.wait(_WAITS_AFTER_FAILURE_S[min(self._failures, len(_WAITS_AFTER_FAILURE_S) - 1)])
        self._failures += 1
        return True

    def _note_refusals(self, refusals: Sequence[str]) -> None:
        """Say each for the first time."""
        for refusal in refusals:
            if refusal not in self._refusals:
                self._say(f"note: {refusal}; everything else is copied")
        self._refusals |= set(refusals)

    def _say_end(self) -> None:
        """Say how far it came, where the sweep has ended; once."""
        if self._delivery is not None and self._has_ended.is_set() and self._end.acquire(blocking=False):
            total, waiting = self._delivery.total, self._delivery.waiting
            rest = f"hpo sync {self._sweep} copies the rest"
            self._say(f"{self._url} has {f'{total - waiting} of' if waiting else 'all'} {counted(total, 'run')}"
                      + (f"; {rest}" if waiting else ""))  # fmt: skip

    def _say(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the sweep was killed: nobody reads this any more
            print(text, file=self._out, flush=True)


def _output() -> TextIO:
    """The output for people alone: what libraries print goes to the log."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


if __name__ == "__main__":
    os.nice(10)  # whatever trains comes first
    home, sweep, last_s = sys.argv[1:]
    Courier(sweep, os.environ[VARIABLE], float(last_s), _output()).run(Home(Path(home)))
