"""Who is champion of a name, who was before, and who would be: MLflow's aliases `champion`, `previous`, `challenger`.

MLflow's UI moves `champion` and nothing else. So the tag `hpo.champion` of the registered model has the champion as hpo
last knew it: where the alias is on another version, that one is the previous champion. Every change moves `champion`
first and the tag last, so a kill in between looks like a click in the UI, and nobody is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hpo.errors import UsageError
from hpo.lock import exclusive
from hpo.paths import Home
from hpo.tracking.mlflow_store import client

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
_OURS = (CHAMPION, PREVIOUS, CHALLENGER)
WAITS = "hpo.waits"
"""Tag of a version that waits for a person."""
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a model, a version or an alias that does not exist, or whose name is invalid."""
_KNOWN = "hpo.champion"


@dataclass(frozen=True)
class Aliases:
    """The versions of one name that have an alias; None where no version has it."""

    champion: str | None = None
    previous: str | None = None
    challenger: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    """Aliases of other names, which people give in MLflow -> the version that has each."""

    def of(self, version: str) -> str | None:
        """The alias of a version, of the three that are ours."""
        held = {self.challenger: CHALLENGER, self.previous: PREVIOUS, self.champion: CHAMPION}
        return held.get(version)

    def all_of(self, version: str) -> list[str]:
        """All aliases of a version: ours, and those that people gave it."""
        ours = self.of(version)
        return [*([ours] if ours else []), *sorted(name for name, held in self.given.items() if held == version)]


class Seats:
    """The aliases of one name, read and moved while this process alone may do so (see `seats`)."""

    def __init__(self, store: MlflowClient, name: str) -> None:
        self._store = store
        self._name = name

    def now(self) -> Aliases:
        """Who has which alias; a move of `champion` in MLflow's UI is counted as one of ours."""
        model = self._store.get_registered_model(self._name)
        found = {alias: str(version) for alias, version in model.aliases.items()}
        champion, known = found.get(CHAMPION), model.tags.get(_KNOWN)
        previous = found.get(PREVIOUS)
        if champion and known and known != champion and self._exists(known):
            previous = known
        held = {champion} if champion else set()
        previous = None if previous in held else previous
        challenger = found.get(CHALLENGER)
        given = {alias: version for alias, version in found.items() if alias not in _OURS}
        return Aliases(champion, previous, None if challenger in {champion, previous} else challenger, given)

    def crown(self, version: str) -> None:
        """Make a version the champion; who was it is `previous`."""
        before = self._settled()
        if before.champion == version:
            return
        self._set(CHAMPION, version)
        self._settled()
        self._store.delete_model_version_tag(self._name, version, WAITS)

    def challenge(self, version: str, *, waits: bool) -> None:
        """Make a version the challenger. One that was refused leaves the alias to one that waits for a person."""
        if waits:
            self._store.set_model_version_tag(self._name, version, WAITS, "true")
        elif (other := self.now().challenger) not in (None, version) and self._waits(str(other)):
            return
        self._set(CHALLENGER, version)

    def judged(self, version: str) -> None:
        """Note that a version waits for nobody any more: it was judged without a person."""
        self._store.delete_model_version_tag(self._name, version, WAITS)

    def forget(self, version: str) -> None:
        """Take a version out of the record before it is deleted, so that no deleted one is taken for a champion."""
        if self._store.get_registered_model(self._name).tags.get(_KNOWN) == version:
            self._store.delete_registered_model_tag(self._name, _KNOWN)

    def _settled(self) -> Aliases:
        """The aliases, written as `now` sees them."""
        now = self.now()
        found = self._store.get_registered_model(self._name).aliases
        for alias, version in ((PREVIOUS, now.previous), (CHALLENGER, now.challenger)):
            if version is None and alias in found:
                self._store.delete_registered_model_alias(self._name, alias)
            elif version is not None and str(found.get(alias)) != version:
                self._set(alias, version)
        if now.champion:
            self._store.set_registered_model_tag(self._name, _KNOWN, now.champion)
        return now

    def _set(self, alias: str, version: str) -> None:
        self._store.set_registered_model_alias(self._name, alias, version)

    def _waits(self, version: str) -> bool:
        return WAITS in self._store.get_model_version(self._name, version).tags

    def _exists(self, version: str) -> bool:
        try:
            self._store.get_model_version(self._name, version)
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
            return False
        return True


@contextmanager
def seats(home: Home, name: str) -> Iterator[Seats]:
    """The aliases of a registered model, which no other process of ours moves meanwhile."""
    store = client(home)
    with exclusive(home.registry_lock):
        yield Seats(store, name)


def aliases_of(home: Home, name: str) -> Aliases:
    """Who has which alias; nobody where the name is not registered."""
    try:
        return Seats(client(home), name).now()
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return Aliases()


def roll_back(home: Home, name: str) -> Aliases:
    """Swap champion and previous champion, and return who is what now. Raises `UsageError` where one is missing."""
    with seats(home, name) as held:
        now = held.now()
        if now.previous is None:
            current = f"version {now.champion} is its only champion so far" if now.champion else "it has no champion"
            raise UsageError(f"nothing to roll {name!r} back to: {current}; hpo releases {name} lists its versions")
        held.crown(now.previous)
        return held.now()


def approve(home: Home, name: str, version: str | None) -> Aliases:
    """Make the challenger, or the `version` that was named, the champion. Raises `UsageError` where there is none."""
    with seats(home, name) as held:
        now = held.now()
        wanted = version or now.challenger
        if wanted is None:
            raise UsageError(f"{name!r} has no challenger; name a version: hpo approve {name}/VERSION")
        if wanted == now.champion:
            raise UsageError(f"version {wanted} is the champion of {name!r} already")
        held.crown(wanted)
        return held.now()
