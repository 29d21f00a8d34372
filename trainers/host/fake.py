"""A trainer that computes a formula instead of training: the twin of `trainers.host.dispatch` for tests and benchmarks.

Standard library only (numpy where it scores a split). The curve rises towards a peak at learning_rate 1e-3 and
lora_r 16, with noise drawn from the spec's fingerprint, so that equal specs give equal numbers. It takes verdicts, goes
on from checkpoints and leaves per-row results as the real one does. It trains several trials in one request.
With a learning rate below 1e-8 it guesses: each row is the toss of a coin, anew in every trial.
"""

from __future__ import annotations

import array
import json
import math
import random
from collections.abc import Generator
from pathlib import Path

from trainers.host.in_turn import in_turn
from trainers.protocol.codec import fingerprint, from_json, to_json
from trainers.protocol.events import (
    PAUSED,
    Checked,
    Evaluation,
    Event,
    Failed,
    Finding,
    Loaded,
    PreparedData,
    Resumed,
    Scored,
    Step,
    TrialReport,
    TrialResult,
)
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import STOPPED_BY, Check, Freeze, Import, Inspect, Load, Request, Score, Train, Verdict
from trainers.protocol.trial_spec import TrialSpec

ROWS = {"train": 1000, "validation": 100, "test": 100}
GUESSES_BELOW = 1e-8
"""Learning rate."""


def work(request: Request) -> Generator[Event, Verdict | None, None]:
    """Answer a request, as `trainers.host.dispatch.work` does."""
    if isinstance(request, Inspect):
        yield _inspect(request)
    elif isinstance(request, Check):
        yield _check(request)
    elif isinstance(request, Freeze):
        yield _freeze(request)
    elif isinstance(request, (Import, Load)):
        yield Loaded(parameters=1, seconds=0.0)
    elif isinstance(request, Train):
        yield from in_turn({spec.number: train(spec) for spec in request.specs})
    elif isinstance(request, Score):
        yield _score(request)
    else:
        yield Failed("crash", f"the fake trainer cannot {type(request).__name__.lower()}")


def _inspect(request: Inspect | Check) -> Event:
    train = request.workload.data.train.source
    if not Path(train).exists():
        return Failed("data", "bad data", [Finding(train, "is not there")])
    return PreparedData(
        rows=dict(ROWS), labels=["a", "b"], tokens_dir="", model_dir="",
        fingerprint=fingerprint(train),
        model_fingerprint="0" * 64, duplicates=0, truncated=0, train_tokens=10000, gpus=0, notes=[],
    )  # fmt: skip


def _check(request: Check) -> Event:
    found = _inspect(request)
    if not isinstance(found, PreparedData):
        return found
    return Checked(findings=[], splits={}, examples=[], notes=[], max_length=0, prepared=found)


def _freeze(request: Freeze) -> Event:
    """Rows are really frozen: that needs no model."""
    from trainers.data.formats.base import DataProblem
    from trainers.prepare.freeze import freeze

    try:
        return freeze(request)
    except DataProblem as problem:
        return Failed("data", str(problem), problem.findings)


def train(spec: TrialSpec) -> Generator[TrialReport, Verdict | None, None]:
    """One trial, from its checkpoint if it has one; a learning rate above 0.5 diverges."""
    learning_rate, count = float(spec.settings["learning_rate"] or 0), int(spec.settings["evaluations"] or 1)
    if learning_rate > 0.5:
        yield Failed("diverged", "loss is nan")
        return
    values = _values(spec)
    paths = TrialPaths(Path(spec.dir))
    evaluations, is_judged = _load(paths)
    if evaluations:
        last = evaluations[-1]
        yield Resumed(last.step, last.examples, evaluations if is_judged else evaluations[:-1])
    verdict: Verdict | None = None
    if evaluations and not is_judged:
        verdict = yield evaluations[-1]
    while verdict in (None, "go") and (index := len(evaluations)) < count:
        fraction = (index + 1) / count
        examples = round(fraction * spec.max_examples)
        verdict = yield Step(index, examples, 1 - values[-1] * fraction, learning_rate, 0.0)
        if verdict in ("stop", "finish", "pause"):
            _save(paths, evaluations, is_judged=True)
            break
        metrics = {spec.metric: values[index]}
        evaluations.append(Evaluation(index, fraction, index, examples, examples * 10, metrics, 0.0))
        rows = _rows(spec.workload.task, spec.metric, values[index], "validation", _order(spec, index))
        _write_rows(rows, paths.rows(index))
        _save(paths, evaluations, is_judged=False)
        verdict = yield evaluations[-1]
    yield PAUSED if verdict == "pause" else _result(spec, paths, evaluations, verdict)


