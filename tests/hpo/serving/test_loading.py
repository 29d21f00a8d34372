"""Models loaded, swapped and unloaded by hand, under load; roles of keys; names that are paths."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import shutil
import threading
import time
import weakref

import httpx2
import pytest

from hpo.errors import HpoError, UsageError
from hpo.lock import is_in_use
from hpo.paths import Home
from hpo.serving.admin import Admin
from hpo.serving.app import make_app
from hpo.serving.filters import Filter
from hpo.serving.gate import Gate
from hpo.serving.keys import Keys, Role, read_keys
from hpo.serving.limits import Limits
from hpo.serving.loader import Loader
from hpo.serving.order import Order, Place
from hpo.serving.resolver import Resolver
from hpo.serving.served import Shelf, load_served
from hpo.serving.watch import Watch
from tests.hpo.serving.conftest import events, started
from tests.hpo.serving.running import soon
from tests.hpo.serving.versions import Load, Versions, metric, served_version

PLAIN, ASKER, OWNER = "plain-key-of-20-char", "asker-key-of-20-char", "owner-key-of-20-char"


@pytest.fixture(scope="module")
def versions(tmp_path_factory, mlflow_database, encoder_release) -> Versions:
    home = tmp_path_factory.mktemp("versions")
    shutil.copy(mlflow_database, home)
    found = Versions(Home(home), encoder_release())
    for _ in range(3):
        found.add()
    return found


@pytest.fixture(scope="module")
def running(versions):
    with started(versions.order("1", follow_every=3600)) as server:
        yield server


def load(url, model, **options):
    return httpx2.post(f"{url}/v1/models/load", json={"model": model}, timeout=120, **options)


def test_swaps_under_load_fail_no_request_and_are_done_when_acknowledged(running, versions):
    clients, acknowledged = Load(running.url), []
    with clients.running():
        for number in ("2", "3", "1", "2", "3"):
            versions.crown(number)
            answer = load(running.url, "tone")
            acknowledged.append((time.monotonic(), int(number)))
            assert (answer.status_code, answer.json()["version"]) == (200, number)
            assert versions.in_use() == {number}
            before = len(clients.asked)
            assert soon(lambda before=before: len(clients.asked) > before + 20)
    assert not clients.failed
    assert {asked.status for asked in clients.asked} == {200}
    for (since, number), (until, _) in zip(acknowledged, [*acknowledged[1:], (float("inf"), 0)], strict=True):
        # By when requests began: a busy client reads an answer later than it was sent. That the old version sent none
        # after the acknowledgement, its files say, which were free by then.
        answered = {asked.version for asked in clients.asked if asked.began > since and asked.ended < until}
        following = next((n for at, n in acknowledged if at == until), number)
        assert answered <= {number, following}
        assert number in answered
    last, number = acknowledged[-1]
    assert {asked.version for asked in clients.asked if asked.began > last} == {number}
    assert metric(running.url, "hpo:model_swaps_total") == 5


def test_a_version_that_answers_already_is_not_loaded_again(running):
    swaps = metric(running.url, "hpo:model_swaps_total")
    assert load(running.url, "tone").status_code == 200
    assert metric(running.url, "hpo:model_swaps_total") == swaps


def test_a_stream_ends_on_the_version_that_began_it(tmp_path, chat_release):
    folders = {}
    home = tmp_path / "home"
    for name in ("old", "new"):
        folders[name] = home / name
        folders[name].parent.mkdir(exist_ok=True)
        folders[name].symlink_to(chat_release())
    shelf = Shelf([load_served("writer", folders["old"], Limits(), "1")])
    old = shelf.find("writer")
    loader = Loader(shelf, Limits())
    app = make_app(shelf, Keys(), Limits())
    body = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}], "stream": True}

    async def flow():
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://server", timeout=60) as http:
            free = asyncio.Event()
            loop, step = asyncio.get_running_loop(), old.engine._step

            def held():
                asyncio.run_coroutine_threadsafe(free.wait(), loop).result(30)
                step()

            old.engine._step = held
            stream = asyncio.create_task(http.post("/v1/chat/completions", json={**body, "max_tokens": 8}))
            while not old.engine.meter.running:
                await asyncio.sleep(0.01)
            swap = asyncio.create_task(loader.load("writer", Place(folders["new"], "2")))
            while shelf.find("writer") is old:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert not swap.done()
            assert old.engine.is_alive
            free.set()
            answer = await stream
            new = await swap
            assert not old.engine.is_alive
            assert events(answer.text)[-1]["choices"][0]["finish_reason"] in ("stop", "length")
            assert (await http.post("/v1/chat/completions", json={**body, "max_tokens": 2})).status_code == 200
            return new

    assert asyncio.run(flow()).version == "2"
    shelf.close()


def hold_steps(engine, free):
    """Let no step of a model that writes end before `free` is set."""
    step = engine._step
    engine._step = lambda: (free.wait(30), step())


class Endless(Filter):
    """Never comes to a decision about one text."""

    def certain(self, text):
        return len(text)

    async def judge(self, exchange):
        if exchange.text == "endless":
            await asyncio.Event().wait()
        return exchange.allow()


def test_requests_that_outlast_their_version_end_with_an_error_and_free_its_memory(chat_release, caplog):
    caplog.set_level(logging.WARNING, "hpo.serving")  # a record that is kept keeps the model that it names
    limits, free = Limits(replaced_seconds=0.2), threading.Event()
    shelf = Shelf([load_served("writer", chat_release(), limits, "1")])
    loader = Loader(shelf, limits)
    app = make_app(shelf, Keys(), limits, watch=Watch(Gate([Endless("endless")])))
    (old,) = shelf
    session = weakref.ref(old.release.session)
    hold_steps(old.engine, free)
    path = "/v1/chat/completions"

    async def flow(engine, loans):
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://server") as http:

            def ask(text, **more):
                body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}
                return asyncio.create_task(http.post(path, json=body, timeout=60))

            late = [ask("Hi", stream=True), ask("Hi"), ask("endless")]
            while len(loans._borrowers) < len(late) or not engine._written:  # one has begun; a held step counts nobody
                await asyncio.sleep(0.01)
            swap = asyncio.create_task(loader.load("writer", Place(chat_release(), "2")))
            answers = [await one for one in late]
            free.set()  # a step that is under way is not cut off: the version is closed after it
            await swap
            assert (await ask("Hi")).status_code == 200
            return answers

    engine, loans, old = old.engine, old.loans, None
    stream, *whole = asyncio.run(flow(engine, loans))
    last = events(stream.text)[-1]["error"]
    assert (stream.status_code, last["code"], last["type"]) == (200, "model_replaced", "overloaded_error")
    assert "writer, version 1 (chat, fp32) was replaced or unloaded 0.2 seconds ago" in last["message"]
    for answer in whole:
        assert (answer.status_code, answer.json()["error"]) == (503, last)
        assert answer.headers["retry-after"]
    assert 'hpo:requests_cut_off_total{model_name="writer"} 3' in loader.changes.exposition(shelf)
    del engine
    gc.collect()
    assert session() is None
    shelf.close()


def test_models_come_and_go(running, versions):
    before = versions.in_use()
    entry = load(running.url, "tone/1").json()
    assert {key: entry[key] for key in ("id", "object", "version")} == {
        "id": "tone/1",
        "object": "model",
        "version": "1",
    }
    assert httpx2.get(f"{running.url}/v1/models/tone/1").json() == entry
    folder = versions.folders["2"].relative_to(versions.home.dir)
    assert load(running.url, str(folder)).json()["version"] is None
    names = [entry["id"] for entry in httpx2.get(f"{running.url}/v1/models").json()["data"]]
    assert names == ["tone", "tone/1", str(folder)]
    for name in names[1:]:
        gone = httpx2.post(f"{running.url}/v1/models/unload", json={"model": name})
        assert (gone.status_code, gone.json()) == (200, {"id": name, "object": "model", "deleted": True})
        again = httpx2.post(f"{running.url}/v1/models/unload", json={"model": name})
        assert (again.status_code, again.json()["error"]["code"]) == (404, "model_not_found")
    assert versions.in_use() == before


@pytest.mark.parametrize("name", [
    "../outside", "/etc", "..", ".", "link", "artifacts/../../outside", "%2e%2e/outside", "a" * 900, "tone/../tone",
    "tone@", "tone/x", "~", "none", "file:///etc", "artifacts", "models:/tone@champion",
])  # fmt: skip
def test_what_is_no_name_and_no_folder_of_the_home_is_not_loaded(running, versions, name):
    outside = versions.home.dir.parent / "outside"
    if not outside.exists():
        outside.mkdir()
        (outside / "release.json").write_text("{}")
        (versions.home.dir / "link").symlink_to(outside)
    for given in (name, str(outside)):
        answer = load(running.url, given)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert len(answer.text) < 1000


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\ud800", "a" * 1001, 7, None, ["tone"]])
def test_what_is_no_text_is_a_bad_request(running, name):
    content = json.dumps({"model": name})
    answer = httpx2.post(
        f"{running.url}/v1/models/load", content=content, headers={"content-type": "application/json"}
    )  # fmt: skip
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_damaged_folder_is_refused_and_its_files_are_free(running, versions):
    folder = versions.home.dir / "damaged"
    folder.mkdir()
    (folder / "release.json").write_text("{")
    answer = load(running.url, "damaged")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_loadable")
    assert not is_in_use(folder / "release.json")
    assert served_version(running.url)


def test_a_browser_may_not_load(running):
    answer = load(running.url, "tone", headers={"origin": running.url})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "from_browser")


def test_a_model_that_fails_on_its_example_is_not_served(encoder_release, copy_of, monkeypatch):
    folder = copy_of(encoder_release())
    monkeypatch.setattr("trainers.runtime.classify.Classifier.predict", lambda *_: 1 / 0)
    with pytest.raises(HpoError, match="cannot answer its own example: ZeroDivisionError"):
        load_served("m", folder, Limits())
    assert not is_in_use(folder / "release.json")


def test_until_the_first_model_is_loaded_others_wait(encoder_release, tmp_path):
    shelf = Shelf(expected=["judge"])
    loader = Loader(shelf, Limits())
    app = make_app(shelf, Keys(), Limits(), admin=Admin(loader, Resolver(tmp_path, stays=False), tmp_path))

    async def flow():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://server") as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/ready")).status_code == 503
            early = await http.post("/v1/classify", json={"input": "rain"})
            assert (early.status_code, early.json()["error"]["code"]) == (503, "model_loading")
            assert early.headers["retry-after"]
            await loader.load_first({"judge": Place(encoder_release())})
            assert (await http.get("/ready")).status_code == 200
            assert (await http.post("/v1/classify", json={"input": "rain"})).status_code == 200
            await http.post("/v1/models/unload", json={"model": "judge"})
            none = await http.post("/v1/classify", json={"input": "rain"})
            assert (none.status_code, none.json()["error"]["message"]) == (404, "no model is loaded")

    asyncio.run(flow())


def test_a_first_model_that_cannot_be_loaded_ends_the_server(encoder_release, copy_of, capfd):
    folder = copy_of(encoder_release())
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(AssertionError, match="ended with 1"), started(Order({"judge": folder}, "127.0.0.1", 0)):
        pass
    said = capfd.readouterr().err
    assert said.startswith("error: judge: ")
    assert "Traceback" not in said


def test_versions_that_were_replaced_leave_no_memory_and_no_thread(encoder_release, caplog):
    caplog.set_level(logging.WARNING, "hpo.serving")  # a record that is kept keeps the model that it names
    shelf, sessions = Shelf(), []
    loader = Loader(shelf, Limits())

    async def flow():
        for number in "1234":
            served = await loader.load("judge", Place(encoder_release(), number))
            sessions.append(weakref.ref(served.release.session))

    before = sum(thread.name == "judge" for thread in threading.enumerate())
    asyncio.run(flow())
    gc.collect()
    assert [session() is None for session in sessions] == [True, True, True, False]
    (last,) = shelf
    assert sum(thread.name == "judge" for thread in threading.enumerate()) == before + len(last.engine._threads)
    shelf.close()


@pytest.fixture
def guarded(encoder_release, tmp_path):
    """Asks a server with three keys."""
    shelf = Shelf([load_served("judge", encoder_release(), Limits())])
    admin = Admin(Loader(shelf, Limits()), Resolver(tmp_path, stays=False), tmp_path)
    app = make_app(shelf, Keys((PLAIN, f"infer:{ASKER}", f"admin:{OWNER}")), Limits(), admin=admin)

    def ask(method, path, key, **options):
        async def send():
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://server") as http:
                return await http.request(method, path, headers={"authorization": f"Bearer {key}"}, **options)

        return asyncio.run(send())

    yield ask
    shelf.close()


def test_roles(guarded):
    question = {"json": {"input": "rain"}}
    for method, path, options, allowed in (
        ("POST", "/v1/classify", question, (ASKER, PLAIN, OWNER)),
        ("GET", "/v1/models", {}, (ASKER, PLAIN, OWNER)),
        ("GET", "/ready", {}, (ASKER, PLAIN, OWNER)),
        ("GET", "/metrics", {}, (PLAIN, OWNER)),
        ("POST", "/v1/models/unload", {"json": {"model": "judge"}}, (OWNER,)),
    ):
        for key in (ASKER, PLAIN, OWNER, f"admin:{OWNER}", f"admin:{ASKER}", ""):
            answer = guarded(method, path, key, **options)
            expected = 200 if key in allowed else 403 if key in (ASKER, PLAIN) else 401
            assert answer.status_code == expected, (path, key)
            if expected == 403:
                assert answer.json()["error"] == {
                    "message": answer.json()["error"]["message"], "type": "permission_error", "param": None,
                    "code": "role_too_small",
                }  # fmt: skip
    assert guarded("GET", "/metrics/", ASKER).status_code == 307  # to /metrics


def test_keys_of_a_file_have_roles(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text(f"{PLAIN}\n\n  infer:{ASKER}\nadmin:{OWNER}\nns:{PLAIN}\n")
    keys = read_keys(file, "::1")
    found = [keys.role_of(f"Bearer {key}".encode()) for key in (ASKER, PLAIN, OWNER, f"ns:{PLAIN}", "no")]
    assert found == [Role.INFER, Role.PLAIN, Role.ADMIN, Role.PLAIN, None]
    monkeypatch.setenv("HPO_API_KEY", f"admin:{OWNER}")
    assert read_keys(None, "::1").role_of(f"Bearer {OWNER}".encode()) is Role.ADMIN

    file.write_text(f"{PLAIN}\ninfer:{PLAIN}\nAdmin:{OWNER}\nadmin:short\n\namdin:{OWNER}\ninference:{OWNER}\n")
    with pytest.raises(UsageError) as refused:
        read_keys(file, "::1")
    assert str(refused.value).splitlines() == [
        f"--key-file {file}:2: key 2 is the one of {file}:1 again; expected each key once",
        f"--key-file {file}:3: key 3 has an unknown role; did you mean admin:KEY?",
        f"--key-file {file}:4: key 4 has 5 characters; expected at least 16, printable ASCII without spaces",
        f"--key-file {file}:6: key 5 has an unknown role; did you mean admin:KEY?",
        f"--key-file {file}:7: key 6 has an unknown role; did you mean infer:KEY?",
    ]
