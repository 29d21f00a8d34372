"""One node as the process beside the sweep sees it: its actor, what is sent there, and what comes back."""

from __future__ import annotations

import dataclasses
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpo.executors.base import Place
from hpo.executors.environment import Environment
from hpo.executors.ray.actor import ENDED, GROUP_OF, GROUPS, NodeActor
from hpo.executors.ray.cluster import FoundNode
from hpo.executors.ray.copies import Incomplete, Stamp
from hpo.executors.ray.shipping import Message, Shipped, Shipping, for_devices_of
from hpo.executors.ray.versions import code_hash, differences
from hpo.remedies import says_disk_full, way_on
from trainers.protocol.codec import from_json
from trainers.protocol.events import TERMINAL

STARTS_WITHIN_S = 120.0
NAME_IS_FREE_WITHIN_S = 30.0
"""The actor of a sweep that was killed is gone by then."""
ENDS_WITHIN_S = 5.0
TERMINAL_TYPES = frozenset(cls.__name__ for cls in TERMINAL)
_MISSING = re.compile(r"[Nn]o module named '[\w.]+'")
"""In Ray's words for an actor that could not be made."""


class Listener(Protocol):
    """What a node speaks to; from threads of its own."""

    def joined(self, node: Node) -> None:
        """It can take requests."""

    def heard(self, node: Node, message: Message) -> None:
        """An event, as this machine reads it."""

    def left(self, node: Node, why: str, *, for_good: bool) -> None:
        """It takes no requests any more."""

    def broken(self, why: str) -> None:
        """This machine cannot go on."""


class Refused(Exception):
    """The node cannot train for this sweep; the message says why."""


