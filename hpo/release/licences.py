"""The licences of a base model and of data, where something says them; never guessed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.config.front_matter import front_matter
from hpo.demo.assets import ASSETS
from hpo.paths import Home
from hpo.quoting import clipped

UNKNOWN = "unknown"
_KEYS = ("license", "license_name")
"""Of front matter and of a model's config, as the hub writes them."""


@dataclass(frozen=True)
class Licence:
    """A licence as something says it."""

    name: str = UNKNOWN
    said_by: str = ""
    """Empty where nothing says it."""

    def __str__(self) -> str:
        return f"{self.name} (says {self.said_by})" if self.said_by else self.name


def licence_of(home: Home, place: Path) -> Licence:
    """Of a model's folder, or of a file or folder of data."""
    folder = place if place.is_dir() else place.parent
    if name := _name(front_matter(folder / "README.md")):
        return Licence(name, "its README.md")
    if name := _name(_config(folder)):
        return Licence(name, "its config.json")
    asset = ASSETS.get(folder.name) if folder.parent == home.cache else None
    return Licence() if asset is None else Licence(asset.licence, "the catalogue of hpo fetch")


def _name(values: dict[str, Any]) -> str:
    """Its id, and its own name where the id is only `other`."""
    said = [values.get(key) for key in _KEYS]
    words = [item if isinstance(item, list) else [item] for item in said if isinstance(item, (str, list))]
    return clipped(", ".join(str(word) for several in words for word in several if word))


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
