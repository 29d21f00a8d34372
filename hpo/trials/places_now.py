"""Where the model and the data of a recorded run lie today: the home, or the files themselves, may have moved since."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from trainers.protocol.codec import from_json
from trainers.protocol.trial_spec import ModelRef, SourceRef, Workload


@dataclass(frozen=True)
class PlacesNow:
    """Finds what a run was trained with. Whether it is still the same, hashes say."""

    cache_then: Path
    cache_now: Path
    config: Mapping[str, Any]
    """The sweep's file in its newest revision, as plain values: an edit may name another place of the same content."""

    def workload(self, workload: Workload) -> Workload:
        """The same workload at the places of today."""
        sources = {split: self._source(split, source) for split, source in workload.data.sources().items()}
        model = self._model(workload.model)
        return dataclasses.replace(workload, model=model, data=workload.data.with_sources(sources))

    def _source(self, split: str, then: SourceRef) -> SourceRef:
        found = self._source_here(then)
        named = self.config.get("data", {}).get(split)
        if _is_there(found.source) or not isinstance(named, Mapping):
            return found
        return self._source_here(from_json(SourceRef, named))

    def _source_here(self, source: SourceRef) -> SourceRef:
        files = [self._here(file) for file in source.files]
        return dataclasses.replace(source, source=self._here(source.source), files=files)

    def _model(self, then: ModelRef) -> ModelRef:
        found, named = self._model_here(then), self.config.get("model")
        if not isinstance(named, Mapping):
            return found
        now = self._model_here(from_json(ModelRef, named))
        if not _is_there(found.source):
            found = dataclasses.replace(found, source=now.source, revision=now.revision)
        if found.adapter is not None and not _is_there(found.adapter):
            found = dataclasses.replace(found, adapter=now.adapter or found.adapter)
        return found

    def _model_here(self, model: ModelRef) -> ModelRef:
        adapter = None if model.adapter is None else self._here(model.adapter)
        return dataclasses.replace(model, source=self._here(model.source), adapter=adapter)

    def _here(self, place: str) -> str:
        """A place below the cache of then is below that of today: the whole home may have moved."""
        path = Path(place)
        inside = path.is_absolute() and path.is_relative_to(self.cache_then)
        return str(self.cache_now / path.relative_to(self.cache_then)) if inside else place


def _is_there(place: str) -> bool:
    """Whether a file or folder lies at a place, or a pattern has files; a hub id is always there."""
    return not Path(place).is_absolute() or Path(place).exists() or bool(glob(place))
