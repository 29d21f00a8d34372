"""The actor on a node: starts the trial host there, relays its lines, and keeps its files.

An actor has threads and never forks; the trial host, which is started with exec, does. Both ends of their pipes close
with the actor, and the parent-death signal ends the host and its children with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.executors.environment import environment_here
from hpo.executors.free_memory import available_memory_mb
from hpo.executors.local import host_command, host_environment
from hpo.executors.ray.copies import Stamp, sync
from hpo.executors.ray.gpus import first_environment, gpus_here
from hpo.executors.ray.inputs import hold_inputs, made_node_home, remove_inputs, unused_inputs
from hpo.executors.ray.owned import own, remove_left
from hpo.executors.ray.versions import code_hash
from trainers.protocol.codec import to_json
from trainers.protocol.files import file_hash

_PR_SET_PDEATHSIG = 1
WAITS_FOR_EVENTS_S = 10.0
LOG_BYTES = 2000
GROUPS = {"events": 1, "sends": 1, "files": 2}
"""Threads of an actor: calls of one group run in the order in which they were made where it has one thread."""
GROUP_OF = {"events": "events", "start": "sends", "send": "sends", "end": "sends"}
"""Method -> its group; all others are about files."""
ENDED = ""
"""In place of a line: the trial host has ended."""
Lines = list[tuple[str, dict[str, dict[str, Stamp]]]]
"""A line of the trial host, and for the folders that its event speaks of the files in them."""


@dataclass
class _Wanted:
    """Whose files go along with the events of a request."""

    folders: Mapping[str, str]
    """Trial (`-` for the request) -> the folder that it writes to."""


class NodeActor:
    """One on each node of a sweep. Plain Python: it is made an actor where it is started."""

    def __init__(self) -> None:
        _die_with_raylet()
        self._home = made_node_home()
        self._session = self._home / "sessions" / uuid.uuid4().hex
        self._session.mkdir(parents=True)
        self._lock = own(self._session)
        remove_left((self._home / "sessions").iterdir())
        for folder in unused_inputs(self._home):
            remove_inputs(folder)
        self._held: dict[str, int] = {}
        """Inputs that this session uses -> what holds them."""
        self._lines: Lines = []
        self._arrived = threading.Condition()
        self._is_ending = False
        self._wanted: dict[int, _Wanted] = {}
        self._host: subprocess.Popen[bytes] | None = None

    def facts(self) -> dict[str, Any]:
        """Where this node keeps files, and all that decides whether and how much it can train."""
        found = gpus_here()
        return {
            "home": str(self._home),
            "session": str(self._session),
            "environment": to_json(environment_here([name for name, _ in found])),
            "code": code_hash(),
            "memory_mb": available_memory_mb(),
            "gpu_memory_mb": [free for _, free in found],
        }

    # --- the trial host ----------------------------------------------------------------------------------

    def start(self, worker: str) -> None:
        """Start the trial host."""
        started = threading.Event()
        threading.Thread(target=self._relay, args=(worker, started), daemon=True).start()
        started.wait()

    def _relay(self, worker: str, started: threading.Event) -> None:
        """A thread's whole life: the parent-death signal comes when the thread ends that has started the host."""
        try:
            self._run_host(worker, started)
        except Exception:  # noqa: BLE001  # nobody waits for a thread: the host's log says why it ended
            with (self._session / "host.log").open("a") as log:
                traceback.print_exc(file=log)
        finally:
            started.set()
            self._put(ENDED, {})

    def _run_host(self, worker: str, started: threading.Event) -> None:
        with (self._session / "host.log").open("ab") as log:
            self._host = subprocess.Popen(
                host_command(worker), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=host_environment(first_environment()), pass_fds=[self._lock],
            )  # fmt: skip
        started.set()
        assert self._host.stdout is not None  # noqa: S101  # PIPE was asked for
        for line in self._host.stdout:
            self._put(line.decode(), self._files_of(line))
        self._host.wait()

    def _put(self, line: str, files: dict[str, dict[str, Stamp]]) -> None:
        with self._arrived:
            if not self._is_ending:  # else files may be missing only because the session's folder is being removed
                self._lines.append((line, files))
                self._arrived.notify()

    def _files_of(self, line: bytes) -> dict[str, dict[str, Stamp]]:
        """The files of every folder that an event speaks of: while it is read, nothing is written there."""
        if b'"type": "Step"' in line or not self._wanted:
            return {}
        message = json.loads(line)
        wanted = self._wanted.get(message["id"])
        if wanted is None or message["event"].get("report", {}).get("type") == "Resumed":
            return {}
        if message["event"]["type"] == "TrialEvent":
            folders = [wanted.folders[str(message["event"]["trial"])]]
        else:
            folders = list(wanted.folders.values())
            del self._wanted[message["id"]]
        return {folder: snapshot(Path(folder)) for folder in folders}

    def events(self) -> Lines:
        """What the host has said since the last call; waits a while for it."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._lines, WAITS_FOR_EVENTS_S)
            lines, self._lines = self._lines, []
        return lines

    def send(self, line: str, folders: Mapping[str, str] | None = None) -> None:
        """Pass a line on to the host. `folders` are those that its request writes to, by trial."""
        if folders:
            self._wanted[json.loads(line)["id"]] = _Wanted(folders)
        if self._host is not None and self._host.stdin is not None:
            try:
                self._host.stdin.write(line.encode() + b"\n")
                self._host.stdin.flush()
            except BrokenPipeError:
                return  # it has ended, which its last line says

    def end(self) -> None:
        """End the host with its children, and remove what only this session needed."""
        with self._arrived:
            self._is_ending = True
        if self._host is not None:
            self._host.kill()
            self._host.wait()
        shutil.rmtree(self._session, ignore_errors=True)

    def log_tail(self) -> str:
        """The end of what the host has printed."""
        log = self._session / "host.log"
        return log.read_bytes()[-LOG_BYTES:].decode(errors="replace") if log.exists() else ""

    # --- files -------------------------------------------------------------------------------------------

    def use(self, key: str) -> bool:
        """Keep a folder of inputs as long as this session lasts; False where the node has none."""
        if key not in self._held and (fd := hold_inputs(_inside(self._home / "inputs", key))) is not None:
            self._held[key] = fd
        return key in self._held

    def begin(self) -> str:
        """A scratch folder for files that come in pieces."""
        folder = self._session / "scratch"
        folder.mkdir(exist_ok=True)
        return tempfile.mkdtemp(dir=folder)

    def take(self, scratch: str, name: str, piece: bytes) -> None:
        """The next piece of a file."""
        path = _inside(Path(scratch), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("ab") as file:
                file.write(piece)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def finish(self, scratch: str, hashes: Mapping[str, str], folder: str) -> dict[str, Stamp]:
        """All pieces are there: put the files in their place, by rename; returns their stamps.

        Raises `ValueError` where a file is not what was sent.
        """
        for name, wanted in hashes.items():
            if file_hash(_inside(Path(scratch), name)) != wanted:
                shutil.rmtree(scratch, ignore_errors=True)
                raise ValueError(f"{name} arrived with other content than it was sent with")
            sync(_inside(Path(scratch), name))
        target = Path(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            Path(scratch).rename(target)
        except OSError:
            if not target.is_dir():
                raise
            shutil.rmtree(scratch)  # another sweep has brought the same
        return snapshot(target)

    def remove(self, folder: str) -> None:
        """Free what a request needed that is over, below the folder of this session."""
        shutil.rmtree(_inside(self._session, os.path.relpath(folder, self._session)), ignore_errors=True)

    def read(self, path: str, start: int, most: int) -> bytes:
        """Bytes of a file below the node's folder; empty at its end, and where it is gone."""
        try:
            with _inside(self._home, os.path.relpath(path, self._home)).open("rb") as file:
                file.seek(start)
                return file.read(most)
        except FileNotFoundError:
            return b""


def snapshot(folder: Path) -> dict[str, Stamp]:
    """The stamps of a folder's files, by name; hidden ones are unfinished."""
    found: dict[str, Stamp] = {}
    waiting = deque([(folder, "")])
    while waiting:
        inside, prefix = waiting.popleft()
        for entry in _entries(inside):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # it has just been removed
                    stat = entry.stat()
                    found[prefix + entry.name] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """None where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _inside(folder: Path, name: str) -> Path:
    """Raises `ValueError` where a name leaves the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name} leaves {folder}")
    return path


def _die_with_raylet() -> None:
    """Ask the kernel to kill this process when its parent ends (Linux). Ray itself looks only now and then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
