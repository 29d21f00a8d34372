"""Adapters on one base: rows of several in one call, against a merged model and against each row alone, in turns.

A model that judges answers texts in batches; one that writes gives each of four answers its next tokens. What is shown
is the median of rounds, each against the same round's reference, with quartiles in brackets. Time is CPU time of this
process, for which other work on the machine counts little. Each row is printed when it is there.

python -m tests.bench.adapters BUNDLE [MERGED TEXTS]    folders of a bundle and of a plain release, and a text a line
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hpo.paths import Home
from hpo.serving.slots import slots_for
from tests.bench.released import ROOT, bundle_of
from tests.bench.tables import Row, show
from trainers.runtime.adapters import AdaptedSession
from trainers.runtime.bundle import Bundle
from trainers.runtime.card import GENERATIVE
from trainers.runtime.encoder import Encoder, batches
from trainers.runtime.release import Release
from trainers.runtime.write import Writer

ROUNDS = 15
TEXTS = 48
ADAPTERS = 4
"""In a bundle that is made here."""
MIXED, ALONE = "at least 0.79", "at most 1.10"
"""Bounds on batches: the throughput of adapters mixed, and the time of one adapter of rank 8, of the merged model's."""
STEPS = 4
"""Tokens that each answer gets in a round."""
PROMPTS = (16, 40, 64, 96)
"""Tokens before each of the answers."""
WRITING_THREADS = 2

Contestants = Mapping[str, Callable[[], object]]


def rows() -> Iterator[Row]:
    """Of MiniLM, with adapters that are trained here for a few steps: to trace a model that writes takes too long."""
    with tempfile.TemporaryDirectory() as folder:
        bundle, merged, validation = bundle_of("movie-sentiment", ADAPTERS, Path(folder), Home(ROOT / "mlruns"))
        lines = validation.read_text(encoding="utf-8").split("\n")[:-1]
        yield from _rows_of(bundle, merged, [json.loads(line)["text"] for line in lines])


def main(arguments: Sequence[str]) -> None:
    """The same of folders that there are."""
    folders = [Path(folder) for folder in arguments[:2]]
    texts = [text for file in arguments[2:] for text in Path(file).read_text(encoding="utf-8").splitlines()]
    show(_rows_of(folders[0], folders[1] if folders[1:] else None, texts))


def _rows_of(bundle_folder: Path, merged_folder: Path | None, texts: Sequence[str]) -> Iterator[Row]:
    writes = Release.load(bundle_folder, 1).card.task in GENERATIVE
    threads = WRITING_THREADS if writes else 1
    bundle, merged = (None if f is None else Release.load(f, threads) for f in (bundle_folder, merged_folder))
    assert isinstance(bundle, Bundle)
    if writes:
        assert merged is None or isinstance(merged, Writer)
        return _writing_rows(bundle, merged)
    assert isinstance(merged, Encoder)
    return _judging_rows(bundle, merged, texts[:TEXTS])


def _judging_rows(bundle: Bundle, merged: Encoder, texts: Sequence[str]) -> Iterator[Row]:
    first, *_ = names = list(bundle)
    for kind, some, limit in (("512 tokens", texts, 512), ("one text", texts[:16], 0)):
        contestants = {"merged": _alone(merged, some, limit), "one": _alone(bundle[first], some, limit)}
        if limit:
            contestants["mixed"] = _mixed(bundle, some, limit)
        seconds = _in_turns(contestants)
        what = f"batches of {kind}: one adapter (rank {_rank(bundle[first])}), time of merged's"
        yield Row(what, _shares(seconds["one"], seconds["merged"]), ALONE if limit else "")
        if limit:
            what = f"batches of {kind}: {len(names)} adapters mixed, throughput of merged's"
            yield Row(what, _shares(seconds["merged"], seconds["mixed"]), MIXED)


def _rank(release: Release) -> int:
    adapted = release.session
    assert isinstance(adapted, AdaptedSession)
    return adapted.rank


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


def _writing_rows(bundle: Bundle, merged: Writer | None) -> Iterator[Row]:
    """The time of a step of four answers, of that of four steps of one each."""
    names = [list(bundle)[number % len(list(bundle))] for number in range(len(PROMPTS))]
    mixed, same = ([bundle[name].session for name in some] for some in (names, names[:1] * len(names)))
    each = [_steps(bundle, PROMPTS[row : row + 1], mixed[row : row + 1]) for row in range(len(PROMPTS))]
    contestants = {
        "alone": lambda: [steps() for steps in each],
        f"{len(set(names))} adapters": _steps(bundle, PROMPTS, mixed),
        "one adapter": _steps(bundle, PROMPTS, same),
    }
    if merged is not None:
        contestants["a merged model"] = _steps(merged, PROMPTS, [])
    seconds = _in_turns(contestants)
    for name, times in seconds.items():
        if name != "alone":
            yield Row(
                f"a step of {len(PROMPTS)} answers by {name}, time of each alone", _shares(times, seconds["alone"])
            )


def _steps(release: Bundle | Writer, prompts: Sequence[int], sessions: Sequence[object]) -> Callable[[], object]:
    """A few steps of answers after prompts of these lengths, from the same place each time."""
    slots, known = slots_for(release, len(prompts) + 1), np.random.default_rng(0)
    for row, length in enumerate(prompts):
        ids = known.integers(100, 1000, (1, length))
        slots.run(len(prompts), ids, [0], sessions[row : row + 1])
        slots.copy(len(prompts), row, length)

    def run() -> None:
        for step in range(STEPS):
            slots.run(0, np.full((len(prompts), 1), 100 + step), [length + step for length in prompts], sessions)

    return run


def _shares(parts: Sequence[float], wholes: Sequence[float]) -> str:
    """Median and quartiles of the ratios of the rounds."""
    low, middle, high = np.percentile(np.array(parts) / np.array(wholes), [25, 50, 75])
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _in_turns(contestants: Contestants) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(ROUNDS + 1):
        for name, run in contestants.items():
            began = time.process_time()
            run()
            if round_:  # the first one warms up
                seconds[name].append(time.process_time() - began)
    return seconds


if __name__ == "__main__":
    main(sys.argv[1:])