def _values(spec: TrialSpec) -> list[float]:
    """The metric at each evaluation."""
    settings, count = spec.settings, int(spec.settings["evaluations"] or 1)
    noise = random.Random(spec.fingerprint())  # noqa: S311  # a repeatable curve, not a secret
    if _guesses(spec):
        rows = ROWS["validation"]
        return [sum(noise.random() < 0.5 for _ in range(rows)) / rows for _ in range(count)]
    distance = abs(math.log10(float(settings["learning_rate"] or 0) / 1e-3))
    distance += abs(math.log2(int(settings.get("lora_r") or 16) / 16)) / 4
    peak = 0.9 * math.exp(-distance / 3)
    return [peak * (1 - math.exp(-3 * (i + 1) / count)) + noise.gauss(0, 0.005) for i in range(count)]


def _guesses(spec: TrialSpec) -> bool:
    return float(spec.settings["learning_rate"] or 0) < GUESSES_BELOW


def _order(spec: TrialSpec, index: int) -> str:
    """What decides which rows are hard: for whoever guesses, others in every training and at every evaluation."""
    return f"{spec.fingerprint()} {index}" if _guesses(spec) else ""


def _result(spec: TrialSpec, paths: TrialPaths, evaluations: list[Evaluation], verdict: Verdict | None) -> TrialReport:
    if not evaluations:
        return Failed("timeout", "stopped before its first evaluation")
    sign = 1 if spec.direction == "maximize" else -1
    best = max(evaluations, key=lambda e: sign * e.metrics[spec.metric])
    paths.adapter.mkdir(parents=True, exist_ok=True)
    paths.log.write_text("fake\n")
    return TrialResult(
        state="pruned" if verdict == "stop" else "complete",
        value=best.metrics[spec.metric],
        metrics=best.metrics,
        best_index=best.index,
        evaluations=evaluations,
        stopped_by=STOPPED_BY.get(verdict, "budget"),
        seconds=0.01 * len(evaluations),
    )


def _score(request: Score) -> Event:
    """A split's rows are as hard for the adapter as validation's were; the base knows half of them."""
    from trainers.metrics.table import ROW_RESULTS

    spec, task, value, metric = request.spec, request.workload.task, 0.5, ""
    if spec:
        if not TrialPaths(Path(spec.dir)).adapter.exists():
            return Failed("crash", f"no adapter in {spec.dir}")
        value, metric = (max if spec.direction == "maximize" else min)(_values(spec)), spec.metric
    rows = _rows(task, metric, value, request.split)
    if request.rows_file:
        _write_rows(rows, Path(request.rows_file))
    import numpy as np

    return Scored(ROW_RESULTS[task].metrics(np.array(rows), request.inspection.labels), seconds=0.0)


def _rows(task: str, metric: str, value: float, split: str, order: str = "") -> list[tuple[float, ...]]:
    """Per-row results whose metric is about `value`. The same rows are hard for every trial of the same `order`.

    Columns as in `trainers/metrics/table.py`, for two labels or for tokens.
    """
    count = ROWS[split]
    hardness = [(i + 0.5) / count for i in range(count)]
    random.Random(split + order).shuffle(hardness)  # noqa: S311  # a repeatable order, not a secret
    if task == "chat":
        loss = math.log(max(value, 1e-9)) if metric == "perplexity" else value if metric == "loss" else 1 - value
        return [(10 * (loss + h - 0.5), 10.0, float(round(10 * min(1.0, value * (1.5 - h)))), 40.0) for h in hardness]
    loss = value if metric == "loss" else 1 - value
    labels = [i % 2 for i in range(count)]
    predicted = [y if h < value else 1 - y for y, h in zip(labels, hardness, strict=True)]
    answers = zip(labels, predicted, hardness, strict=True)
    return [(float(y), float(guess), loss + h - 0.5, 1.0 - guess, float(guess)) for y, guess, h in answers]


def _write_rows(rows: list[tuple[float, ...]], path: Path) -> None:
    """As .npy, version 1.0, without importing numpy in every child."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({len(rows)}, {len(rows[0])}), }}".ljust(117) + "\n"
    numbers = array.array("d", [number for row in rows for number in row])
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + numbers.tobytes())


def _load(paths: TrialPaths) -> tuple[list[Evaluation], bool]:
    """The evaluations before an interruption, and whether the verdict on the last one was taken."""
    path = paths.checkpoints / "state.json"
    if not path.exists():
        return [], True
    stored = json.loads(path.read_text())
    return [from_json(Evaluation, evaluation) for evaluation in stored["evaluations"]], stored["is_judged"]


def _save(paths: TrialPaths, evaluations: list[Evaluation], *, is_judged: bool) -> None:
    """By rename, but not synced: benchmarks measure the sweep with this trainer."""
    paths.checkpoints.mkdir(parents=True, exist_ok=True)
    scratch = paths.checkpoints / ".state.json.tmp"
    scratch.write_text(json.dumps({"evaluations": [to_json(e) for e in evaluations], "is_judged": is_judged}))
    scratch.replace(paths.checkpoints / "state.json")
