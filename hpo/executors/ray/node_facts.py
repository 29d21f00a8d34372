"""Asks every node of a Ray cluster what it has: `python -m hpo.executors.ray.node_facts ADDRESS`, answered as JSON.

In a process of its own: Ray starts threads and keeps connections.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpo.executors.environment import environment_here
from hpo.executors.free_memory import available_memory_mb
from hpo.executors.node_facts import NodeFacts
from hpo.executors.ray.cluster import CannotConnect, Cluster, FoundNode
from hpo.executors.ray.gpus import gpus_here
from hpo.executors.ray.inputs import made_node_home
from hpo.executors.ray.versions import code_hash
from trainers.protocol.codec import to_json

ANSWERS_WITHIN_S = 20.0
"""A node's first answer needs a process that imports our code."""


def nodes_of(address: str) -> list[NodeFacts]:
    """All nodes, asked side by side. Raises `CannotConnect`."""
    cluster = Cluster(address)
    try:
        nodes = cluster.nodes()
        asked = {node.id: _ask(node) for node in nodes}
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        return [_answered(node, asked[node.id], max(1.0, deadline - time.monotonic())) for node in nodes]
    finally:
        cluster.leave()


def _ask(node: FoundNode) -> Any:
    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(_Witness).options(num_cpus=0, max_restarts=0, scheduling_strategy=there).remote()


class _Witness:
    """Lives on a node for a few seconds."""

    def facts(self) -> dict[str, Any]:
        environment = environment_here([name for name, _ in gpus_here()])
        free_gb = shutil.disk_usage(made_node_home()).free / 1e9
        return {"memory_mb": available_memory_mb(), "disk_gb": free_gb, "environment": environment, "code": code_hash()}

    def now(self) -> float:
        return time.time()


def _answered(node: FoundNode, witness: Any, limit_s: float) -> NodeFacts:
    try:
        facts = ray.get(witness.facts.remote(), timeout=limit_s)
        began = time.time()
        now = ray.get(witness.now.remote(), timeout=limit_s)
        skew = now - (began + time.time()) / 2
    except ray.exceptions.GetTimeoutError:
        return NodeFacts(node.name, node.cores, node.gpus, problem=f"no answer within {ANSWERS_WITHIN_S:g} s")
    except ray.exceptions.RayError as error:
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return NodeFacts(node.name, node.cores, node.gpus, problem=last[:200])
    return NodeFacts(node.name, node.cores, node.gpus, skew_s=skew, **facts)


if __name__ == "__main__":
    try:
        print(json.dumps([to_json(facts) for facts in nodes_of(sys.argv[1])]))
    except CannotConnect as problem:
        sys.exit(str(problem))
