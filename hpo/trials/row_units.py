"""Which rows of a split belong together: the turns of one conversation, which a chat template may make rows of"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpo.executors.base import Fetch
from hpo.results.statistics import Units
from trainers.protocol.catalog import TASKS
from trainers.protocol.events import PreparedData


def conversations_of(task: str, prepared: PreparedData, split: str, fetch: Fetch) -> list[str] | None:
    """What names the conversation of each row of a split; None where each row stands alone. The fake trainer has no
    rows."""
    if not TASKS[task].makes_turns or not prepared.tokens_dir:
        return None
    with fetch(Path(prepared.tokens_dir, f"{split}.jsonl")).open(encoding="utf-8") as lines:
        return [json.loads(line).get("conversation", line) for line in lines]  # an earlier hpo wrote none


def units_of(task: str, prepared: PreparedData, split: str, fetch: Fetch) -> Units | None:
    """The units of a split's rows; None where each row is one."""
    names = conversations_of(task, prepared, split, fetch)
    return None if names is None else numbered(names)


def numbered(names: Sequence[str]) -> Units:
    """A number for each name, in the order in which names first come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.intp)
