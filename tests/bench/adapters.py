"""Adapters on one base against a merged model: time in turns, in one process with one thread, at the data's lengths.

python -m tests.bench.adapters BUNDLE MERGED TEXTS    folders of a bundle and of a plain release, and a text a line
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trainers.runtime.bundle import Bundle
from trainers.runtime.encoder import Encoder, batches
from trainers.runtime.release import Release

ROUNDS = 7
TEXTS = 96


def main(arguments: Sequence[str]) -> None:
    """Print the time of each contestant as a share of the merged model's, the median of rounds in turns."""
    bundle, merged = (Release.load(Path(folder), 1) for folder in arguments[:2])
    assert isinstance(bundle, Bundle)
    assert isinstance(merged, Encoder)
    texts = Path(arguments[2]).read_text(encoding="utf-8").splitlines()[:TEXTS]
    for kind, some, limit in (("batches of 512 tokens", texts, 512), ("one text at a time", texts[:16], 0)):
        contestants = {"merged": _alone(merged, some, limit)}
        for name in bundle:
            contestants[f"{name} alone"] = _alone(bundle[name], some, limit)
        if limit:
            contestants[f"{len(list(bundle))} adapters mixed"] = _mixed(bundle, some, limit)
        seconds = _in_turns(contestants)
        print(kind, flush=True)
        for name, times in seconds.items():
            shares = np.array(times) / np.array(seconds["merged"])
            low, middle, high = np.percentile(shares, [25, 50, 75])
            print(
                f"  {name:32} {middle:.2f} of the time ({low:.2f} to {high:.2f}), {1 / middle:.2f} of the throughput",
                flush=True,
            )


def _alone(release: Release, texts: Sequence[str], limit: int) -> Callable[[], object]:
    assert isinstance(release, Encoder)
    readings = sorted(release.read(texts), key=lambda reading: reading.tokens)
    cut = list(batches(range(len(readings)), lambda i: readings[i].tokens, limit))
    return lambda: [release.answered([readings[i] for i in batch]) for batch in cut]


def _mixed(bundle: Bundle, texts: Sequence[str], limit: int) -> Callable[[], object]:
    names = list(bundle)
    rows = []
    for number, text in enumerate(texts):
        release = bundle[names[number % len(names)]]
        assert isinstance(release, Encoder)
        rows.append((release, release.read([text])[0]))
    rows.sort(key=lambda row: row[1].tokens)
    cut = list(batches(range(len(rows)), lambda i: rows[i][1].tokens, limit))
    return lambda: [bundle.answered([rows[i] for i in batch]) for batch in cut]


def _in_turns(contestants: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(ROUNDS + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if round_:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main(sys.argv[1:])
