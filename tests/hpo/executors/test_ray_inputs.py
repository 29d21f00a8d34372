"""What a node keeps for later sweeps: how long, and never from under a sweep. An actor is plain Python."""

import os
import time

import pytest

from hpo.executors.ray import actor
from hpo.executors.ray.content import whole_content
from hpo.executors.ray.inputs import HOME_VARIABLE, KEPT_DAYS, hold_inputs, remove_inputs, unused_inputs
from hpo.executors.ray.shipping import Shipping


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A node's folder with three inputs; `begins` makes an actor for it."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    monkeypatch.setattr(actor, "_die_with_raylet", lambda: None)
    for name in ("old", "older", "fresh"):
        (tmp_path / "inputs" / name).mkdir(parents=True)
        (tmp_path / "inputs" / name / "weights").write_text("w")
    age(tmp_path / "inputs" / "old", KEPT_DAYS + 1)
    age(tmp_path / "inputs" / "older", KEPT_DAYS + 2)
    return tmp_path


def age(folder, days):
    os.utime(folder, (time.time() - days * 86400,) * 2)


def kept(home):
    return {folder.name for folder in (home / "inputs").iterdir()}


def test_a_session_that_begins_removes_what_nobody_has_used_for_long(home):
    (home / "inputs" / ".cut short.deleted").mkdir()
    assert [folder.name for folder in unused_inputs(home)][:2] == ["older", "old"]
    actor.NodeActor()
    assert kept(home) == {"fresh"}


def test_what_another_session_uses_stays_however_old_it_is(home):
    fd = hold_inputs(home / "inputs" / "old")
    age(home / "inputs" / "old", KEPT_DAYS + 1)
    actor.NodeActor()
    assert kept(home) == {"old", "fresh"}
    os.close(fd)
    actor.NodeActor()
    assert kept(home) == {"fresh"}


def test_a_session_that_took_inputs_up_after_they_were_listed_keeps_them(home):
    listed = unused_inputs(home)
    os.close(hold_inputs(home / "inputs" / "old"))  # it has even ended
    for folder in listed:
        remove_inputs(folder)
    assert kept(home) == {"old", "fresh"}


def test_inputs_are_sent_once_and_again_where_they_were_removed(home, tmp_path_factory):
    here = tmp_path_factory.mktemp("here")
    (here / "tokens").write_text("t")
    content, asked = whole_content(here), []

    def ship():
        """A session of a sweep, which has ended."""
        node = actor.NodeActor()

        def ask(method, *given):
            asked.append(method)
            return getattr(node, method)(*given)

        folder = Shipping(str(home), str(node._session), ask)._inputs(content)
        assert whole_content(home / "inputs" / content.key).hashes == content.hashes
        for fd in node._held.values():
            os.close(fd)
        sent, asked[:] = asked[:], []
        assert folder == f"{home}/inputs/{content.key}"
        return sent

    assert ship() == ["use", "begin", "take", "finish", "use"]
    assert ship() == ["use"]
    age(home / "inputs" / content.key, KEPT_DAYS + 1)
    assert ship() == ["use", "begin", "take", "finish", "use"]
