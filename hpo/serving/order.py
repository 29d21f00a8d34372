"""What a server shall serve, and where: what `hpo serve` hands to the serving process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hpo.config.serve_config import ServeConfig
from trainers.protocol.codec import from_json, to_json


@dataclass(frozen=True)
class Order:
    """The models of a server by name, each with its release folder, and where it listens. It holds no keys."""

    models: dict[str, Path]
    host: str
    port: int
    """0 for a free one."""
    key_file: Path | None = None
    config: ServeConfig = field(default_factory=ServeConfig)

    def to_json(self) -> str:
        """As an argument of the serving process."""
        models = {name: str(folder) for name, folder in self.models.items()}
        key_file = None if self.key_file is None else str(self.key_file)
        listens = {"host": self.host, "port": self.port, "key_file": key_file}
        return json.dumps({"models": models, **listens, "config": to_json(self.config)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        models = {name: Path(folder) for name, folder in data["models"].items()}
        key_file = Path(data["key_file"]) if data["key_file"] else None
        return cls(models, data["host"], data["port"], key_file, from_json(ServeConfig, data["config"]))