class Node:
    """Two threads speak with its actor: one listens, one sends in order."""

    def __init__(self, found: FoundNode, name: str, *, shares_home: bool, worker: str, listener: Listener) -> None:
        self.found = found
        self.place: Place | None = None
        self.load = 0
        """Number of the last `Load` that it has done."""
        self.is_loading = False
        self._name = f"{name} {found.id}"
        self._shares_home = shares_home
        self._worker = worker
        self._listener = listener
        self._actor: Any = None
        self._shipping: Shipping | None = None
        """None where nothing need be sent."""
        self._sends: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._under_way: dict[int, Shipped] = {}
        self._lock = threading.Lock()
        self._fetching = threading.Lock()
        """Held while files are written here; as soon as this node has left, another one may write them."""
        self._has_left = False

    def begin(self, environment: Environment) -> None:
        """Start the actor and both threads; the listener hears how it went."""
        threading.Thread(target=self._listen, args=(environment,), daemon=True).start()
        threading.Thread(target=self._send_all, daemon=True).start()

    # --- the listening thread ----------------------------------------------------------------------------

    def _listen(self, environment: Environment) -> None:
        try:
            self._start(environment)
            self._listener.joined(self)
            while True:
                for line, files in ray.get(self._call("events")):
                    if line == ENDED:
                        self.leave(f"its trial host ended{self._log_tail()}")
                        return
                    self._hear(line, files)
        except Refused as error:
            self.leave(str(error), for_good=True)
        except Incomplete:
            self.leave("what it wrote was removed there before it was fetched")
        except RayError as error:
            self._leave_for(error)
        except OSError as error:  # what a node sent cannot be written here
            if not self._has_left:
                self._listener.broken(f"{error}; {way_on(error)}")
        except Exception as error:  # noqa: BLE001  # nobody waits for a thread: whatever ends it, the sweep hears of it
            self.leave(_in_words(error), for_good=True)

    def _start(self, environment: Environment) -> None:
        self._actor = self._made_actor()
        facts = ray.get(self._call("facts"), timeout=STARTS_WITHIN_S)
        there = from_json(Environment, facts["environment"])
        if found := differences(environment, code_hash(), there, facts["code"]):
            raise Refused(f"its versions differ: {found}; install the same there")
        if not self._shares_home:
            self._shipping = Shipping(facts["home"], facts["session"], self._ask)
        ray.get(self._call("start", self._worker), timeout=STARTS_WITHIN_S)
        self.place = self._place(facts)

    def _place(self, facts: Message) -> Place:
        """What it offers to trials."""
        found, there = self.found, from_json(Environment, facts["environment"])
        gpu_memory_mb = min(facts["gpu_memory_mb"][: found.gpus], default=0.0)
        there = dataclasses.replace(there, gpus=there.gpus[: found.gpus])
        return Place(found.id, found.name, found.cores, facts["memory_mb"], found.gpus, gpu_memory_mb, there)

    def _made_actor(self) -> Any:
        """The actor, pinned to the node. Its name is taken as long as that of a killed sweep is not gone."""
        kind = ray.remote(num_cpus=0, max_restarts=0, concurrency_groups=GROUPS)(NodeActor)
        pinned = NodeAffinitySchedulingStrategy(self.found.id, soft=False)
        deadline = time.monotonic() + NAME_IS_FREE_WITHIN_S
        while True:
            try:
                return kind.options(scheduling_strategy=pinned, name=self._name, namespace="hpo").remote()
            except ValueError as error:
                if time.monotonic() > deadline:
                    raise Refused(
                        "a process of another session of this sweep, or of another machine's sweep, does not end there"
                    ) from error
                time.sleep(0.2)

    def _call(self, method: str, *given: Any) -> Any:
        """Begin a call of the actor; `ray.get` waits for its answer."""
        return getattr(self._actor, method).options(concurrency_group=GROUP_OF.get(method, "files")).remote(*given)

    def _ask(self, method: str, *given: Any) -> Any:
        return ray.get(self._call(method, *given))

    def _hear(self, line: str, files: Mapping[str, Mapping[str, Stamp]]) -> None:
        """Pass on an event, after the files that it speaks of. Raises `Refused` where the node's disk is full."""
        message = json.loads(line)
        event = message["event"]
        if (under_way := self._under_way.get(message["id"])) is not None:
            with self._fetching:
                if self._has_left:
                    return
                for folder, now in files.items():
                    if copy := under_way.copies.get(folder):
                        copy.bring(now, lambda *piece: bytes(self._ask("read", *piece)))
            event = under_way.translation.here(event)
            if event["type"] in TERMINAL_TYPES:
                del self._under_way[message["id"]]
                for folder in under_way.folders:
                    self._call("remove", folder)
        if event["type"] == "Loaded":
            self.place = self._place(self._ask("facts"))  # with the memory that the base model has left
        failed = event.get("report", event)
        if failed["type"] == "Failed" and failed["cause"] == "crash" and says_disk_full(failed["message"]):
            raise Refused(f"its disk is full ({failed['message'][:200]}); make room there")
        self._listener.heard(self, {"id": message["id"], "event": event})

    def _log_tail(self) -> str:
        tail = self._ask("log_tail").strip()
        return f"; the end of its log:\n{tail}" if tail else ""

    # --- the sending thread ------------------------------------------------------------------------------

    def _send_all(self) -> None:
        while (send := self._sends.get()) is not None:
            try:
                send()
            except RayError as error:
                self._leave_for(error)
            except OSError as error:  # what is to be sent cannot be read here
                if not self._has_left:  # else another node may be writing it
                    self._listener.broken(f"{error}; {way_on(error)}")
            except Exception as error:  # noqa: BLE001  # as in the other thread
                self.leave(_in_words(error), for_good=True)

    def submit(self, request_id: int, request: Message) -> None:
        """Send a request, after the files that it needs."""
        self._sends.put(lambda: self._submit(request_id, request))

    def pass_on(self, message: Message) -> None:
        """Send a verdict or a kill."""
        line = json.dumps(message)
        self._sends.put(lambda: self._ask("send", line))

    def _submit(self, request_id: int, request: Message) -> None:
        assert self.place is not None  # noqa: S101  # set before it joined
        request, writes = for_devices_of(self.place, request), {}
        if self._shipping is not None:
            shipped = self._under_way[request_id] = self._shipping.ship(request_id, request)
            request, writes = shipped.request, dict(shipped.writes)
        self._ask("send", json.dumps({"id": request_id, "request": request}), writes)

    # --- its end -----------------------------------------------------------------------------------------

    def _leave_for(self, error: RayError) -> None:
        """Leave for what Ray says of a call: a lost actor is started again, one that cannot do its work is not."""
        if missing := _MISSING.search(str(error)):
            self.leave(f"its Python has {missing[0].lower()}; install the same hpo and packages there", for_good=True)
        elif isinstance(error, RayTaskError):
            self.leave(_cause_of(error), for_good=True)
        elif isinstance(error, RayActorError) and error.actor_init_failed:
            self.leave(f"it cannot begin: {str(error).strip().splitlines()[-1][:300]}", for_good=True)
        elif isinstance(error, GetTimeoutError):
            self.leave(f"it did not answer within {STARTS_WITHIN_S:.0f} s")
        else:
            self.leave("it left the cluster, or its actor was killed")

    def leave(self, why: str, *, for_good: bool = False) -> None:
        """Nothing is heard of it any more; `for_good` where it would only fail again."""
        with self._lock:
            if self._has_left:
                return
            self._has_left = True
        self._sends.put(None)
        if self._actor is not None:
            ray.kill(self._actor)
        with self._fetching:
            self._listener.left(self, why, for_good=for_good)

    def end(self) -> None:
        """End the trial host and the actor."""
        with self._lock:
            has_left, self._has_left = self._has_left, True
        self._sends.put(None)
        if self._actor is None or has_left:
            return
        try:
            ray.get(self._call("end"), timeout=ENDS_WITHIN_S)
        except RayError:
            return  # it is gone
        finally:
            ray.kill(self._actor)


def _cause_of(error: RayTaskError) -> str:
    """What went wrong on the node, in its own words."""
    return _in_words(error.cause if isinstance(error.cause, BaseException) else error)


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
