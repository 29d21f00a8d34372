"""What `docker/compose.yaml` says, read without Docker: its services, with their variables or the defaults of these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "docker"
FILE = FOLDER / "compose.yaml"
_INNERMOST = re.compile(r"\$\{([A-Z_]+):-([^${}]*)\}")


@dataclass(frozen=True)
class Service:
    """A service, as far as these tests need it; `raw` has the rest."""

    command: list[str]
    environment: dict[str, str]
    secrets: list[str]
    raw: dict[str, Any]


def as_read(value: Any, variables: Mapping[str, str]) -> Any:
    """A value of the file as Compose reads it: `${NAME:-default}` is `default` where the variable is not set."""
    if isinstance(value, str):
        read = _INNERMOST.sub(lambda found: variables.get(found[1], found[2]), value)
        return read if read == value else as_read(read, variables)
    if isinstance(value, dict):
        return {key: as_read(found, variables) for key, found in value.items()}
    return [as_read(found, variables) for found in value] if isinstance(value, list) else value


def variables() -> set[str]:
    """The names of all variables that a person can set for the file."""
    return set(re.findall(r"\$\{([A-Z_]+):-", FILE.read_text()))


def services(**variables: str) -> dict[str, Service]:
    """All services by name, those of profiles too, where a person has set these variables."""
    found = as_read(yaml.safe_load(FILE.read_text()), variables)["services"]
    return {
        name: Service(raw.get("command", []), raw.get("environment", {}), raw.get("secrets", []), raw)
        for name, raw in found.items()
    }
