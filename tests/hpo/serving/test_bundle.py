"""A bundle behind HTTP: each adapter is a model, and rows of all of them are answered by one worker in one batch."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpo.errors import HpoError, UsageError
from hpo.lock import is_in_use
from hpo.serving.admin import Admin, ModelBody
from hpo.serving.limits import Limits
from hpo.serving.loader import Loader
from hpo.serving.order import Place
from hpo.serving.refusal import Refusal
from hpo.serving.resolver import Resolver
from hpo.serving.served import Shelf, load_served
from hpo.serving.slots import slots_for
from tests.hpo.serving.conftest import Server
from tests.trainers.conftest import family_workload
from tests.trainers.export.test_bundle import TEXTS, bundled, close_to, exported, learned
from trainers.runtime.adapters import WEIGHTS
from trainers.runtime.bundle import ADAPTERS
from trainers.runtime.release import Release

__all__ = ["bundled", "exported", "family_workload", "learned"]


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


def test_answers_of_different_adapters_are_those_alone_and_written_in_one_call(serve, monkeypatch):
    """Prompts begin alike: what another adapter has read of one is read again."""
    server, bundle, loop = serve("gpt2", "causal-lm")
    asked = [("ab"[i % 2], "the film is good and"[: 20 - 3 * (i // 4)], 3 + 2 * i) for i in range(6)]
    graph, together = loop._served._graph, []
    run = graph.run
    monkeypatch.setattr(graph, "run", lambda feed, rows, *rest: together.append(set(rows)) or run(feed, rows, *rest))

    async def ask():
        async with server.client() as client:
            bodies = [{"model": f"it/{name}", "prompt": prompt, "max_tokens": most} for name, prompt, most in asked]
            return await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))

    for (name, prompt, most), response in zip(asked, asyncio.run(ask()), strict=True):
        (wanted,) = bundle[name].predict([prompt], most)
        assert response.json()["choices"][0]["text"] == wanted["text"]
    assert max(map(len, together)) == 2


def test_rows_of_different_lengths_and_adapters_share_a_step(serve):
    """Each row's logits are those that it has alone, whatever its neighbours are, also after one has left."""
    _, bundle, _ = serve("gpt2", "causal-lm")
    rows = [([5, 6, 7, 8, 9], "a"), ([11, 12], "b"), ([9, 8, 7, 6, 5, 4, 3, 2], "b"), ([5], "a")]
    slots = slots_for(bundle, len(rows) + 1)
    for row, (ids, name) in enumerate(rows):
        slots.run(4, np.asarray([ids], dtype=np.int64), [0], [bundle[name].session])
        slots.copy(4, row, len(ids))
    written = [[*ids] for ids, _ in rows]
    for step in range(6):
        if step == 3:  # the second one leaves, and the last one moves there
            slots.copy(3, 1, len(written[3]))
            slots.free(3)
            written[1], rows[1] = written.pop(), rows.pop()
        lengths, token = [len(ids) for ids in written], 20 + step
        sessions = [bundle[name].session for _, name in rows]
        logits = slots.run(0, np.full((len(rows), 1), token), lengths, sessions)[:, 0]
        for ids, (_, name), found in zip(written, rows, logits, strict=True):
            ids.append(token)
            assert np.abs(found - bundle[name].token_logits(ids)[-1]).max() < 1e-4


def test_a_bundle_with_a_champion_answers_by_its_own_name(serve, tmp_path, monkeypatch):
    _, bundle, _ = serve("bert", "text-classification")
    folder = Path(shutil.copytree(tmp_path / "bundle", tmp_path / "released"))
    card = json.loads((folder / "release.json").read_text())
    (folder / "release.json").write_text(json.dumps({**card, "champion": "b"}))
    release = Release.load(folder)
    assert release.predict(TEXTS) == close_to(bundle["b"].predict(TEXTS))
    asked = json.dumps({"adapter": "a", "input": TEXTS[0]})
    assert release.predict([asked]) == close_to(bundle["a"].predict(TEXTS[:1]))
    texts = ['{"adapter": "usb-c", "input": "x"}', '{"adapter": ["a"], "input": "x"}', '"\\u0000"']
    assert release.predict(texts) == close_to(bundle["b"].predict(texts))  # a text that only looks like a command
    assert release.predict([*texts, asked, *texts])[3:5] == close_to(
        [*release.predict([asked]), *release.predict(texts[:1])]
    )
    with pytest.raises(ValueError, match="unknown adapter 'usb-c'"):
        release.predict([{"adapter": "usb-c", "input": "x"}])
    with pytest.raises(ValueError, match="input 2: expected a text, got int"):
        release.predict([asked, TEXTS[0], 5])
    calls, run = [], release._graph.run
    with monkeypatch.context() as patched:
        patched.setattr(release._graph, "run", lambda *given: calls.append(1) or run(*given))
        release.predict(["a film"] * 5)
    assert len(calls) == 1
    served = load_served("it", folder, Limits())
    server = Server(Shelf([served]))
    try:
        assert list(server.shelf.models()) == ["it/a", "it"]
        for name, adapter in (("it", "b"), ("it/b", "b"), ("it/a", "a")):
            found = server.post("/v1/classify", model=name, input=TEXTS[0]).json()["data"][0]
            assert {**found, "index": None} == close_to({**bundle[adapter].predict(TEXTS[:1])[0], "index": None})
        assert server.post("/v1/classify", model="it/", input=TEXTS[0]).status_code == 404
    finally:
        server.shelf.close()


