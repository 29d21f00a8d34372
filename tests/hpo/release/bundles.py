"""A trainer that writes bundles without a model: what `hpo bundle` asks for, and one adapter that fails its gate."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.protocol.exported import BundledAdapter, BundleExported
from trainers.protocol.requests import ExportBundle
from trainers.runtime.card import Card


def work(request: Any) -> Iterator[Any]:
    """Answers `ExportBundle`; the adapter of a trial that is named `wrong` differs from its merged model."""
    assert isinstance(request, ExportBundle)
    folder = Path(request.dir)
    folder.mkdir(parents=True)
    names = tuple(trial.name for trial in request.trials)
    card = Card(task="text-classification", variant="fp32", labels=(), max_length=8, pad_token_id=0, adapters=names)
    (folder / "release.json").write_text(json.dumps(dataclasses.asdict(card)))
    adapters = [BundledAdapter(name, name[0] * 64, 0.5, 1e-6) for name in names]
    failures = {name: "differs from its merged model by 0.2" for name in names if name == "wrong"}
    yield BundleExported(adapters, failures, 0.1)
