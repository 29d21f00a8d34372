"""Servers of tiny releases, called in this process or over a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
import pytest

from hpo.serving.admin import Admin
from hpo.serving.app import make_app
from hpo.serving.keys import Keys
from hpo.serving.limits import Limits
from hpo.serving.order import Order
from hpo.serving.served import Shelf, load_served
from hpo.serving.watch import Watch
from tests.hpo.serving.running import Running, started
from tests.trainers.export.conftest import chat_release, copy_of, encoder_release
from trainers.runtime.embed import Embedder
from trainers.runtime.tag import Tagger

__all__ = ["chat_release", "copy_of", "encoder_release", "started"]


class Tags(Tagger):
    """Tags every word with the first tag."""

    def word_logits(self, text, places):
        logits = np.zeros((len(places), len(self.card.labels)), dtype=np.float32)
        logits[:, 0] = 5
        return logits, {i: i for i in range(len(places))}

    def answer(self, reading, outputs):
        text, places = reading.given
        return self._tagged(text, places, *self.word_logits(text, places))


class Vectors(Embedder):
    """Takes a classifier's logits for a vector."""

    output = "logits"


@dataclass
class Server:
    """A server in this process; `call` sends it requests."""

    shelf: Shelf
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    watch: Watch = field(default_factory=Watch)
    admin: Admin | None = None

    def client(self) -> httpx2.AsyncClient:
        """Use it in one event loop."""
        app = make_app(self.shelf, self.keys, self.limits, admin=self.admin, watch=self.watch)
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://server", timeout=60)

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """The response to one request."""

        async def send() -> httpx2.Response:
            async with self.client() as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def post(self, path: str, **body: Any) -> httpx2.Response:
        """The response to a JSON body."""
        return self.call("POST", path, json=body)


@pytest.fixture(scope="session")
def server(encoder_release, chat_release) -> Iterator[Server]:
    """Serves `judge` (text-classification) and `writer` (chat)."""
    folders = {"judge": encoder_release(), "writer": chat_release()}
    shelf = Shelf([load_served(name, folder, Limits()) for name, folder in folders.items()])
    yield Server(shelf)
    shelf.close()


@pytest.fixture(scope="module")
def running(encoder_release, chat_release) -> Iterator[Running]:
    """A process that serves `judge` and `writer` on a free port."""
    with started(Order({"judge": encoder_release(), "writer": chat_release()}, "127.0.0.1", 0)) as process:
        yield process


def events(text: str) -> list[Any]:
    """The data of server-sent events, without the end mark."""
    blocks = text.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
