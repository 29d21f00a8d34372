"""One node and several, without a cluster: what its threads do when it leaves or fails, and who loads before trials."""

import json
import os
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="Ray is not installed")

from ray.exceptions import GetTimeoutError, RayActorError

from hpo.executors.base import Place
from hpo.executors.environment import Environment
from hpo.executors.ray import node as nodes
from hpo.executors.ray import pool as pools
from hpo.executors.ray.cluster import CannotConnect, FoundNode
from hpo.executors.ray.executor import ClusterSettings
from hpo.executors.ray.shipping import Shipped, for_devices_of
from hpo.executors.ray.translation import Translation

WITHIN_S = 10


def place(name="a", gpus=0):
    return Place(name, name, 2, 1000.0, gpus, 500.0 * gpus, Environment())


# --- one node ------------------------------------------------------------------------------------------


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self):
        self.left_for = []
        self.broken_by = []
        self.has_left = threading.Event()

    def left(self, node, why, *, for_good):
        self.left_for.append((why, for_good))
        self.has_left.set()

    def broken(self, why):
        self.broken_by.append(why)

    def heard(self, node, message):
        raise KeyError("of ours")


@pytest.fixture
def node(monkeypatch):
    """A node whose actor answers nothing."""
    monkeypatch.setattr(nodes.ray, "kill", lambda actor: None)
    made = nodes.Node(FoundNode("a", "a", 2, 0), "sweep", shares_home=False, worker="fake", listener=Heard())
    made._actor = object()
    return made


def ended(number=1):
    return json.dumps({"id": number, "event": {"type": "Trained"}})


class Standing:
    """A copy of a folder that stands in the middle of its files."""

    def __init__(self):
        self.is_there, self.goes_on = threading.Event(), threading.Event()
        self.brought = 0

    def bring(self, now, read):
        self.is_there.set()
        assert self.goes_on.wait(WITHIN_S)
        self.brought += 1


def test_a_node_has_left_only_when_it_writes_no_file_here_any_more(node):
    copy = Standing()
    node._under_way[1] = node._under_way[2] = Shipped({}, Translation({}), {"/there": copy}, {}, [])
    line = json.dumps({"id": 1, "event": {"type": "TrialEvent", "report": {"type": "Step"}}})
    node._listener.heard = lambda node, message: None
    listening = threading.Thread(target=node._hear, args=(line, {"/there": {}}))
    leaving = threading.Thread(target=node.leave, args=("it left the cluster",))
    listening.start()
    assert copy.is_there.wait(WITHIN_S)
    leaving.start()
    assert not node._listener.has_left.wait(0.05)
    copy.goes_on.set()
    leaving.join(WITHIN_S)
    listening.join(WITHIN_S)
    assert node._listener.left_for == [("it left the cluster", False)]
    node._hear(ended(2), {"/there": {}})
    assert copy.brought == 1


@pytest.mark.parametrize("has_left", [False, True])
def test_files_that_another_node_writes_end_no_sweep(node, has_left):
    def send():
        node._has_left = has_left
        raise FileNotFoundError(2, "is gone", "checkpoints/1")

    node._sends.put(send)
    node._sends.put(None)
    node._send_all()
    said = "[Errno 2] is gone: 'checkpoints/1'; restore the missing file or folder; then the same command continues"
    assert node._listener.broken_by == ([] if has_left else [said])


@pytest.mark.parametrize("thread", ["sending", "listening"])
def test_whatever_ends_a_thread_ends_its_node(node, monkeypatch, thread):
    if thread == "sending":
        node._sends.put(lambda: {}["of ours"])
        node._send_all()
    else:
        monkeypatch.setattr(node, "_start", lambda environment: None)
        monkeypatch.setattr(node._listener, "joined", lambda node: {}["of ours"], raising=False)
        node._listen(Environment())
    assert node._listener.left_for == [("KeyError: 'of ours'", True)]


@pytest.mark.parametrize(
    ("error", "why", "for_good"),
    [
        (
            RayActorError("id", "Died:\nPermissionError: [Errno 13] denied: '/root'\n", actor_init_failed=True),
            "it cannot begin: PermissionError: [Errno 13] denied: '/root'",
            True,
        ),
        (GetTimeoutError("timed out"), "it did not answer within 120 s", False),
        (RayActorError("id"), "it left the cluster, or its actor was killed", False),
    ],
)
def test_a_node_that_cannot_begin_says_why(node, error, why, for_good):
    node._leave_for(error)
    assert node._listener.left_for == [(why, for_good)]


@pytest.mark.parametrize(
    ("gpus", "wanted", "devices"),
    [
        (0, ["cuda:3", "cuda:4"], ["cpu", "cpu"]),
        (4, ["cpu", "cpu"], ["cuda:0", "cuda:1"]),
        (1, ["cuda:0", "cuda:1"], ["cuda:0"]),
        (2, ["cpu"], ["cuda:0"]),
    ],
)
def test_a_request_has_as_many_devices_as_it_asks_for(gpus, wanted, devices):
    request = {"type": "Score", "devices": wanted, "spec": {"devices": wanted, "number": 1}, "threads": 8}
    there = for_devices_of(place(gpus=gpus), request)
    assert (there["devices"], there["spec"], there["threads"]) == (devices, {"devices": devices, "number": 1}, 2)


