"""What a server shall serve, and where: what `hpo serve` hands to the serving process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hpo.config.serve_config import ServeConfig
from trainers.protocol.codec import from_json, to_json


@dataclass(frozen=True)
class Place:
    """Where the files of a model lie."""

    folder: Path
    version: str | None = None
    """Its version in the registry; None for a folder that was named as such."""


@dataclass(frozen=True)
class Order:
    """The models of a server by name, each with its release folder, and where it listens. It holds no keys."""

    models: dict[str, Path]
    host: str
    port: int
    """0 for a free one."""
    key_file: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the models that were named in the registry."""
    home: Path | None = None
    """Whose models can be loaded by hand; None for no such home."""
    follow_every: float | None = None
    """How many seconds lie between two looks at the registry; None to keep the versions as they are."""

    config: ServeConfig = field(default_factory=ServeConfig)
    """Its filters and its log."""

    @property
    def places(self) -> dict[str, Place]:
        """Where each model's files lie."""
        return {name: Place(folder, self.versions.get(name)) for name, folder in self.models.items()}

    def to_json(self) -> str:
        """As an argument of the serving process."""
        fields = {
            "models": {name: str(folder) for name, folder in self.models.items()},
            "host": self.host,
            "port": self.port,
            "key_file": None if self.key_file is None else str(self.key_file),
            "versions": dict(self.versions),
            "home": None if self.home is None else str(self.home),
            "follow_every": self.follow_every,
            "config": to_json(self.config),
        }
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        data["models"] = {name: Path(folder) for name, folder in data["models"].items()}
        for name in ("key_file", "home"):
            data[name] = None if data[name] is None else Path(data[name])
        data["config"] = from_json(ServeConfig, data["config"])
        return cls(**data)
