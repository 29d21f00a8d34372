"""A base model brought to a task, and looked at as a sweep looks at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.families import write_task
from trainers.data.sources import DataProblem
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import METRICS, TASKS, canonical_settings, default_settings
from trainers.protocol.events import PreparedData
from trainers.protocol.requests import Inspect, Intent, MethodPlan
from trainers.protocol.settings import ASKED_OF_MODEL
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, TrialSpec, Workload

TASK_OF = {"encoder": "text-classification", "decoder": "causal-lm", "encoder-decoder": "text-to-text"}


def plan(task: str, method: str = "lora", **settings: Any) -> MethodPlan:
    """What a trial asks for: the method's defaults, and some settings."""
    known = {**default_settings(task, method), **settings}
    return MethodPlan(method, {name: known[name] for name in ASKED_OF_MODEL if name in known})


def workload_of(folder: Path, task: str, tmp: Path, max_length: int = 32, **changes: Any) -> Workload:
    data = DataRef(SourceRef(str(write_task(task, tmp))), None, None, dict(TASKS[task].columns), 16, 8, 0)
    return Workload(task, ModelRef(str(folder)), data, max_length, "fp32", str(tmp / "cache"), **changes)


def look(
    work: Workload,
    *plans: MethodPlan,
    release: Any = "no",
    searched: list[str] | None = None,
    as_adapters: bool = False,
) -> PreparedData:
    intent = Intent(list(plans) or [plan(work.task)], searched or [], release, as_adapters=as_adapters)
    return inspect(Inspect(work, intent))


def findings(work: Workload, *plans: MethodPlan, **asked: Any) -> list[str]:
    """Every finding as a line; nothing is written where there is one."""
    before = set(Path(work.cache_dir).rglob("*"))
    with pytest.raises(DataProblem) as problem:
        look(work, *plans, **asked)
    assert set(Path(work.cache_dir).rglob("*")) == before
    return [f"{f.where}: {f.found}; {f.expected}" for f in problem.value.findings]


def spec_of(work: Workload, folder: Path, method: str = "lora", max_examples: int = 32, **settings: Any) -> TrialSpec:
    """Two steps, or as many as `max_examples` makes."""
    metric = TASKS[work.task].metrics[0]
    chosen = {"learning_rate": 1e-2, "batch_size": 16, "evaluations": 1, **settings}
    return TrialSpec(
        0, work, method, canonical_settings(method, {**default_settings(work.task, method), **chosen}), metric,
        METRICS[metric].direction, max_examples, max_examples, 0, "i", 1, ("cpu",), str(folder),
    )  # fmt: skip


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
