"""`/v1/classify`: answers as `hpo predict` gives them, batches across requests, and requests that are wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading

import httpx2
import pytest

from hpo.errors import HpoError
from hpo.serving.app import make_app
from hpo.serving.judge import Judge
from hpo.serving.keys import Keys
from hpo.serving.limits import Limits
from hpo.serving.pool import Pool
from hpo.serving.refusal import Refusal
from hpo.serving.served import Served, Shelf, load_served
from tests.hpo.serving.conftest import Server
from tests.hpo.serving.running import soon
from tests.trainers.export.conftest import CORPUS
from trainers.runtime.classify import Classifier
from trainers.runtime.release import Release

TEXTS = [*CORPUS[:5], "rain", "a dull film", " ".join(CORPUS)]


@pytest.fixture(scope="module")
def release(encoder_release):
    return Release.load(encoder_release())


def close_to(answers):
    return [{**answer, **{k: pytest.approx(answer[k], abs=1e-5) for k in ("score", "scores")}} for answer in answers]


def test_answers_are_those_of_predict_in_order(server, release):
    found = server.post("/v1/classify", model="judge", input=TEXTS)
    assert found.status_code == 200
    assert found.json()["data"] == [{"index": i, **answer} for i, answer in enumerate(close_to(release.predict(TEXTS)))]
    tokens = sum(len(encoding.ids) for encoding in release.tokenizer.encode_batch(TEXTS))
    assert found.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    (one,) = server.post("/v1/classify", model="judge", input=TEXTS[0]).json()["data"]
    assert one["label"] == release.predict(TEXTS[:1])[0]["label"]


def test_50_clients_at_once_get_their_own_answers(server, release):
    asked = [[TEXTS[(i + j) % len(TEXTS)] for j in range(1 + i % 7)] for i in range(50)]

    async def ask():
        async with server.client() as client:
            calls = [client.post("/v1/classify", json={"model": "judge", "input": texts}) for texts in asked]
            return await asyncio.gather(*calls)

    for texts, response in zip(asked, asyncio.run(ask()), strict=True):
        answers = [{k: v for k, v in answer.items() if k != "index"} for answer in response.json()["data"]]
        assert answers == close_to(release.predict(texts))


def test_pairs_and_words_are_taken_as_predict_takes_them(server, release):
    pairs = Classifier(
        dataclasses.replace(release.card, columns=("text", "text_pair")), release.tokenizer, release.session
    )
    judge = Judge(pairs, Limits())
    paired = Server(Shelf([Served("pairs", pairs, judge, {})]))
    given = {"text": CORPUS[0], "text_pair": CORPUS[1]}
    answers = [
        paired.post("/v1/classify", input=pair).json()["data"][0] for pair in (given, [given], json.dumps(given))
    ]
    assert answers == [{"index": 0, **answer} for answer in close_to(pairs.predict([given]))] * 3
    missing = paired.post("/v1/classify", input=[{"text": "alone"}])
    assert missing.status_code == 400
    assert "not a text: text_pair" in missing.json()["error"]["message"]
    judge.close()


@pytest.mark.parametrize(
    ("body", "status", "param", "found"),
    [
        ({"model": "other", "input": "a"}, 404, "model", "unknown model 'other'; expected one of judge, writer"),
        ({"model": "\ud800" * 500, "input": "a"}, 404, "model", "characters)"),
        ({"input": "a"}, 400, "model", "model is missing"),
        ({"model": "writer", "input": "a"}, 400, "model", "use /v1/chat/completions"),
        ({"model": "judge"}, 400, "input", "Field required"),
        ({"model": "judge", "input": 7}, 400, "input", "input: expected a valid string or expected a valid dictionary"),
        ({"model": "judge", "input": None}, 400, "input", "a valid list"),
        ({"model": "judge", "input": []}, 400, "input", "expected 1 to 512 inputs, got 0"),
        ({"model": "judge", "input": ["a"] * 513}, 400, "input", "got 513"),
        ({"model": "judge", "input": ["a", " "]}, 400, "input", "input 1: is empty"),
        ({"model": "judge", "input": ["a", 1]}, 400, "input", "input 1"),
        ({"model": "judge", "input": "a\0"}, 400, "input", "NUL"),
        ({"model": "judge", "input": "\ud800"}, 400, "input", "unicode"),
        ({"model": "judge", "input": ["\ud800"]}, 400, "input", "half a character"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_in_openai_s_shape(server, body, status, param, found):
    content = json.dumps(body).encode()
    response = server.call("POST", "/v1/classify", content=content, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, set(error)) == (status, {"message", "type", "param", "code"})
    assert found in error["message"]
    assert len(error["message"]) < 1001
    assert error["param"] == param


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"nul", b"[" * 100_000, b'{"input": NaN}', b"1" * 5000]
)
def test_a_malformed_body_is_a_bad_request(server, content):
    response = server.call("POST", "/v1/classify", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_unknown_paths_and_methods_have_the_shape_too(server):
    for method, path, status in [("GET", "/v2", 404), ("GET", "/v1/classify", 405), ("GET", "/v1/models/no", 404)]:
        response = server.call(method, path)
        assert (response.status_code, response.json()["error"]["type"] != "server_error") == (status, True)


def test_a_fault_of_the_server_has_the_shape_too(server, monkeypatch):
    def fails(*_):
        raise KeyError("what a user wrote")

    monkeypatch.setattr("hpo.serving.app.answer_classify", fails)
    app = make_app(server.shelf, Keys(), Limits())

    async def ask():
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)  # the server's log has it
        async with httpx2.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/v1/classify", json={"model": "judge", "input": "rain"})

    response = asyncio.run(ask())
    assert response.status_code == 500
    assert response.json()["error"] == {
        "message": "the server failed: KeyError", "type": "server_error", "param": None, "code": "server_failed",
    }  # fmt: skip


def test_models_say_what_they_were_made_of(encoder_release, copy_of):
    folder = copy_of(encoder_release())
    (folder / "manifest.json").write_text('{"sha256": {"base": "b4", "release": "5e"}}')
    served = load_served("m", folder, Limits())
    assert {key: served.entry()[key] for key in ("parent", "hash")} == {"parent": "b4", "hash": "5e"}
    served.engine.close()
    for damaged in ("{", "[]", "{}"):
        (folder / "manifest.json").write_text(damaged)
        with pytest.raises(HpoError, match="is damaged"):
            load_served("m", folder, Limits())
    (folder / "model.onnx").unlink()
    with pytest.raises(HpoError, match="is missing"):
        load_served("m", folder, Limits())


def test_a_full_queue_refuses_and_takes_again(release, monkeypatch):
    """Also what a client that has gone had queued leaves its place."""
    free, limits = threading.Event(), Limits(waiting_inputs=3)
    answered = release.answered
    monkeypatch.setattr(release, "answered", lambda batch: free.wait(30) and answered(batch))
    judge = Judge(release, limits)

    async def flow():
        first = asyncio.create_task(judge.answer(["a", "b"]))
        gone = asyncio.create_task(judge.answer(["c"]))
        while not judge.meter.running or judge.meter.held < 3:
            await asyncio.sleep(0.01)
        with pytest.raises(Refusal, match="3 inputs are waiting") as refused:
            await judge.answer(["d"])
        assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
        assert judge.meter.running + judge.meter.queued == 3
        gone.cancel()
        await asyncio.sleep(0.1)
        last = asyncio.create_task(judge.answer(["d"]))
        await asyncio.sleep(0.1)
        free.set()
        return [len((await task).answers) for task in (first, last)]

    assert asyncio.run(flow()) == [2, 1]
    judge.close()
    assert (judge.meter.running, judge.meter.queued, judge.meter.refused) == (0, 0, 1)
    assert not judge.is_alive


def test_calls_of_one_request_run_at_once(release, monkeypatch):
    """Each waits for the other, so that one after the other they would not end."""
    monkeypatch.setattr("hpo.serving.judge.calls_at_once", lambda card: 2)
    answered, both = release.answered, threading.Barrier(2, timeout=30)
    monkeypatch.setattr(release, "answered", lambda batch: both.wait() >= 0 and answered(batch))
    judge = Judge(release, Limits())
    assert soon(lambda: judge._idle == 2)
    texts = ["rain", "snow", "rain"]  # they would fit one batch
    found = asyncio.run(judge.answer(texts))
    judge.close()
    assert [answer["label"] for answer in found.answers] == [answer["label"] for answer in release.predict(texts)]
    assert judge.meter.batches == 2


def test_a_model_that_fails_ends_its_requests_and_not_the_server(release, monkeypatch, caplog):
    judge = Judge(release, Limits())
    shop = Server(Shelf([Served("judge", release, judge, {})]))
    with monkeypatch.context() as patch:
        patch.setattr(release, "answered", lambda batch: 1 / 0)
        response = shop.post("/v1/classify", input=["a", "b"])
    assert (response.status_code, response.json()["error"]["code"]) == (500, "model_failed")
    assert "a model of text-classification (fp32) failed: ZeroDivisionError: division by zero" in caplog.text
    assert shop.post("/v1/classify", input="a").status_code == 200
    judge.close()


def test_a_batch_has_rows_of_like_length_within_its_budget():
    pool: Pool[str] = Pool()
    pool.add("long", [100, 90, 40])
    pool.add("short", [10, 11, 9, 300])
    batches = []
    while batch := pool.take(200):
        batches.append([(row.owner, row.tokens) for row in batch])
    assert batches == [
        [("long", 90), ("long", 100)],
        [("short", 9), ("short", 10), ("short", 11)],
        [("long", 40)],
        [("short", 300)],
    ]


def test_a_large_request_does_not_hold_up_a_small_one():
    pool: Pool[str] = Pool()
    pool.add("large", [100] * 50)
    pool.add("small", [10])
    assert {row.owner for row in pool.take(200)} == {"large"}
    assert {row.owner for row in pool.take(200)} == {"small"}
    pool.discard("large")
    assert (len(pool), pool.take(200)) == (0, [])


def test_a_dynamically_quantized_graph_answers_each_text_alone(release):
    int8 = Classifier(dataclasses.replace(release.card, variant="int8"), release.tokenizer, release.session)
    pool: Pool[str] = Pool()
    pool.add("a", [5, 5, 5])
    assert [len(pool.take(int8.tokens_per_batch)) for _ in range(4)] == [1, 1, 1, 0]
