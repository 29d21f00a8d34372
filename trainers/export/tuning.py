"""Session options of a release: each tried against the default in turns, alone on the machine, and kept if faster.

An option is kept where it was faster in every one of ten turns, and by a twentieth; it is left at the first turn in
which it was not. What was kept is tried together once more. What is timed is the work of serving at the lengths of the
validation rows, one text or answer at a time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from trainers.export.measure import TURNS, Variant
from trainers.export.release import write_card
from trainers.protocol.measured import Tuned
from trainers.protocol.requests import Tune
from trainers.runtime.card import Card

LEAST_GAIN = 0.05
"""A smaller gain is not worth another setting."""
_CALLS = 3
Options = Mapping[str, Any]


def tune(request: Tune) -> Tuned:
    """Try session options of the release in `request.dir`; those that are faster go into its card, with the cores.

    Raises `ReleaseError` for a folder that cannot be loaded, and `ValueError` for one that cannot answer.
    """
    bench = _Bench(Path(request.dir), Path(request.rows), request.threads)
    tried = sorted(((bench.gain(options), options) for options in alternatives(request.threads)), key=itemgetter(0))
    faster = [(gain, options) for gain, options in tried if gain >= LEAST_GAIN]
    if not faster:
        return Tuned({}, 0.0)
    best = faster[-1]
    if len(faster) > 1:
        together = {key: value for _, options in faster for key, value in options.items()}
        best = max((bench.gain(together), together), best, key=itemgetter(0))
    gain, options = best
    card = Card.read(bench.folder)
    write_card(bench.folder, replace(card, session={**options, "cores": request.threads}))
    return Tuned(options, gain)


def alternatives(cores: int) -> list[dict[str, Any]]:
    """Each differs from the default in one option; more threads than cores only wait for each other.

    None changes the graph: the gates measured the one that onnxruntime makes with its default level.
    """
    counts = sorted({1, cores // 2} - {0, cores})
    others: list[dict[str, Any]] = [{"spinning": True}, {"arena": False}]
    return [*({"threads": count} for count in counts), *others]


class _Bench:
    """A release with its default options, which others are compared with."""

    def __init__(self, folder: Path, rows: Path, cores: int) -> None:
        self.folder, self._rows, self._cores = folder, rows, cores
        self._default = Variant.load(folder, rows, cores, tuned={})

    def gain(self, options: Options) -> float:
        """The share of time that options save; 0 where they were not faster in every turn."""
        other = Variant.load(self.folder, self._rows, self._cores, tuned={**options, "cores": self._cores})
        ratios = []
        for turn in range(TURNS + 1):
            ours, its = (_seconds(variant, turn * _CALLS) for variant in (self._default, other))
            if turn:  # the first one warms up
                ratios.append(its / ours)
                if its >= ours:
                    return 0.0
        return 1 - float(np.median(ratios))


def _seconds(variant: Variant, start: int) -> float:
    """The time of a few answers, after one that brings the model back into the caches."""
    variant.answers.work(start)
    began = time.perf_counter()
    for number in range(start, start + _CALLS):
        variant.answers.work(number)
    return time.perf_counter() - began
