"""Clients that send nonsense, send slowly, stop reading, come by the hundred, or stay when the server ends."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import socket
import time
from collections import Counter

import httpx2
import pytest

from hpo.serving.lending import Lending
from hpo.serving.order import Order
from tests.hpo.serving.conftest import events
from tests.hpo.serving.running import soon, started

CLASSIFY = "/v1/classify"
CHAT = "/v1/chat/completions"
HEAD = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
LONG = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 64, "temperature": 2.0}


@pytest.fixture(scope="module")
def hurried(encoder_release):
    """A server that waits for nobody."""
    limits = {"head_seconds": 0.5, "body_seconds": 0.5, "read_seconds": 1.5}
    with started(Order({"judge": encoder_release()}, "127.0.0.1", 0), **limits) as running:
        assert answers(running)  # once it has, its own sockets are all there
        yield running


def answers(running):
    body = {"model": "judge", "input": "rain"}
    return httpx2.post(f"{running.url}{CLASSIFY}", json=body, timeout=20).status_code == 200


def said_to(running, *parts, pause=0.0):
    """All that comes back for bytes sent in parts, until the server hangs up or says nothing for two seconds."""
    got = b""
    with socket.create_connection(running.place) as client:
        client.settimeout(2)
        try:
            for part in parts:
                client.sendall(part)
                while select.select([client], [], [], pause)[0]:  # a reset would lose it
                    if not (piece := client.recv(1 << 16)):
                        return got
                    got += piece
            while piece := client.recv(1 << 16):
                got += piece
        except (TimeoutError, ConnectionError):
            pass
    return got


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"\0" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nbroken header\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 99999999999999999999999\r\n\r\n",
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_hung_up_on(running, sent):
    got = said_to(running, sent)
    assert not got or got.startswith(b"HTTP/1.1 4")
    assert answers(running)


def test_a_head_without_end_is_cut_off(running):
    assert said_to(running, b"GET / HTTP/1.1\r\n", *[b"a: " + b"b" * 60_000 + b"\r\n"] * 100) == b""
    assert said_to(running, b"GET / HTTP/1.1\r\na: ", *[b"b" * 60_000] * 100) == b""
    assert answers(running)


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
BODY = b'{"model": "judge", "input": "rain"}'


@pytest.mark.parametrize("trailer", [b"a: " + b"b" * 1000 + b"\r\n", b"b" * 1000])
def test_trailers_without_end_are_cut_off(running, trailer):
    with socket.create_connection(running.place) as client:
        client.settimeout(5)
        client.sendall(CHUNKED + b"%x\r\n%b\r\n0\r\na: " % (len(BODY), BODY))
        with pytest.raises(ConnectionError):
            client.sendall(trailer * 60_000)
    assert answers(running)


def test_a_trailer_is_no_header(running):
    sent = HEAD.replace(b"content-type: application/json\r\n", b"") + b"transfer-encoding: chunked\r\n\r\n"
    got = said_to(running, sent, b"%x\r\n%b\r\n0\r\ncontent-type: application/json\r\n\r\n" % (len(BODY), BODY))
    assert got.startswith(b"HTTP/1.1 415")


def test_a_body_in_many_small_chunks_is_answered(running):
    text = json.dumps({"model": "judge", "input": "rain " * 4000}).encode()
    chunks = b"".join(b"1\r\n%b\r\n" % bytes([letter]) for letter in text) + b"0\r\nx: y\r\n\r\n"
    assert len(chunks) > 100_000
    assert said_to(running, CHUNKED, chunks).startswith(b"HTTP/1.1 200")


def test_requests_sent_ahead_are_no_long_head(running):
    got = said_to(running, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 4000 + b"GET /he", pause=0.2)
    assert got.count(b"HTTP/1.1 200") == 4000


def test_who_is_refused_before_the_body_is_hung_up_on(encoder_release, monkeypatch):
    monkeypatch.setenv("HPO_API_KEY", "a-key-of-20-letters-")
    with started(Order({"judge": encoder_release()}, "127.0.0.1", 0)) as running:
        for head in (CHUNKED, HEAD + b"content-length: 4000000\r\n\r\n"):
            got = said_to(running, head)
            assert got.startswith(b"HTTP/1.1 401")
            assert b"connection: close" in got
        health = CHUNKED.replace(b"POST /v1/classify", b"GET /health")
        assert said_to(running, health, b"1\r\na\r\n").startswith(b"HTTP/1.1 413")
        assert said_to(running, health.replace(b"transfer-encoding: chunked", b"content-length: 9")).startswith(
            b"HTTP/1.1 413"
        )
        assert said_to(running, health, b"0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_head_that_dribbles_is_given_up(hurried):
    before, began = hurried.connections, time.monotonic()
    assert said_to(hurried, *(bytes([letter]) for letter in HEAD), pause=0.05) == b""
    assert said_to(hurried, b"") == b""
    assert time.monotonic() - began < 10
    assert soon(lambda: hurried.connections <= before)


def test_a_kept_connection_may_not_dribble_its_second_head(hurried):
    head = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    got = said_to(hurried, head, *(bytes([letter]) for letter in head[:-1]), pause=0.05)
    assert got.count(b"HTTP/1.1 200") == 1


def test_a_body_that_dribbles_holds_up_nobody(running, hurried):
    """In time it is answered, too late it gets a 408."""
    body = json.dumps({"model": "judge", "input": "rain"}).encode()
    head = HEAD + b"content-length: %d\r\n\r\n" % len(body)

    async def drip():
        reader, writer = await asyncio.open_connection(*running.place)
        writer.write(head)
        for letter in body:
            writer.write(bytes([letter]))
            await asyncio.sleep(0.2)  # long enough for the others, on a busy machine too
        line = await reader.readline()
        writer.close()
        return line

    async def flow():
        dripping = [asyncio.create_task(drip()) for _ in range(100)]
        async with httpx2.AsyncClient() as client:
            for _ in range(10):
                found = await client.post(f"{running.url}{CLASSIFY}", json={"model": "judge", "input": "rain"})
                assert found.status_code == 200
        assert not any(task.done() for task in dripping)
        return await asyncio.gather(*dripping)

    assert set(asyncio.run(flow())) == {b"HTTP/1.1 200 OK\r\n"}
    late = said_to(hurried, head, *(bytes([letter]) for letter in body), pause=0.05)
    assert late.startswith(b"HTTP/1.1 408")
    assert b"body_too_slow" in late


def test_a_client_that_stops_reading_loses_its_connection(hurried):
    """What it was sent is more than the kernel keeps for it."""
    before = hurried.connections
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(hurried.place)
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 4000)
        assert soon(lambda: hurried.connections > before)
        assert answers(hurried)
        assert soon(lambda: hurried.connections <= before)


def test_a_stream_that_nobody_reads_frees_its_row(running):
    body = json.dumps({**LONG, "n": 8, "stream": True, "logprobs": True, "top_logprobs": 20}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    before = running.gauge("vllm:generation_tokens_total", "writer")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(running.place)
        client.sendall(head.encode() + body)
        assert soon(lambda: running.gauge("vllm:generation_tokens_total", "writer") > before)
        assert soon(lambda: running.is_idle("writer"))


def test_200_clients_at_once(running):
    """Texts are all judged. Of the chats, those that fit the queue are answered, and the others are refused at once."""
    assert answers(running)  # once it has, its own sockets are all there
    before = running.connections

    async def ask():
        bounds = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=running.url, timeout=120, limits=bounds) as client:
            text = {"model": "judge", "input": ["rain", "a quiet film"]}
            judged = await asyncio.gather(*(client.post(CLASSIFY, json=text) for _ in range(200)))
            chats = [{**LONG, "stream": bool(i % 2), "max_tokens": 16, "n": 2} for i in range(200)]
            return judged, await asyncio.gather(*(client.post(CHAT, json=chat) for chat in chats))

    judged, written = asyncio.run(ask())
    assert {response.status_code for response in judged} == {200}
    assert len({json.dumps(response.json()["data"]) for response in judged}) < 10  # rounded apart by their neighbours
    found = Counter(response.status_code for response in written)
    assert set(found) == {200, 503}
    assert found[200] >= 32
    for response in written:
        if response.status_code == 503:
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["code"] == "queue_full"
        elif "event-stream" in response.headers["content-type"]:
            assert response.text.endswith("data: [DONE]\n\n")
    assert running.gauge("hpo:requests_refused_total", "writer") >= found[503]
    assert soon(lambda: running.is_idle("writer"))
    assert soon(lambda: running.connections <= before)  # by itself: asking whether it is idle takes connections too


async def is_refused(client):
    """Whether nobody listens any more."""
    try:
        await client.get("/health", headers={"connection": "close"})
    except httpx2.ConnectError:
        return True
    except httpx2.TransportError:  # the kernel took the connection, and nobody will read it
        return False
    return False


def test_sigterm_answers_what_waits_and_takes_nothing_more(encoder_release, chat_release):
    order = Order({"judge": encoder_release(), "writer": chat_release()}, "127.0.0.1", 0)

    async def flow(running):
        async with httpx2.AsyncClient(base_url=running.url, timeout=60) as client:
            asked = [asyncio.create_task(client.post(CHAT, json={**LONG, "n": 2})) for _ in range(20)]
            while running.known("writer") < 40:
                await asyncio.sleep(0.01)
            running.process.send_signal(signal.SIGTERM)
            while not await is_refused(client):
                pass
            return [(await task).status_code for task in asked]

    with started(order) as running:
        assert asyncio.run(flow(running)) == [200] * 20
        assert running.process.wait(30) == 0


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD + b"content-length: 10\r\n\r\n{"])
def test_sigterm_does_not_wait_for_clients_that_say_nothing(encoder_release, sent, capfd):
    order = Order({"judge": encoder_release()}, "127.0.0.1", 0)
    with started(order, drain_seconds=1) as running, socket.create_connection(running.place) as client:
        client.sendall(sent)
        assert answers(running)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(15) == 0
    assert "Traceback" not in capfd.readouterr().err


def test_a_stream_that_outlasts_the_server_ends_with_an_error():
    sent = []

    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await asyncio.Event().wait()

    async def keep(message):
        sent.append(message)

    async def flow():
        request = asyncio.create_task(Lending(endless)({"type": "http"}, None, keep))
        while len(sent) < 2:
            await asyncio.sleep(0)
        request.cancel()  # as uvicorn does when the time to drain is over
        await request

    asyncio.run(flow())
    (last,) = events(sent[-1]["body"].decode())
    assert (last["error"]["code"], sent[-1].get("more_body", False)) == ("shutting_down", False)