def test_an_adapter_is_replaced_at_once(serve, tmp_path, monkeypatch):
    """While one takes the place of another, requests find one of the two; a list of models ends as it began."""
    server, _, worker = serve("bert", "text-classification")
    shelf, found = server.shelf, []
    before = shelf.find("it/b").release
    forget = worker._bundle._graph.remove
    with monkeypatch.context() as patched:
        patched.setattr(worker._bundle._graph, "remove", lambda old: found.append(shelf.find("it/b")) or forget(old))
        worker.add_adapter("b", tmp_path / "bundle" / ADAPTERS / "b")
    assert [served.release is before for served in found] == [False]
    listed = shelf.get("it").models()
    assert next(listed).name == "it/a"
    worker.remove_adapter("b")
    assert [served.name for served in listed] == ["it/b"]


def test_a_name_is_found_without_a_look_at_other_models(serve, monkeypatch):
    server, bundle, _ = serve("bert", "text-classification")
    monkeypatch.setattr(server.shelf, "models", lambda: pytest.fail("all models were looked at"))
    assert server.shelf.find("it/b").release.card == bundle["b"].card


def test_adapters_of_a_bundle_that_is_loaded_come_later():
    shelf = Shelf(expected=["it"])
    for name in ("it", "it/a", None):
        with pytest.raises(Refusal, match="being loaded") as refused:
            shelf.find(name)
        assert refused.value.status == 503
    with pytest.raises(Refusal, match="unknown model 'its/a'") as refused:
        shelf.find("its/a")
    assert refused.value.status == 404


