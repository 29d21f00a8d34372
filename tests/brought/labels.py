"""What tests of labels, tags and numbers share: small texts, and a workload of given rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import write_jsonl
from trainers.protocol.catalog import TASKS as CATALOG
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, Workload

WORDS = ["warm", "dull", "film", "plot", "scene", "story", "funny", "stale", "the", "a"]
TEXTS = [f"{a} {b} {i}" for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS)]


def workload(task: str, model: Path, rows: list[dict[str, Any]], folder: Path, **data: Any) -> Workload:
    file = write_jsonl(folder / "data.jsonl", rows)
    ref = DataRef(SourceRef(str(file)), None, None, dict(CATALOG[task].columns), 0.2, 0.2, 0, **data)
    return Workload(task, ModelRef(str(model)), ref, 32, "fp32", str(folder / "cache"))
