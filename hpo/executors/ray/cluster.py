"""The Ray cluster: found or started, its nodes, and what is said where it cannot be reached."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.executors.ray.inputs import HOME_VARIABLE
from hpo.executors.ray.owned import own, remove_left

SCRATCH = "hpo-ray-"
"""How the name of a local Ray's folder begins."""
LOOPBACK = "127.0.0.2"
"""Ray replaces 127.0.0.1 by the address that others reach this machine by; a local Ray is for nobody else."""
REACHED_WITHIN_S = 5.0
OBJECT_STORE_BYTES = 256 << 20
"""Of a local Ray: files go through it in pieces, and nothing else does."""

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# It kills a whole actor when memory is short: the trial host with all its trials. The kernel takes one trial.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")


class CannotConnect(Exception):
    """The message is for people: what was tried, and what to do."""


@dataclass(frozen=True)
class FoundNode:
    """A node of the cluster that is alive and has CPUs."""

    id: str
    name: str
    cores: int
    gpus: int


class Cluster:
    """The connection to Ray of this process."""

    def __init__(self, address: str | None) -> None:
        """Join the one at HOST:PORT, or start one. Raises `CannotConnect`."""
        self._scratch = ""
        _leave_current_folder()
        if address is None:
            self._start()
        else:
            self._join(address)

    def _start(self) -> None:
        # It listens on a loopback address, where other people of this machine are kept out by a token.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray  # late: it reads its variables when it is imported

        remove_left(Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"))
        self._scratch = tempfile.mkdtemp(prefix=SCRATCH)
        own(Path(self._scratch))
        try:
            ray.init(
                address="local", include_dashboard=False, log_to_driver=False, configure_logging=False,
                object_store_memory=OBJECT_STORE_BYTES, _temp_dir=self._scratch, _node_ip_address=LOOPBACK,
            )  # fmt: skip
        except Exception as error:  # Ray has no common class for what can go wrong here
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise CannotConnect(
                f"no Ray could be started on this machine ({_first_line(error)}); start one with `ray start --head`, "
                "or give the address of another one (run.address, --address)"
            ) from error

    def _join(self, address: str) -> None:
        import ray

        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=REACHED_WITHIN_S).close()
        except (OSError, ValueError, OverflowError) as error:
            raise CannotConnect(
                f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`, or give its "
                "address as HOST:PORT (run.address, --address)"
            ) from error
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except Exception as error:  # Ray has no common class for what can go wrong here
            raise CannotConnect(
                f"the Ray cluster at {address} does not take this machine ({_first_line(error)}); start Ray here too, "
                f"with `ray start --address {address}`, the same versions of Python and Ray, and the same token"
            ) from error

    def nodes(self) -> list[FoundNode]:
        """Those that can train now."""
        import ray

        return [_found(node) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]

    def leave(self) -> None:
        """End the connection, and a local Ray."""
        import ray

        ray.shutdown()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _leave_current_folder() -> None:
    """Ray has the processes on all nodes import from the current folder of this one, where a project may have a package
    of a library's name."""
    if not sys.flags.safe_path:
        return
    for name in (HOME_VARIABLE, "RAY_AUTH_TOKEN_PATH"):
        if value := os.environ.get(name):
            os.environ[name] = os.path.abspath(value)
    os.chdir("/")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _found(node: dict[str, Any]) -> FoundNode:
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}:{node['NodeManagerPort']})"
    resources = node["Resources"]
    return FoundNode(node["NodeID"], name, int(resources["CPU"]), int(resources.get("GPU", 0)))
