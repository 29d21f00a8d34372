"""What is measured besides the task's metrics: generated text, and functions of your own."""

from __future__ import annotations

import re

from hpo.config.keys import Described, Whole, read_all
from hpo.config.yaml_source import Section
from trainers.metrics.names import own_name
from trainers.protocol.catalog import GENERATED, METRICS, RESOURCES, TASKS
from trainers.protocol.trial_spec import Generation

_OWN = re.compile(r"[^:]+\.py:[A-Za-z_]\w*")
_NAME = {"anyOf": [{"enum": [*GENERATED]}, {"type": "string", "pattern": f"^{_OWN.pattern}$"}]}
METRICS_KEY = Described(
    "metrics", None,
    "what is measured besides the task's metrics: a metric of generated text, `FILE.py:FUNCTION`, or a list of them",
    described={"anyOf": [{"type": "null"}, *_NAME["anyOf"], {"type": "array", "items": _NAME}]},
)  # fmt: skip
GENERATION = (
    Whole("examples", 64,
          "for metrics of generated text: so many validation rows, the same in every trial, are answered greedily",
          low=1, high=1_000_000),
    Whole("max_new_tokens", 64, "longest answer", low=1, high=100_000),
)  # fmt: skip


def parse_metrics(root: Section, task: str) -> tuple[str, ...]:
    """Read `metrics:`, a list of names of generated-text metrics and of `FILE.py:FUNCTION`."""
    raw = root.raw("metrics")
    if raw is None:
        return ()
    listed = raw if isinstance(raw, list) else [raw]
    known = GENERATED if not task or TASKS[task].generates else ()
    metrics: list[str] = []
    for value in listed:
        if why := _refuse(value, task, known, metrics):
            root.got(value, why, "metrics")
        else:
            metrics.append(value)
    return tuple(metrics)


def _refuse(value: object, task: str, known: tuple[str, ...], before: list[str]) -> str | None:
    """Why a value cannot stand in the list, or None."""
    own = "one of yours: FILE.py:FUNCTION"
    if not isinstance(value, str):
        return f"expected {', '.join((*known, own))}"
    if value in before or own_name(value) in map(own_name, before):
        return "is named twice"
    if _OWN.fullmatch(value):
        is_taken = own_name(value) in METRICS or own_name(value) in RESOURCES
        return f"{own_name(value)} is the name of a metric already: give the function another" if is_taken else None
    if task and value in TASKS[task].metrics:
        return "is measured anyway: leave it out"
    if value in known:
        return None
    if value in GENERATED:
        return f"{task} generates no text; expected {own}"
    return f"expected {', '.join((*known, own))}"


def parse_generation(root: Section) -> Generation:
    """Read `generation:`: how many answers, and how long."""
    section = root.section("generation")
    generation = Generation(**read_all(section, GENERATION))
    section.finish()
    return generation
