"""A bundle behind HTTP: each adapter is a model, and rows of all of them are answered by one worker in one batch."""

from __future__ import annotations

import asyncio

import pytest

from hpo.errors import UsageError
from hpo.serving.limits import Limits
from hpo.serving.served import Shelf, load_served
from tests.hpo.serving.conftest import Server
from tests.trainers.conftest import family_workload
from tests.trainers.export.test_bundle import TEXTS, bundled, close_to, learned
from trainers.runtime.bundle import ADAPTERS

__all__ = ["bundled", "family_workload", "learned"]


@pytest.fixture
def serve(learned, bundled, tmp_path):
    shelves = []

    def make(family, task):
        bundle = bundled(learned("a", family, task, lora_r=4), learned("b", family, task, lora_r=7, seed=1))
        served = load_served("it", tmp_path / "bundle", Limits())
        shelves.append(Shelf([served]))
        return Server(shelves[-1]), bundle, served.engine

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
    late = server.post("/v1/classify", model="it/b", input=TEXTS[0])  # it had the name before
    assert late.json()["data"][0]["label"] == bundle["b"].predict(TEXTS[:1])[0]["label"]
    added = worker.add_adapter("b", tmp_path / "bundle" / ADAPTERS / "b")
    assert added.predict(TEXTS) == close_to(bundle["b"].predict(TEXTS))
    assert 'model_name="it"' in server.call("GET", "/metrics").text


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
