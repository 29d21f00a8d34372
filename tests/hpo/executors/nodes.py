"""A Ray cluster on this machine: a head without CPUs, and nodes that come and go."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpo.executors.ray.cluster import LOOPBACK
from tests.hpo.executors.driving import HERE

SMALL = {"include_dashboard": False, "include_log_monitor": False, "object_store_memory": 80_000_000}
"""A node without what no test looks at: the log monitor alone took 1 % of a core."""
QUICK = {
    # Of Ray: a node that is gone is noticed in seconds.
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_AUTH_MODE": "disabled",
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[2])]),
}


class TestCluster:
    """`with TestCluster() as cluster`: everything is ended at the end."""

    __test__ = False

    def __init__(self, head_cpus: int = 0) -> None:
        self._head_cpus = head_cpus

    def __enter__(self) -> TestCluster:
        from ray.cluster_utils import Cluster

        with _environment(QUICK):
            given = {**SMALL, "num_cpus": self._head_cpus, "node_ip_address": LOOPBACK}
            self._cluster = Cluster(initialize_head=True, head_node_args=given)
        self.address: str = self._cluster.address
        self.head_pid: int = self._cluster.head_node.all_processes["gcs_server"][0].process.pid
        """Of the process that the whole cluster hangs on."""
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    def add(self, cpus: int = 1, count: int = 1, **environment: str) -> list[Any]:
        """So many nodes, which have joined."""
        given = {**SMALL, "num_cpus": cpus, "node_ip_address": LOOPBACK}
        with _environment({**QUICK, **environment}):
            nodes = [self._cluster.add_node(wait=False, **given) for _ in range(count)]
            self._cluster.wait_for_nodes()
        return nodes

    def with_usual_node(self) -> None:
        """One node of two CPUs, unless there is one."""
        if not self._cluster.worker_nodes:
            self.add(cpus=2)

    def remove(self, node: Any) -> None:
        """A node leaves in good order."""
        self._cluster.remove_node(node)

    def remove_all(self) -> None:
        """All nodes leave at once, whether their raylets live or not."""
        for node in list(self._cluster.worker_nodes):
            self._cluster.remove_node(node, allow_graceful=False)


@contextlib.contextmanager
def mortal_cluster() -> Iterator[tuple[str, int]]:
    """(address, process id of its head) of another cluster, whose head has a CPU. In a process of its own, because Ray
    ends every process that has been connected to a head that is gone."""
    command = [sys.executable, "-m", "tests.hpo.executors.nodes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address, pid = process.stdout.readline().split()
        yield address, int(pid)
        with contextlib.suppress(BrokenPipeError):
            process.communicate()


@contextlib.contextmanager
def _environment(given: dict[str, str]):
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


OURS = ("ray::NodeActor", "trainers.host.host", "executors.ray.bridge")


def left_behind(mark: str) -> dict[int, str]:
    """Actors, trial hosts, their children and bridges that have `mark` in their environment: process id -> command."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_text().replace("\0", " ")
                if any(name in words for name in OURS) and mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = words
    return found


if __name__ == "__main__":
    with TestCluster(head_cpus=1) as started:
        print(started.address, started.head_pid, flush=True)
        sys.stdin.read()
