"""Workloads on the tiny models, inspected once, and a way to train on them in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainers.protocol.catalog import METRICS, TASKS, canonical_settings, default_settings
from trainers.protocol.events import Event, PreparedData, TrialResult
from trainers.protocol.requests import Inspect
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, TrialSpec, Workload

KINDS = {"encoder": ("text-classification", "reviews.jsonl"), "chat": ("chat", "chats.jsonl")}


@pytest.fixture(scope="session")
def workload(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Workload]:
    cache = tmp_path_factory.mktemp("cache")

    def make(kind: str, precision: str = "fp32") -> Workload:
        task, data = KINDS[kind]
        rows = DataRef(SourceRef(str(tiny / data)), None, None, dict(TASKS[task].columns), 40, 20, 0)
        return Workload(task, ModelRef(str(tiny / kind)), rows, 64, precision, str(cache))

    return make


@pytest.fixture(scope="session")
def inspection(workload: Callable[..., Workload]) -> Callable[[str], PreparedData]:
    from trainers.prepare.inspect import inspect

    known: dict[str, PreparedData] = {}

    def get(kind: str) -> PreparedData:
        if kind not in known:
            known[kind] = inspect(Inspect(workload(kind)))
        return known[kind]

    return get


@pytest.fixture
def make_spec(workload: Callable[..., Workload], tmp_path: Path) -> Callable[..., TrialSpec]:
    def make(
        kind: str,
        method: str = "lora",
        max_examples: int = 160,
        seed: int = 0,
        largest_budget_examples: int = 0,
        **settings: Any,
    ) -> TrialSpec:
        task = KINDS[kind][0]
        metric = TASKS[task].metrics[0]
        chosen = {**default_settings(task, method), "evaluations": 2, "learning_rate": 1e-2, **settings}
        return TrialSpec(
            0, workload(kind), method, canonical_settings(method, chosen), metric, METRICS[metric].direction,
            max_examples, largest_budget_examples or max_examples, seed, "i", 1, ("cpu",), str(tmp_path / "trial"),
        )  # fmt: skip

    return make


@pytest.fixture
def run_trial(inspection: Callable[[str], PreparedData]) -> Callable[..., tuple[TrialResult, list[Event]]]:
    """Train to the end, answering every evaluation with "go" (or with `verdicts` in turn)."""
    from trainers.model.load import load_base
    from trainers.protocol.events import Evaluation
    from trainers.training.loop import train

    def run(spec: TrialSpec, verdicts: tuple[str, ...] = (), fresh: bool = True) -> tuple[Any, list[Event]]:
        if fresh:
            shutil.rmtree(spec.dir, ignore_errors=True)
        kind = "chat" if spec.workload.task == "chat" else "encoder"
        found = inspection(kind)
        base = load_base(spec.workload, found.labels)
        answers = iter(verdicts)
        work = train(base, spec, Path(found.tokens_dir))
        events: list[Any] = [next(work)]
        while True:
            try:
                is_evaluation = isinstance(events[-1], Evaluation)
                events.append(work.send(next(answers, "go") if is_evaluation else None))
            except StopIteration:
                return events[-1], events

    return run


@pytest.fixture(scope="session")
def family_workload(models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Workload]:
    """Any task on any family, with what `changes` says of the workload."""
    from tests.trainers.families import write_task

    folder = tmp_path_factory.mktemp("tasks")

    def make(family: str, task: str, layers: int = 2, **changes: Any) -> Workload:
        data = DataRef(SourceRef(str(write_task(task, folder))), None, None, dict(TASKS[task].columns), 16, 8, 0)
        if task == "instruct":
            data.columns["text_template"] = "{input} is {output}"
        return Workload(task, ModelRef(str(models(family, layers))), data, 32, "fp32", str(folder / "cache"), **changes)

    return make
