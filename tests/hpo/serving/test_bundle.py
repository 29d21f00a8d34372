"""A bundle behind HTTP: each adapter is a model, and rows of all of them are answered by one worker in one batch."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from hpo.errors import UsageError
from hpo.serving.admin import Admin
from hpo.serving.limits import Limits
from hpo.serving.loader import Loader
from hpo.serving.resolver import Resolver
from hpo.serving.served import Shelf, load_served
from tests.hpo.serving.conftest import Server
from tests.trainers.conftest import family_workload
from tests.trainers.export.test_bundle import TEXTS, bundled, close_to, learned
from trainers.runtime.adapters import WEIGHTS
from trainers.runtime.bundle import ADAPTERS

__all__ = ["bundled", "family_workload", "learned"]


@pytest.fixture
def serve(learned, bundled, tmp_path):
    shelves = []

    def make(family, task):
        bundle = bundled(learned("a", family, task, lora_r=4), learned("b", family, task, lora_r=7, seed=1))
        served = load_served("it", tmp_path / "bundle", Limits())
        shelf = Shelf([served])
        shelves.append(shelf)
        admin = Admin(Loader(shelf, Limits()), Resolver(tmp_path, stays=False), tmp_path)
        return Server(shelf, admin=admin), bundle, served.engine

    yield make
    for shelf in shelves:
        shelf.close()


def test_rows_of_different_adapters_are_one_batch(serve, tmp_path):
    server, bundle, worker = serve("bert", "text-classification")
    listed = server.call("GET", "/v1/models").json()["data"]
    assert [(entry["id"], entry["root"]) for entry in listed] == [("it/a", "it"), ("it/b", "it")]
    assert [entry["hash"] for entry in listed] == [bundle[name].card.adapter_hash for name in bundle]
    answered, together = worker._release.answered, []

    def counted(batch):
        together.append({release.card.adapter_hash for release, _ in batch})
        return answered(batch)

    worker._release.answered = counted

    async def ask():
        async with server.client() as client:
            bodies = [{"model": f"it/{'ab'[i % 2]}", "input": TEXTS} for i in range(20)]
            return await asyncio.gather(*(client.post("/v1/classify", json=body) for body in bodies))

    for i, response in enumerate(asyncio.run(ask())):
        answers = [{k: v for k, v in answer.items() if k != "index"} for answer in response.json()["data"]]
        assert answers == close_to(bundle["ab"[i % 2]].predict(TEXTS))
    assert max(map(len, together)) == 2
    worker.remove_adapter("b")
    assert server.post("/v1/classify", model="it/b", input=TEXTS[0]).status_code == 404
    added = worker.add_adapter("b", tmp_path / "bundle" / ADAPTERS / "b")
    assert added.predict(TEXTS) == close_to(bundle["b"].predict(TEXTS))
    assert 'model_name="it"' in server.call("GET", "/metrics").text


def test_adapters_are_loaded_and_unloaded_by_hand(serve, tmp_path):
    server, bundle, _ = serve("bert", "text-classification")
    assert server.post("/v1/models/unload", model="it/b").json() == {"id": "it/b", "object": "model", "deleted": True}
    assert server.post("/v1/classify", model="it/b", input=TEXTS[0]).status_code == 404
    assert server.post("/v1/classify", model="it/a", input=TEXTS[0]).status_code == 200
    loaded = server.post("/v1/models/load", model="it/b").json()
    assert (loaded["id"], loaded["hash"]) == ("it/b", bundle["b"].card.adapter_hash)
    shutil.copytree(tmp_path / "bundle" / ADAPTERS / "a", tmp_path / "elsewhere")
    new = server.post("/v1/models/load", model="it/new", adapter_folder="elsewhere").json()
    assert (new["id"], new["root"], new["hash"]) == ("it/new", "it", bundle["a"].card.adapter_hash)
    answered = server.post("/v1/classify", model="it/new", input=TEXTS[0]).json()["data"][0]
    assert answered["label"] == bundle["a"].predict(TEXTS[:1])[0]["label"]
    assert [entry["id"] for entry in server.call("GET", "/v1/models").json()["data"]] == ["it/a", "it/b", "it/new"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "it/none"}, 404, "model_not_found"),
        ({"model": "it/new", "adapter_folder": "../outside"}, 404, "model_not_found"),
        ({"model": "it/new", "adapter_folder": "/etc"}, 404, "model_not_found"),
        ({"model": "it/new", "adapter_folder": "damaged"}, 400, "model_not_loadable"),
        ({"model": "other/new", "adapter_folder": "damaged"}, 400, None),
    ],
)
def test_what_is_no_adapter_is_refused(serve, tmp_path, body, status, code):
    server, _, _ = serve("bert", "text-classification")
    shutil.copytree(tmp_path / "bundle" / ADAPTERS / "a", tmp_path / "damaged")
    (tmp_path / "damaged" / WEIGHTS).write_bytes(b"no weights")
    refused = server.post("/v1/models/load", **body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code or refused.json()["error"]["code"])
    assert server.post("/v1/classify", model="it/a", input=TEXTS[0]).status_code == 200


def test_a_prompt_that_another_adapter_has_read_is_read_again(serve):
    server, bundle, _ = serve("gpt2", "causal-lm")
    prompt = "the film is good and"
    wanted = {name: bundle[name].predict([prompt], 6)[0]["text"] for name in bundle}

    async def ask():
        async with server.client() as client:
            names = ["a", "b", "a", "b", "a", "b"]
            bodies = [{"model": f"it/{name}", "prompt": prompt, "max_tokens": 6} for name in names]
            return names, await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))

    for name, response in zip(*asyncio.run(ask()), strict=True):
        assert response.json()["choices"][0]["text"] == wanted[name]


def test_a_plain_release_has_no_adapters(server, encoder_release):
    served = load_served("one", encoder_release(), Limits())
    with pytest.raises(UsageError, match="is no bundle"):
        served.engine.add_adapter("a", encoder_release())
    served.close()
