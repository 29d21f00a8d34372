"""Whether a recorded run is the training that a release was made of: a later sweep may have the same name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpo.executors.environment import Difference
from hpo.release.manifest import Manifest
from hpo.trials.recorded_run import RecordedRun
from trainers.protocol.files import file_fingerprint

_SHOWN_DIGITS = 12
"""Of a hash, in messages."""


def differences_from(manifest: Manifest, run: RecordedRun) -> list[Difference]:
    """In what a run is not the training that a manifest describes, as far as an earlier hpo wrote that down."""
    return [Difference(what, _text(was), _text(now)) for what, was, now in _pairs(manifest, run) if was != now]


def _pairs(manifest: Manifest, run: RecordedRun) -> Iterator[tuple[str, Any, Any]]:
    """What decides a training, as the manifest and as the record has it."""
    hashes = {"data": run.prepared.fingerprint, "base": run.prepared.model_fingerprint}
    if (adapter := run.paths.adapter).exists():
        hashes["adapter"] = file_fingerprint(path for path in adapter.iterdir() if path.is_file())
    for name, now in hashes.items():
        if was := manifest.sha256.get(name):
            yield name, was[:_SHOWN_DIGITS], now[:_SHOWN_DIGITS]
    facts, spec = manifest.training, run.spec
    if not facts.task:
        return
    yield "task", facts.task, spec.workload.task
    yield "method", facts.method, spec.method
    yield "seed", facts.seed, spec.seed
    yield "examples", facts.examples, spec.max_examples
    for name in dict.fromkeys([*facts.settings, *spec.settings]):
        yield name, facts.settings.get(name), spec.settings.get(name)
    yield facts.metric, facts.value, run.result.value if facts.metric == spec.metric else None


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
