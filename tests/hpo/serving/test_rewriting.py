"""Models of text-to-text behind `/v1/completions`: token by token, at random, and with beams."""

from __future__ import annotations

import asyncio

import pytest

from hpo.serving.limits import Limits
from hpo.serving.served import Served, Shelf, engine_for
from tests.hpo.serving.conftest import Server, copy_of, events
from tests.trainers.export.test_beams import exported, random_release
from trainers.runtime.beams import Beams

__all__ = ["copy_of", "exported", "random_release"]

COMPLETIONS = "/v1/completions"
TEXTS = ["what is warm", "it is dull and clever films 7", "a", "warm 1 2 3 4 5 6 7 8 9", "dull"]
BEAMS = {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True}


@pytest.fixture
def serve(random_release):
    shelves = []

    def make(family="t5", limits=None, **changes):
        _, release = random_release(family, **changes)
        shelves.append(Shelf([Served("it", release, engine_for("it", release, limits or Limits()), {})]))
        return Server(shelves[-1]), release

    yield make
    for shelf in shelves:
        shelf.close()


def texts_of(response):
    assert response.status_code == 200, response.text
    return [choice["text"] for choice in response.json()["choices"]]


def test_answers_are_those_of_predict_alone_and_together(serve):
    server, release = serve("bart", forced_bos_token_id=3, forced_eos_token_id=2)
    wanted = [answer["text"] for answer in release.predict(TEXTS, 9)]
    response = server.post(COMPLETIONS, prompt=TEXTS, max_tokens=9)
    assert texts_of(response) == wanted
    usage = response.json()["usage"]
    assert usage["prompt_tokens"] == sum(len(release.text_ids(text)) for text in TEXTS)
    assert {choice["finish_reason"] for choice in response.json()["choices"]} <= {"stop", "length"}

    async def ask():
        async with server.client() as client:
            bodies = [{"prompt": TEXTS[i % 5], "max_tokens": 1 + i % 9} for i in range(30)]
            return await asyncio.gather(*(client.post(COMPLETIONS, json=body) for body in bodies))

    for i, answered in enumerate(asyncio.run(ask())):
        assert texts_of(answered) == [release.predict([TEXTS[i % 5]], 1 + i % 9)[0]["text"]]


def test_a_text_is_read_once_for_all_its_answers(serve, monkeypatch):
    server, release = serve()
    reads = []
    monkeypatch.setattr(release, "read", lambda ids, read=release.read: reads.append(ids) or read(ids))
    body = {"prompt": TEXTS[0], "n": 4, "temperature": 1.5, "seed": 2, "max_tokens": 12, "logprobs": 1}
    choices = server.post(COMPLETIONS, **body).json()["choices"]
    assert len(reads) == 1
    assert len({choice["text"] for choice in choices}) > 1
    assert choices == server.post(COMPLETIONS, **body).json()["choices"]
    assert all(len(choice["logprobs"]["tokens"]) <= 12 for choice in choices)
    streamed = ["", "", "", ""]
    for chunk in events(server.post(COMPLETIONS, **body, stream=True).text):
        streamed[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert streamed == [choice["text"] for choice in choices]


def test_beams(serve):
    server, release = serve()
    wanted = [release.tokenizer.decode(release.written(text, 12, Beams(4))) for text in TEXTS]
    assert texts_of(server.post(COMPLETIONS, prompt=TEXTS, num_beams=4, max_tokens=12)) == wanted
    (*_, last) = events(server.post(COMPLETIONS, prompt=TEXTS[0], num_beams=4, max_tokens=12, stream=True).text)
    assert last["choices"][0]["text"] == wanted[0]
    stop = wanted[1][len(wanted[1]) // 2 :][:3]
    assert texts_of(server.post(COMPLETIONS, prompt=TEXTS[1], num_beams=4, max_tokens=12, stop=stop)) == [
        wanted[1][: wanted[1].index(stop)]
    ]
    for key, value in (("temperature", 1), ("n", 2), ("logprobs", 0), ("num_beams", 9)):
        refused = server.post(COMPLETIONS, prompt="a", **{"num_beams": 2, key: value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "num_beams")


def test_beams_are_the_base_model_s_unless_the_request_wants_what_they_cannot(serve):
    server, release = serve("bart", Limits(rows=2), **BEAMS)  # a search is wider than the rows, and is alone then
    assert release.beams == Beams(3, 2.0, True)
    wanted = [answer["text"] for answer in release.predict(TEXTS, 12)]
    greedy = [release.tokenizer.decode(list(release.generate(text, 12))) for text in TEXTS]
    assert wanted != greedy
    assert texts_of(server.post(COMPLETIONS, prompt=TEXTS, max_tokens=12)) == wanted
    assert texts_of(server.post(COMPLETIONS, prompt=TEXTS, max_tokens=12, num_beams=1)) == greedy
    assert texts_of(server.post(COMPLETIONS, prompt=TEXTS, max_tokens=12, logprobs=0)) == greedy


def test_what_nobody_reads_leaves_and_a_failure_ends_only_what_is_under_way(serve, monkeypatch):
    server, release = serve()
    assert server.post("/v1/chat/completions", messages=[{"role": "user", "content": "a"}]).status_code == 400
    with monkeypatch.context() as patch:
        patch.setattr(release, "read", lambda ids: 1 / 0)
        assert server.post(COMPLETIONS, prompt="dull").json()["error"]["code"] == "model_failed"
    assert server.post(COMPLETIONS, prompt="dull").status_code == 200
    assert server.call("GET", "/v1/models").json()["data"][0]["writes"]


def test_a_tokenizer_that_cannot_be_guided_is_refused(serve):
    """One of whole words: nobody can say which bytes follow which."""
    server, _ = serve()
    refused = server.post(COMPLETIONS, prompt="a", response_format={"type": "json_object"})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "response_format")
    assert "this model's tokenizer cannot be guided" in error["message"]
    assert server.post(COMPLETIONS, prompt="a").status_code == 200


def test_only_text_to_text_has_beams(server):
    refused = server.post(
        "/v1/chat/completions", model="writer", messages=[{"role": "user", "content": "a"}], num_beams=2
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "num_beams")