def test_a_new_version_of_a_bundle_has_what_was_changed_by_hand(serve, tmp_path):
    server, _, _ = serve("bert", "text-classification")
    loader, shelf = server.admin.loader, server.shelf
    second, third = (Place(Path(shutil.copytree(tmp_path / "bundle", tmp_path / n)), n) for n in ("2", "3"))
    shutil.copytree(tmp_path / "bundle" / ADAPTERS / "a", tmp_path / "elsewhere")
    server.post("/v1/models/unload", model="it/b")
    server.post("/v1/models/load", model="it/new", adapter_folder="elsewhere")
    asyncio.run(loader.load("it", second))
    assert list(shelf.models()) == ["it/a", "it/new"]
    assert server.post("/v1/classify", model="it/new", input=TEXTS[0]).status_code == 200

    (tmp_path / "elsewhere" / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(HpoError, match=r"it/new, which was loaded by hand: .*/elsewhere/adapter\.npz has 10 bytes"):
        asyncio.run(loader.load("it", third))
    assert (shelf.get("it").place, loader.changes.failures["it"]) == (second, 1)
    assert not is_in_use(third.folder / "release.json")
    server.post("/v1/models/load", model="it/b")
    server.post("/v1/models/unload", model="it/new")
    asyncio.run(loader.load("it", third))
    assert list(shelf.models()) == ["it/a", "it/b"]
    asyncio.run(loader.unload("it"))
    assert not loader._by_hand


def test_a_new_version_of_a_sweep_s_own_bundle_keeps_its_champion(serve, tmp_path):
    """Its adapters have the names of trials, which are others in each version."""
    server, _, _ = serve("bert", "text-classification")
    loader, shelf = server.admin.loader, server.shelf
    places = []
    for version, champion in (("1", "a"), ("2", "b"), ("3", "a")):
        folder = Path(shutil.copytree(tmp_path / "bundle", tmp_path / f"version-{version}"))
        card = json.loads((folder / "release.json").read_text())
        (folder / "release.json").write_text(json.dumps({**card, "champion": champion}))
        places.append(Place(folder, version))
    shutil.copytree(tmp_path / "bundle" / ADAPTERS / "a", tmp_path / "elsewhere")
    asyncio.run(loader.load("it", places[0]))
    assert server.post("/v1/models/unload", model="it/b").status_code == 200
    assert server.post("/v1/models/load", model="it/new", adapter_folder="elsewhere").status_code == 200
    refused = server.post("/v1/models/load", model="it/b", adapter_folder="elsewhere")
    assert "it/b is an adapter of the release itself; choose another name" in refused.json()["error"]["message"]
    for place, names in zip(places[1:], (["it/a", "it", "it/new"], ["it", "it/b", "it/new"]), strict=True):
        asyncio.run(loader.load("it", place))
        assert list(shelf.models()) == names
        assert shelf.find(None).name == "it"  # a request without a model is for the champion


def test_changes_of_a_bundle_wait_for_those_before_them(serve, tmp_path):
    server, _, old = serve("bert", "text-classification")
    loader, admin = server.admin.loader, server.admin
    second = Place(Path(shutil.copytree(tmp_path / "bundle", tmp_path / "second")), "3")
    shutil.copytree(tmp_path / "bundle" / ADAPTERS / "a", tmp_path / "elsewhere")

    async def flow():
        async with loader._turn:
            twice = [asyncio.create_task(admin.unload("it/b")) for _ in range(2)]
            await asyncio.sleep(0.1)
        answered = await asyncio.gather(*twice, return_exceptions=True)
        assert answered[0]["deleted"]
        assert (type(answered[1]), answered[1].status) == (Refusal, 404)
        await admin.load(ModelBody(model="it/b"))
        added = ModelBody(model="it/new", adapter_folder="elsewhere")
        return await asyncio.gather(loader.load("it", second), admin.load(added))

    new, entry = asyncio.run(flow())
    assert (entry["id"], entry["version"]) == ("it/new", "3")
    assert server.shelf.find("it/new").engine is new.engine
    assert new.engine is not old


def test_a_version_of_a_bundle_is_no_adapter(serve, tmp_path, monkeypatch):
    server, _, _ = serve("bert", "text-classification")
    third = Place(Path(shutil.copytree(tmp_path / "bundle", tmp_path / "third")), "3")

    async def places(references):
        return {name: third if name == "it/3" else f"no released model '{name}'" for name in references}

    monkeypatch.setattr(server.admin._resolver, "places", places)
    assert server.post("/v1/models/load", model="it/3").json()["version"] == "3"
    assert list(server.shelf.models()) == ["it/a", "it/b", "it/3/a", "it/3/b"]
    assert server.post("/v1/models/load", model="it/4").status_code == 404
    assert server.post("/v1/models/unload", model="it/3").status_code == 200
    shutil.copytree(tmp_path / "bundle" / ADAPTERS / "a", tmp_path / "bundle" / ADAPTERS / "3")
    assert server.post("/v1/models/load", model="it/3").json()["root"] == "it"  # the bundle has it already


@pytest.mark.parametrize("labels", [["negative", "positive", "third"], ["negative"]])
def test_an_adapter_with_other_labels_than_its_weights_fails_nobody(serve, tmp_path, labels):
    server, _, _ = serve("bert", "text-classification")
    shutil.copytree(tmp_path / "bundle" / ADAPTERS / "b", tmp_path / "wrong")
    card = json.loads((tmp_path / "wrong" / "release.json").read_text())
    (tmp_path / "wrong" / "release.json").write_text(json.dumps({**card, "labels": labels}))
    refused = server.post("/v1/models/load", model="it/new", adapter_folder="wrong")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_not_loadable")
    assert f"give 2 numbers; expected {len(labels)}" in refused.json()["error"]["message"]
    assert [entry["id"] for entry in server.call("GET", "/v1/models").json()["data"]] == ["it/a", "it/b"]


def test_a_plain_release_has_no_adapters(server, encoder_release):
    served = load_served("one", encoder_release(), Limits())
    with pytest.raises(UsageError, match="is not a bundle"):
        served.engine.add_adapter("a", encoder_release())
    served.close()
