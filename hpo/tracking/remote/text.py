"""Ids and links in texts of a run, as they are on another server. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_ID = re.compile(r"(?<![0-9a-z])(?:m-)?[0-9a-f]{32}(?![0-9a-f])")
_EXPERIMENT = re.compile(r"(?<=/experiments/)\d+(?![\w-])")
_VERSION = re.compile(r"#/models/(?P<name>[\w.-]+)/versions/(?P<version>\d+)")


@dataclass
class Names:
    """Names of runs, logged models and experiments: in this home, and on a server."""

    ids: dict[str, str] = field(default_factory=dict)
    """Id of a run or model here -> id of its copy."""
    experiments: dict[str, str] = field(default_factory=dict)
    """Id of an experiment here -> its id there."""
    local: set[str] = field(default_factory=set)
    """Ids here that have a copy, or will have one."""
    versions: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """Name and number of a registered version, which stays here -> experiment and id of its logged model here."""

    def translated(self, text: str) -> str | None:
        """The text with ids of the server in place of those here; None where it names one that has no copy yet.

        A link to a registered version leads to its logged model.
        """
        text = _VERSION.sub(self._model_link, text)
        if any(found in self.local and found not in self.ids for found in _ID.findall(text)):
            return None
        text = _ID.sub(lambda found: self.ids.get(found[0], found[0]), text)
        return _EXPERIMENT.sub(lambda found: self.experiments.get(found[0], found[0]), text)

    def _model_link(self, found: re.Match[str]) -> str:
        if model := self.versions.get((found["name"], found["version"])):
            return f"#/experiments/{model[0]}/models/{model[1]}"
        return found[0]
