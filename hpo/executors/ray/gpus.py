"""The GPUs of a node, and the environment that it was started with. Standard library only."""

from __future__ import annotations

import subprocess
from pathlib import Path


def first_environment() -> dict[str, str]:
    """The environment that the node was started with: Ray hides GPUs from an actor that has reserved none."""
    entries = Path("/proc/self/environ").read_bytes().decode(errors="surrogateescape").split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries if "=" in entry)}


def gpus_here() -> list[tuple[str, float]]:
    """Names and free memory (MB) of the GPUs that this node may use, as NVIDIA's tool says; none where it is not
    there. 0 MB is not known: the tool says nothing of a GPU that shares the machine's memory. The order is that of
    `CUDA_VISIBLE_DEVICES`, which the tool does not look at."""
    command = ["nvidia-smi", "--query-gpu=uuid,name,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    every = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    visible = first_environment().get("CUDA_VISIBLE_DEVICES")
    order = range(len(every)) if visible is None else _indices(visible, [uuid for uuid, *_ in every])
    return [(every[index][1], _mb(every[index][-1])) for index in order]


def _mb(said: str) -> float:
    return float(said) if said.isdigit() else 0.0


def _indices(visible: str, uuids: list[str]) -> list[int]:
    """Which GPUs `CUDA_VISIBLE_DEVICES` names, by number or UUID; as for CUDA, the first unknown one ends the list."""
    found: list[int] = []
    for name in visible.split(","):
        named = [n for n, full in enumerate(uuids) if name.strip() == str(n) or full.startswith(name.strip() or "-")]
        if not named:
            break
        found.append(named[0])
    return found
