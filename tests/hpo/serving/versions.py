"""A registry with versions of one model that can be told apart by their answers, and a server that serves it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from hpo.lock import is_in_use
from hpo.paths import Home
from hpo.serving.order import Order
from hpo.tracking.mlflow_store import client


@dataclass
class Versions:
    """The versions of `tone` in a home's registry; the labels of each begin with its number."""

    home: Home
    release: Path
    folders: dict[str, Path] = field(default_factory=dict)

    def add(self) -> Path:
        """Register the release once more; returns the folder of the new version."""
        store, number = client(self.home), str(len(self.folders) + 1)
        if not self.folders:
            store.create_registered_model("tone")
        model = self.home.artifacts / f"model-{number}"
        folder = Path(shutil.copytree(self.release, model / "artifacts" / "fp32"))
        card = json.loads((folder / "release.json").read_text())
        card["labels"] = [f"{number}-{label}" for label in card["labels"]]
        (folder / "release.json").write_text(json.dumps(card))
        store.create_model_version("tone", model.as_uri())
        self.folders[number] = folder
        return folder

    def crown(self, number: str) -> None:
        """Move the alias, as MLflow's UI does."""
        client(self.home).set_registered_model_alias("tone", "champion", number)

    def in_use(self) -> set[str]:
        """The versions whose files somebody uses."""
        return {number for number, folder in self.folders.items() if is_in_use(folder / "release.json")}

    def order(self, number: str, follow_every: float | None = None) -> Order:
        """An order to serve `tone`, whose champion that version is."""
        self.crown(number)
        return Order(
            {"tone": self.folders[number]}, "127.0.0.1", 0, versions={"tone": number}, home=self.home.dir,
            follow_every=follow_every,
        )  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One request under load."""

    began: float
    ended: float
    status: int
    version: int
    """The one that answered."""


@dataclass
class Load:
    """Clients that ask `tone` all the time."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, clients: int = 4) -> Iterator[None]:
        """They ask while inside."""
        is_over = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(is_over,)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join()

    def _ask(self, is_over: threading.Event) -> None:
        with httpx2.Client(timeout=60) as http:
            while not is_over.is_set():
                began = time.monotonic()
                try:
                    response = http.post(f"{self.url}/v1/classify", json={"model": "tone", "input": ["rain", "a film"]})
                    labels = {answer["label"].partition("-")[0] for answer in response.json()["data"]}
                    (version,) = labels  # one request is answered by one version
                except (httpx2.HTTPError, KeyError, ValueError) as error:
                    self.failed.append(repr(error))
                    continue
                self.asked.append(Asked(began, time.monotonic(), response.status_code, int(version)))


def served_version(url: str) -> str:
    """The version of `tone` that answers."""
    found: str = httpx2.get(f"{url}/v1/models/tone").json()["version"]
    return found


def metric(url: str, name: str) -> float:
    """The value of a metric of `tone`; 0 where it has none."""
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f'{name}{{model_name="tone"'))
