"""A serving process: keys, large and slow bodies, clients that go away, signals, the page, metrics."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import socket

import httpx2
import pytest

from hpo.config.serve_config import FilterSpec, LogSpec, ServeConfig
from hpo.errors import UsageError
from hpo.lock import is_in_use
from hpo.serving.keys import Keys, is_loopback, read_keys
from hpo.serving.limits import Limits
from hpo.serving.order import Order
from tests.hpo.serving.conftest import Server, events
from tests.hpo.serving.running import soon, started

KEY = "a-key-of-20-letters-"
CHAT = "/v1/chat/completions"
LONG = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 64}


def test_it_answers_and_says_what_it_serves(running):
    assert httpx2.get(f"{running.url}/health").json() == {"status": "ok"}
    assert httpx2.get(f"{running.url}/ready").json() == {"status": "ready"}
    entries = httpx2.get(f"{running.url}/v1/models").json()["data"]
    assert [(e["id"], e["object"], e["task"]) for e in entries] == [
        ("judge", "model", "text-classification"), ("writer", "model", "chat"),
    ]  # fmt: skip
    before = running.gauge("vllm:prompt_tokens_total", "judge")
    answer = httpx2.post(f"{running.url}/v1/classify", json={"model": "judge", "input": "rain"}).json()
    assert answer["data"][0]["label"] in ("bad", "fair", "good")
    assert running.gauge("vllm:prompt_tokens_total", "judge") - before == answer["usage"]["prompt_tokens"]


def test_what_it_has_loaded_is_in_use_until_it_ends(encoder_release, copy_of):
    folder = copy_of(encoder_release())
    assert not is_in_use(folder / "release.json")
    with started(Order({"judge": folder}, "127.0.0.1", 0)):
        assert is_in_use(folder / "release.json")
    assert not is_in_use(folder / "release.json")


def test_50_connections_at_once(running):
    async def ask():
        async with httpx2.AsyncClient(timeout=60) as client:
            body = {"model": "judge", "input": ["rain", "a film"]}
            return await asyncio.gather(
                *(client.post(f"{running.url}/v1/classify", json=body) for _ in range(50)),
                *(client.post(f"{running.url}{CHAT}", json={**LONG, "max_tokens": 8}) for _ in range(20)),
            )

    assert {response.status_code for response in asyncio.run(ask())} == {200}


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_client_that_goes_away_frees_its_row(running, is_streamed):
    before = running.gauge("vllm:generation_tokens_total", "writer")
    body = json.dumps({**LONG, "n": 8, "stream": is_streamed}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    for _ in range(8):
        with socket.create_connection(running.place) as client:
            client.sendall(head.encode() + body)
            if is_streamed:
                assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert soon(lambda: running.is_idle("writer"))
    assert running.gauge("vllm:generation_tokens_total", "writer") - before < 8 * 8 * 64
    assert httpx2.post(f"{running.url}{CHAT}", json={**LONG, "max_tokens": 2}).status_code == 200


def test_a_huge_body_is_refused_before_it_is_read(running):
    most = Limits().body_bytes
    response = httpx2.post(f"{running.url}/v1/classify", content=b" " * (most + 1))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")

    sent = 0

    def without_length():
        nonlocal sent
        for _ in range(2000):
            sent += 1 << 16
            yield b" " * (1 << 16)

    with contextlib.suppress(httpx2.TransportError):  # the server closes the connection in the middle of the body
        assert httpx2.post(f"{running.url}/v1/classify", content=without_length()).status_code == 413
    assert sent < 100 << 20


def test_sigterm_lets_requests_end(chat_release):
    with started(Order({"writer": chat_release()}, "127.0.0.1", 0)) as running:
        with httpx2.stream("POST", f"{running.url}{CHAT}", json={**LONG, "stream": True}, timeout=60) as response:
            lines = response.iter_text()
            first = next(lines)
            running.process.send_signal(signal.SIGTERM)
            rest = "".join(lines)
        assert events(first + rest)[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        assert running.process.wait(30) == 0


def test_sigterm_waits_for_no_thread_that_hangs(encoder_release, tmp_path, capfd):
    """What has been answered before is in the log all the same."""
    hangs = tmp_path / "hangs"
    (tmp_path / "rules.py").write_text(
        "import time\nfrom pathlib import Path\n\n"
        "def check(exchange):\n    if 'hang' in exchange.text:\n"
        f"        Path({str(hangs)!r}).touch()\n        time.sleep(600)\n"
        "    return exchange.allow()\n"
    )
    rules = FilterSpec("function", "rules", str(tmp_path / "rules.py"), function="check")
    config = ServeConfig((rules,), LogSpec(str(tmp_path / "log")))
    body = json.dumps({"input": ["hang"] * 40}).encode()
    head = f"POST /v1/classify HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    order = Order({"judge": encoder_release()}, "127.0.0.1", 0, config=config)
    with started(order, drain_seconds=1, close_seconds=1) as running:
        assert httpx2.post(f"{running.url}/v1/classify", json={"input": ["a", "b"]}).status_code == 200
        with socket.create_connection(running.place) as client:
            client.sendall(head.encode() + body)
            assert soon(hangs.exists)
            running.process.send_signal(signal.SIGTERM)
            said = b"".join(iter(lambda: client.recv(1 << 16), b""))
            assert running.process.wait(20) == 1
    assert said.startswith(b"HTTP/1.1 503")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "shutting_down"
    assert len((tmp_path / "log" / "predictions-000001.jsonl").read_text().splitlines()) == 2
    errors = capfd.readouterr().err
    assert "something hangs" in errors
    assert "Traceback" not in errors


def test_ctrl_c_before_it_listens_ends_it_without_a_traceback(tmp_path, capfd):
    """Sent while it runs the file of a filter: before it answers to signals itself."""
    (tmp_path / "rules.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    rules = FilterSpec("function", "rules", str(tmp_path / "rules.py"), function="check")
    order = Order({}, "127.0.0.1", 0, config=ServeConfig((rules,)))
    with pytest.raises(AssertionError, match=f"ended with -{signal.SIGINT:d}"), started(order):
        pass
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_said(encoder_release, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        order = Order({"judge": encoder_release()}, "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(AssertionError, match="ended with 2"), started(order):
            pass
    assert "choose another --port" in capfd.readouterr().err


def test_a_key_opens_everything_but_health(server):
    guarded = Server(server.shelf, Keys(("another-key-of-22-chars", KEY)))
    assert guarded.call("GET", "/health").status_code == 200
    basic = base64.b64encode(f"me:{KEY}".encode()).decode()
    for path in ("/", "/ready", "/v1/models", "/metrics", "/openapi.json", "/nowhere"):
        for wrong in ("", KEY, f"Bearer {KEY}x", "Bearer ", "Basic !", "Bearer \xff"):
            response = guarded.call("GET", path, headers={"authorization": wrong.encode("latin-1")})
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
            assert KEY not in response.text
        for right in (f"Bearer {KEY}", f"bearer  {KEY}", f"Basic {basic}"):
            status = guarded.call("GET", path, headers={"authorization": right}).status_code
            assert status == (404 if path == "/nowhere" else 200)


def test_keys_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("HPO_API_KEY", raising=False)
    assert not read_keys(None, "127.0.0.1")
    with pytest.raises(UsageError, match="others can reach it; set HPO_API_KEY or give --key-file"):
        read_keys(None, "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("HPO_API_KEY", KEY)
    assert read_keys(None, "0.0.0.0").role_of(f"Bearer {KEY}".encode())  # noqa: S104
    file = tmp_path / "keys"
    for content, found in [("\n", "has no key"), (f"{KEY}\nshort\n", "key 2 has 5 characters"), ("ü" * 20, "ASCII")]:
        file.write_text(content)
        with pytest.raises(UsageError, match=found) as refused:
            read_keys(file, "::1")
        assert KEY not in str(refused.value)
    file.write_text(f"{KEY}\n{KEY}2\n")
    keys = read_keys(file, "::1")
    assert keys.role_of(f"Bearer {KEY}2".encode())
    assert KEY not in repr(keys)
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(tmp_path / "none", "::1")
    assert [is_loopback(host) for host in ("localhost", "127.1.2.3", "::1", "", "0.0.0.0", "::")] == [  # noqa: S104
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_a_slow_body_is_given_up(server):
    hurried = Server(server.shelf, limits=Limits(body_seconds=0.05))

    async def drip():
        for _ in range(10):
            yield b" "
            await asyncio.sleep(0.05)

    response = hurried.call("POST", "/v1/classify", content=drip())
    assert (response.status_code, response.json()["error"]["code"]) == (408, "body_too_slow")


def test_the_page_needs_nothing_from_elsewhere(server):
    response = server.call("GET", "/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "://" not in response.text
    assert " src=" not in response.text


def test_metrics_are_prometheus_text(server):
    server.post("/v1/classify", model="judge", input="rain")
    text = server.call("GET", "/metrics").text
    seen = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            seen[name] = float(value)
    assert seen['vllm:request_success_total{model_name="judge",finished_reason="stop"}'] >= 1
    count = seen['vllm:e2e_request_latency_seconds_count{model_name="judge"}']
    assert count == seen['vllm:e2e_request_latency_seconds_bucket{model_name="judge",le="+Inf"}'] >= 1


def test_the_schema_describes_the_bodies(server):
    schema = server.call("GET", "/openapi.json").json()
    assert {"/v1/classify", CHAT, "/v1/completions", "/v1/models"} <= set(schema["paths"])