# --- several -------------------------------------------------------------------------------------------


class Fake:
    """A node that says what a test has it say."""

    def __init__(self, pool, name):
        self.pool = pool
        self.found = FoundNode(name, name, 2, 0)
        self.place = place(name)
        self.load = 0
        self.is_loading = False
        self.asked = []

    def submit(self, request_id, request):
        self.asked.append(request_id)

    def leave(self, why, *, for_good=False):
        self.pool.left(self, why, for_good=for_good)

    def loads(self, **event):
        assert self.asked == [-1]
        self.pool.heard(self, {"id": -1, "event": {"type": "Loaded", **event}})

    def fails(self):
        self.loads(type="Failed", cause="crash", message="no weights")


@pytest.fixture
def pool():
    """A pool of two nodes, `a` and `b`, which loads; `said()` has its lines since the last call."""
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    made = pools.NodePool(ClusterSettings(), SimpleNamespace(nodes=list), writes)
    made.nodes = {name: Fake(made, name) for name in "ab"}

    def said():
        try:
            return [json.loads(line) for line in os.read(reads, 1 << 16).splitlines()]
        except BlockingIOError:
            return []

    made.said = said
    made.take({"id": 7, "request": {"type": "Load", "workload": {}}})
    yield made
    os.close(reads)
    os.close(writes)


def answers(pool):
    return [line["event"]["type"] for line in pool.said() if line.get("id") == 7]


def test_the_sweep_begins_when_all_nodes_have_loaded(pool):
    a, b = pool.nodes.values()
    a.loads()
    assert answers(pool) == []
    b.loads()
    lines = pool.said()
    assert [len(line["places"]) for line in lines if "places" in line] == [2]
    assert lines[-1] == {"id": 7, "event": {"type": "Loaded"}}


def test_it_does_not_wait_long_for_one_nor_for_one_that_left(pool, monkeypatch):
    a, b = pool.nodes.values()
    monkeypatch.setattr(pools, "LOADS_WITHIN_S", 0.0)
    pool.cluster = SimpleNamespace(nodes=lambda: [a.found, b.found])
    a.loads()
    pool.look()
    lines = pool.said()
    assert {"say": "trials begin without b: not ready 0 s after the first"} in lines
    assert lines[-1] == {"id": 7, "event": {"type": "Loaded"}}


def test_a_node_that_leaves_is_not_waited_for(pool):
    a, b = pool.nodes.values()
    a.loads()
    b.leave("it left the cluster")
    assert answers(pool) == ["Loaded"]


def test_a_node_that_cannot_load_is_not_used_and_the_others_are(pool):
    a, b = pool.nodes.values()
    a.fails()
    b.loads()
    assert answers(pool) == ["Loaded"]
    assert list(pool.nodes) == ["b"]
    assert pool._refused == {"a": "a: it could not load the base model: crash: no weights"}


def test_what_no_node_can_load_is_the_sweeps_error(pool):
    a, b = pool.nodes.values()
    a.fails()
    assert answers(pool) == []
    b.fails()
    assert answers(pool) == ["Failed"]


def test_a_node_that_fails_when_the_others_that_loaded_have_left_is_not_taken_for_ready(pool):
    a, b = pool.nodes.values()
    a.loads()
    a.leave("it left the cluster")
    pool.cluster = SimpleNamespace(nodes=lambda: [b.found])
    b.fails()
    with pytest.raises(CannotConnect, match="no node can train: b: it could not load the base model"):
        pool.look()


def test_a_node_whose_host_ends_after_each_load_is_not_used_for_ever(pool):
    for _ in range(pools.MOST_IN_A_ROW):
        assert pool._refused == {}
        again = pool.nodes["a"] = Fake(pool, "a")
        pool._offer_load()
        again.loads()
        again.leave("its trial host ended")
    assert pool._refused == {"a": "a: its trial host ended"}


def test_an_event_of_a_request_begins_the_count_anew(pool):
    a, _ = pool.nodes.values()
    a.loads()
    pool._failures["a"] = pools.MOST_IN_A_ROW - 1
    pool.take({"id": 8, "request": {"type": "Probe"}})
    pool.heard(a, {"id": 8, "event": {"type": "TrialEvent"}})
    a.leave("it left the cluster")
    assert pool._refused == {}


def test_messages_of_a_node_speak_of_this_machine_s_folders(node):
    heard = []
    node._listener.heard = lambda node, message: heard.append(message["event"]["message"])
    node._under_way[1] = Shipped({}, Translation({"/home/me/trial": "/home/jürgen/trial"}), {}, {}, [])
    event = {"type": "Failed", "cause": "crash", "message": "no /home/jürgen/trial/adapter"}
    node._hear(json.dumps({"id": 1, "event": event}), {})
    assert heard == ["no /home/me/trial/adapter"]
