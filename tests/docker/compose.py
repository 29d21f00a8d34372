"""What `docker/compose.yaml` says, read without Docker: its services, with the defaults of their variables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "docker"
FILE = FOLDER / "compose.yaml"
_VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")


@dataclass(frozen=True)
class Service:
    """A service, as far as these tests need it; `raw` has the rest."""

    command: list[str]
    environment: dict[str, str]
    secrets: list[str]
    raw: dict[str, Any]


def with_defaults(value: Any) -> Any:
    """A value of the file as Compose reads it where no variable is set: `${NAME:-default}` is `default`."""
    if isinstance(value, str):
        return _VARIABLE.sub(r"\2", value)
    if isinstance(value, dict):
        return {key: with_defaults(found) for key, found in value.items()}
    return [with_defaults(found) for found in value] if isinstance(value, list) else value


def variables() -> set[str]:
    """The names of all variables that a person can set for the file."""
    return {name for name, _ in _VARIABLE.findall(FILE.read_text())}


def services() -> dict[str, Service]:
    """All services by name, those of profiles too."""
    found = with_defaults(yaml.safe_load(FILE.read_text()))["services"]
    return {
        name: Service(raw.get("command", []), raw.get("environment", {}), raw.get("secrets", []), raw)
        for name, raw in found.items()
    }
