"""A trainer that computes a formula instead of training: the twin of `trainers.work` for tests and benchmarks.

Standard library only. The curve rises towards a peak at learning_rate 1e-3 and lora_r 16, with noise drawn from the
spec's fingerprint, so that equal specs give equal numbers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator
from pathlib import Path

from trainers.codec import fingerprint
from trainers.files import TrialPaths
from trainers.spec import (
    Evaluation,
    Event,
    Failed,
    Finding,
    Inspect,
    Inspection,
    Load,
    Loaded,
    Request,
    Step,
    TrainRequest,
    TrialResult,
    TrialSpec,
    Verdict,
)

ROWS = {"train": 1000, "validation": 100, "test": 100}


def work(request: Request) -> Generator[Event, Verdict | None, None]:
    """Answer a request, as `trainers.work.work` does."""
    if isinstance(request, Inspect):
        yield _inspect(request)
    elif isinstance(request, Load):
        yield Loaded(parameters=1, seconds=0.0)
    elif isinstance(request, TrainRequest):
        yield from _train(request.spec)
    else:
        yield Failed("crash", f"the fake trainer cannot {type(request).__name__.lower()}")


def _inspect(request: Inspect) -> Event:
    if not Path(request.workload.data.train).exists():
        return Failed("data", "bad data", [Finding(request.workload.data.train, "is not there")])
    return Inspection(
        rows=dict(ROWS), labels=["a", "b"], tokens_dir="", model_dir="",
        fingerprint=fingerprint(request.workload.data.train),
        model_fingerprint="0" * 64, duplicates=0, truncated=0, train_tokens=10000, gpus=0, notes=[],
    )  # fmt: skip


def _train(spec: TrialSpec) -> Generator[Event, Verdict | None, None]:
    settings = spec.settings
    learning_rate, count = float(settings["learning_rate"] or 0), int(settings["evaluations"] or 1)
    if learning_rate > 0.5:  # what a test asks for when it wants a failing trial
        yield Failed("diverged", "loss is nan")
        return
    noise = random.Random(spec.fingerprint())  # noqa: S311  # a repeatable curve, not a secret
    distance = abs(math.log10(learning_rate / 1e-3)) + abs(math.log2(int(settings.get("lora_r") or 16) / 16)) / 4
    peak = 0.9 * math.exp(-distance / 3)
    evaluations: list[Evaluation] = []
    stopped_by = "budget"
    for index in range(count):
        fraction = (index + 1) / count
        examples = round(fraction * spec.max_examples)
        yield Step(index, examples, 1 - peak * fraction, learning_rate, 0.0)
        value = peak * (1 - math.exp(-3 * fraction)) + noise.gauss(0, 0.005)
        evaluations.append(Evaluation(index, fraction, index, examples, examples * 10, {spec.metric: value}, 0.0))
        if (yield evaluations[-1]) == "stop":
            stopped_by = "pruner"
            break
    sign = 1 if spec.direction == "maximize" else -1
    best = max(evaluations, key=lambda e: sign * e.metrics[spec.metric])
    paths = TrialPaths(Path(spec.dir))
    paths.adapter.mkdir(parents=True, exist_ok=True)
    paths.log.write_text("fake\n")
    yield TrialResult(
        state="pruned" if stopped_by == "pruner" else "complete",
        value=best.metrics[spec.metric],
        metrics=best.metrics,
        best_index=best.index,
        evaluations=evaluations,
        stopped_by="pruner" if stopped_by == "pruner" else "budget",
        seconds=0.01 * len(evaluations),
    )
