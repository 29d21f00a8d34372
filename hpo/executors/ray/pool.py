"""The nodes of a sweep: which one answers a request, what each loads first, and what happens when one leaves."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from dataclasses import dataclass, field

from hpo.executors.ray.cluster import CannotConnect, Cluster, FoundNode
from hpo.executors.ray.executor import ClusterSettings
from hpo.executors.ray.node import TERMINAL_TYPES, Node
from hpo.executors.ray.shipping import Message
from hpo.quoting import listed
from trainers.protocol.codec import to_json
from trainers.protocol.events import Failed
from trainers.protocol.messages import encode

LEFT_ALONE_S = 120.0
"""So long a sweep waits for a node when it has none."""
MOST_IN_A_ROW = 3
"""A node is not used any more when its actor or host has ended so often, with no event of a trial between. Loading the
base model does not count as one: a machine too small for its trials would load it for ever."""
LOADS_WITHIN_S = 60.0
"""So long after the first node the others may load, before the sweep begins with the nodes that have."""
REPEATED = ("Score", "Probe", "MeasureMemory")
"""Requests that another node answers where the first one has left: they leave nothing behind."""


@dataclass
class _UnderWay:
    node: Node
    request: Message


@dataclass
class _Load:
    """The last `Load`: what every node does before anything else."""

    number: int
    request_id: int
    request: Message
    leader: Node | None = None
    """The node that decides for all, where one must."""
    is_decided: bool = False
    answer: Message | None = None
    """The first one, which is the sweep's. It is held back for other nodes: the sweep looks for places once."""
    answers_by: float = math.inf
    is_answered: bool = False


