"""Releases of traced graphs behind HTTP: writers whose cache grows, and embeddings."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from hpo.serving.limits import Limits
from hpo.serving.served import Served, Shelf, engine_for
from tests.hpo.serving.conftest import Server
from tests.trainers.conftest import family_workload
from tests.trainers.export.conftest import promoted

__all__ = ["family_workload", "promoted"]


@pytest.fixture
def serve(promoted):
    shelves = []

    def make(family, task):
        _, _, release, given, _ = promoted(family, task)
        shelves.append(Shelf([Served("it", release, engine_for("it", release, Limits()), {})]))
        return Server(shelves[-1]), release, given

    yield make
    for shelf in shelves:
        shelf.close()


def test_a_writer_whose_cache_grows_writes_what_predict_writes(serve):
    server, release, given = serve("gpt2", "causal-lm")
    assert release.card.cache == "appended"
    prompts = [release.tokenizer.decode(row["input_ids"][: 5 + n]) for n, row in enumerate(given[:3])]
    wanted = [answer["text"] for answer in release.predict(prompts, max_new_tokens=8)]
    answered = server.post("/v1/completions", prompt=prompts, max_tokens=8).json()
    assert [choice["text"] for choice in answered["choices"]] == wanted
    again = server.post("/v1/completions", prompt=prompts[0], max_tokens=8).json()  # its prompt is read already
    assert again["choices"][0]["text"] == wanted[0]


def test_embeddings_in_openai_s_shape(serve):
    server, release, given = serve("bert", "text-similarity")
    texts = [given[0]["text"], given[0]["text_pair"], '{"text": "braces"}']
    wanted = release.vectors(texts)
    answered = server.post("/v1/embeddings", model="it", input=texts).json()
    assert [entry["index"] for entry in answered["data"]] == [0, 1, 2]
    assert np.allclose([entry["embedding"] for entry in answered["data"]], wanted, atol=1e-5)
    packed = server.post("/v1/embeddings", input=texts[0], encoding_format="base64").json()["data"][0]["embedding"]
    assert np.allclose(np.frombuffer(base64.b64decode(packed), "<f4"), wanted[0], atol=1e-5)
    pair = {"text": texts[0], "text_pair": texts[1]}
    (value,) = server.post("/v1/classify", input=pair).json()["data"]
    assert value["value"] == pytest.approx(float(wanted[0] @ wanted[1]), abs=1e-5)
    refused = server.post("/v1/embeddings", input=[""])
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")


def test_only_embeddings_have_vectors(server):
    refused = server.post("/v1/embeddings", model="judge", input="a text")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "wrong_task")


def test_a_body_of_another_type_is_named(server):
    refused = server.call("POST", "/v1/classify", content=b'{"input": "a"}', headers={"content-type": "text/plain"})
    assert refused.status_code == 415
    assert "Content-Type: application/json" in refused.json()["error"]["message"]
