"""What a trial used of the machine, as MLflow's system metrics: by the clock, below `system/`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

_NAMES = {"cpu_percent": "cpu_utilization_percentage", "memory_mb": "system_memory_usage_megabytes"}
_GPU_NAMES = {
    "percent": "utilization_percentage", "memory_mb": "memory_usage_megabytes", "power_w": "power_usage_watts",
}  # fmt: skip
"""Ours -> those of MLflow's own sampler, by which its UI makes the tab of system metrics."""


def system_metrics(usage: Path) -> list[Metric]:
    """The samples that a trial's process wrote (see `trainers/training/usage.py`); none where it wrote none."""
    return [metric for step, sample in enumerate(_samples(usage)) for metric in _of_sample(sample, step)]


def _samples(usage: Path) -> Iterator[dict[str, Any]]:
    """Whole samples: a kill cuts the last line of an attempt, to which earlier trainers added the next attempt's."""
    lines = usage.read_text(encoding="utf-8", errors="replace").splitlines() if usage.exists() else []
    for line in lines:
        try:
            sample = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(sample, dict) and "time_ms" in sample:
            yield sample


def _of_sample(sample: Mapping[str, Any], step: int) -> list[Metric]:
    values = {name: sample[ours] for ours, name in _NAMES.items() if ours in sample}
    for number, gpu in enumerate(sample.get("gpus", [])):
        values |= {f"gpu_{number}_{name}": gpu[ours] for ours, name in _GPU_NAMES.items() if ours in gpu}
    return [Metric(f"system/{name}", value, sample["time_ms"], step) for name, value in values.items()]