@dataclass
class NodePool:
    """Nodes call it from their threads, the sweep's lines come in one, and one looks for nodes."""

    settings: ClusterSettings
    cluster: Cluster
    events_fd: int
    nodes: dict[str, Node] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _under_way: dict[int, _UnderWay] = field(default_factory=dict)
    _waiting: list[tuple[int, Message]] = field(default_factory=list)
    """Requests for any node, while there is none that is ready."""
    _load: _Load | None = None
    _load_number: int = 0
    _failures: dict[str, int] = field(default_factory=dict)
    """Node -> how often it has ended in a row."""
    _refused: dict[str, str] = field(default_factory=dict)
    """Nodes that are not used, and why."""
    _alone_since: float = field(default_factory=time.monotonic)

    # --- the sweep ---------------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """A line of the sweep."""
        with self._lock:
            request_id = message["id"]
            if "request" in message:
                self._submit(request_id, message["request"], message.get("place", ""))
            elif under_way := self._under_way.get(request_id):
                under_way.node.pass_on(message)
            elif "kill" in message and any(waiting == request_id for waiting, _ in self._waiting):
                self._waiting = [(waiting, request) for waiting, request in self._waiting if waiting != request_id]
                self._answer(request_id, Failed("crash", "killed before a node was there"))

    def _submit(self, request_id: int, request: Message, place: str) -> None:
        if request["type"] == "Load":
            self._load_number += 1
            decides = request.get("decide_for") is not None
            self._load = _Load(self._load_number, request_id, request, is_decided=not decides)
            self._offer_load()
        elif place:
            node = self.nodes.get(place)
            if node is None or not self._is_ready(node):
                self._answer(request_id, Failed("interrupted", "its node left before it began"))
            else:
                self._run(request_id, request, node)
        else:
            self._waiting.append((request_id, request))
            self._run_waiting()

    def _run(self, request_id: int, request: Message, node: Node) -> None:
        self._under_way[request_id] = _UnderWay(node, request)
        node.submit(request_id, request)

    def _run_waiting(self) -> None:
        """Requests for any node go to the least busy one."""
        ready = [node for node in self.nodes.values() if self._is_ready(node)]
        if not ready:
            return
        waiting, self._waiting = self._waiting, []
        for request_id, request in waiting:
            busy = [under_way.node for under_way in self._under_way.values()]
            self._run(request_id, request, min(ready, key=busy.count))

    def _is_ready(self, node: Node) -> bool:
        return node.place is not None and (self._load is None or node.load == self._load.number)

    def _answer(self, request_id: int, failed: Failed) -> None:
        self._say({"id": request_id, "event": encode(failed)})

    def _say(self, message: Message) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._lock, contextlib.suppress(BrokenPipeError):  # the sweep reads no more: its end is on the way
            while line:
                line = line[os.write(self.events_fd, line) :]

    def _say_places(self) -> None:
        ready = [node.place for node in self.nodes.values() if self._is_ready(node) and node.place is not None]
        self._say({"places": [to_json(place) for place in ready]})

    # --- loading -----------------------------------------------------------------------------------------

    def _offer_load(self) -> None:
        """Have every node load what the sweep loads; what must be decided is decided by one, before all others."""
        load = self._load
        if load is None:
            return
        for node in self.nodes.values():
            if node.place is None or node.load == load.number or node.is_loading:
                continue
            if not load.is_decided:
                if load.leader is not None:
                    return
                load.leader = node
            node.is_loading = True
            node.submit(-load.number, load.request)

    def _loaded(self, node: Node, load: _Load, event: Message) -> None:
        """A node has answered the last `Load`. One that cannot is not used any more, unless it is the last one."""
        node.is_loading = False
        has_failed = event["type"] == "Failed"
        if has_failed and (len(self.nodes) > 1 or load.answer is not None):
            node.leave(f"it could not load the base model: {event['cause']}: {event['message']}", for_good=True)
            return
        node.load = load.number
        if has_failed:
            self._load = None  # the sweep decides what that means
        elif not load.is_decided:
            load.is_decided = True
            load.request = _without_decision(load.request, event.get("precision"))
        self._say_places()  # before the answer: whoever gets it looks for places
        if load.answer is None:
            load.answer, load.answers_by = event, time.monotonic() + LOADS_WITHIN_S
        self._offer_load()
        self._answer_load(load)
        self._run_waiting()

    def _answer_load(self, load: _Load) -> None:
        """Pass on the first answer as soon as all nodes have loaded that are there, or after a while."""
        late = [node.found.name for node in self.nodes.values() if node.load != load.number]
        if load.answer is None or load.is_answered or (late and time.monotonic() < load.answers_by):
            return
        load.is_answered = True
        if late:
            self._say({"say": f"trials begin without {listed(late)}: not ready {LOADS_WITHIN_S:.0f} s after the first"})
        self._say({"id": load.request_id, "event": load.answer})

    # --- nodes, each from its own thread -----------------------------------------------------------------

    def joined(self, node: Node) -> None:
        """It loads before it is offered to the sweep."""
        with self._lock:
            if self.nodes.get(node.found.id) is node:
                self._offer_load()
                self._say_places()
                self._run_waiting()

    def heard(self, node: Node, message: Message) -> None:
        """An event of a node goes to the sweep."""
        with self._lock:
            if self.nodes.get(node.found.id) is not node:
                return
            request_id, event = message["id"], message["event"]
            if request_id < 0:
                if self._load is not None and request_id == -self._load.number:
                    self._loaded(node, self._load, event)
                else:
                    node.is_loading = False
                    self._offer_load()
            elif request_id in self._under_way:
                self._failures.pop(node.found.id, None)
                if event["type"] in TERMINAL_TYPES:
                    del self._under_way[request_id]
                self._say({"id": request_id, "event": event})

    def left(self, node: Node, why: str, *, for_good: bool) -> None:
        """What it had under way is interrupted, or goes to another node."""
        with self._lock:
            node_id = node.found.id
            if self.nodes.pop(node_id, None) is not node:
                return
            node.place = None
            self._failures[node_id] = self._failures.get(node_id, 0) + 1
            is_used_again = not for_good and self._failures[node_id] < MOST_IN_A_ROW
            if not is_used_again:
                self._refused[node_id] = f"{node.found.name}: {why}"
            self._say({"say": f"node {node.found.name} left: {why}" if is_used_again
                       else f"node {node.found.name} is not used: {why}"})  # fmt: skip
            if self._load is not None and self._load.leader is node:
                self._load.leader = None
            self._say_places()
            for request_id, under_way in list(self._under_way.items()):
                if under_way.node is not node:
                    continue
                del self._under_way[request_id]
                if under_way.request["type"] in REPEATED:
                    self._waiting.append((request_id, under_way.request))
                else:
                    reason = why.partition("; the end of its log")[0]
                    self._answer(request_id, Failed("interrupted", f"node {node.found.name} left: {reason}"))
            self._offer_load()
            if self._load is not None:
                self._answer_load(self._load)
            self._run_waiting()

    def broken(self, why: str) -> None:
        """End the sweep with an error: what it needs cannot be read or written on this machine."""
        self._say({"error": why})

    # --- looking -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take in nodes that have come, let go of those that left."""
        found = {node.id: node for node in self.cluster.nodes()}
        with self._lock:
            if self._load is not None:
                self._answer_load(self._load)
            gone = [node for node_id, node in self.nodes.items() if node_id not in found]
            new = [node for node_id, node in found.items() if node_id not in self.nodes.keys() | self._refused.keys()]
        for node in gone:
            node.leave("it left the cluster")
        joining = [self._node(node_found) for node_found in new]
        with self._lock:  # all at once: the first one that has loaded waits for the others
            self.nodes.update({node.found.id: node for node in joining})
        for node in joining:
            node.begin(self.settings.environment)
        self._watch_alone(set(found))

    def _node(self, found: FoundNode) -> Node:
        shares_home, worker = self.settings.shared_home, self.settings.worker
        return Node(found, self.settings.name, shares_home=shares_home, worker=worker, listener=self)

    def _watch_alone(self, found: set[str]) -> None:
        """Raises `CannotConnect` where no node is left that could train."""
        if self.nodes:
            self._alone_since = time.monotonic()
            return
        refused = [why for node_id, why in self._refused.items() if node_id in found]
        if found and len(refused) == len(found):
            raise CannotConnect("no node can train: " + "; ".join(refused))
        if time.monotonic() - self._alone_since > LEFT_ALONE_S:
            raise CannotConnect(
                f"the Ray cluster has had no node with a CPU for {LEFT_ALONE_S:.0f} s; start one with `ray start "
                "--address HOST:PORT`, and the same command continues"
            )

    def end(self) -> None:
        """End all actors, at the same time, and leave the cluster."""
        with self._lock:
            nodes = list(self.nodes.values())
        threads = [threading.Thread(target=node.end, daemon=True) for node in nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.cluster.leave()


def _without_decision(request: Message, decision: Message | None) -> Message:
    """What the other nodes load: in the precision that the first one decided on."""
    workload = request["workload"]
    if decision is not None:
        workload = {**workload, "decided_precision": decision["precision"]}
    return {**request, "decide_for": None, "workload": workload}
