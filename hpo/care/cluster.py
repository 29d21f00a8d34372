"""The nodes of a Ray cluster: what each has, and in what it differs from this machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec

from hpo.care.finding import Finding
from hpo.care.servers import SKEW_NOTED_S, clock_finding
from hpo.executors.environment import Environment, environment_here
from hpo.executors.node_facts import NodeFacts
from hpo.executors.ray.address import address_of
from hpo.executors.ray.versions import code_hash, differences
from hpo.module_command import module_command
from hpo.quoting import listed
from trainers.protocol.codec import from_json

LIMIT_S = 60.0
"""Connecting takes seconds, and each node starts a process that answers."""
LITTLE_DISK_GB, LOW_MEMORY_MB = 5.0, 2048


def look_at_cluster(address: str) -> Iterator[Finding]:
    """Every node of the cluster at HOST:PORT, or at `auto`."""
    if find_spec("ray") is None:
        yield Finding("problem", "Ray", "is not installed", "pip install 'ray>=2.60,<3'")
        return
    if (named := address_of(address)) is None:
        found = "no Ray was started on this machine, and RAY_ADDRESS names no cluster"
        yield Finding("problem", "address", found, "give it as HOST:PORT")
        return
    command = module_command("hpo.executors.ray.node_facts", named)
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["the process that asks its nodes said nothing"])[-1]
        yield Finding("problem", "address", last[:400])
        return
    nodes = [from_json(NodeFacts, node) for node in json.loads(done.stdout.splitlines()[-1])]
    if not nodes:
        yield Finding("problem", "nodes", "none has CPUs", f"start one: ray start --address {named}")
    for node in nodes:
        yield from node_findings(node, environment_here(), code_hash())


def node_findings(node: NodeFacts, here: Environment, code: str) -> Iterator[Finding]:
    """What one node has, and what is wrong with it, against this machine's environment and the hash of its code."""
    named = f" ({listed(dict.fromkeys(node.environment.gpus))})" if node.environment.gpus else ""
    has = f"{node.cores} core{'s' * (node.cores != 1)}, {node.gpus} GPU{'s' * (node.gpus != 1)}{named}"
    if node.problem:
        yield Finding("problem", node.name, f"{has}; {node.problem}",
                      "install the same hpo there, and see the node's logs (ray logs)")  # fmt: skip
        return
    has += f", {node.memory_mb / 1024:.1f} GiB of memory and {node.disk_gb:.1f} GB of disk free"
    if node.disk_gb < LITTLE_DISK_GB:
        yield Finding("problem", node.name, has, "make room there: base models and tokens are kept in its cache")
    elif node.memory_mb < LOW_MEMORY_MB:
        yield Finding("note", node.name, has, "end other programs there: even one trial may not fit")
    else:
        yield Finding("ok", node.name, has)
    if found := differences(here, code, node.environment, node.code):
        yield Finding("problem", node.name, f"differs: {found}", "install the same versions: a sweep does not use it")
    if abs(node.skew_s) >= SKEW_NOTED_S:
        yield clock_finding(node.skew_s, node.name)
