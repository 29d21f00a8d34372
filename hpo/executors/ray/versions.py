"""What must be equal on all nodes, or their numbers could not be compared: packages and our own code."""

from __future__ import annotations

import functools
import hashlib
from importlib.util import find_spec
from pathlib import Path

from hpo.executors.environment import Environment
from hpo.quoting import listed

_ONLY_HERE = ("optuna", "mlflow", "onnx", "onnxruntime", "onnxruntime-gpu")
"""Packages that trials do not use."""
_SHOWN_DIGITS = 12


@functools.cache
def code_hash() -> str:
    """SHA-256 of the sources of `hpo` and `trainers` as this process imports them."""
    digest = hashlib.sha256()
    for package in ("hpo", "trainers"):
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(root).rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(root).as_posix()}\n".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def differences(here: Environment, code_here: str, there: Environment, code_there: str) -> str:
    """In what a node differs from this machine; empty where its trials give the same numbers."""
    found = []
    if _minor(here.python) != _minor(there.python):
        found.append(f"Python {there.python}, here {here.python}")
    for name in sorted({*here.packages, *there.packages} - set(_ONLY_HERE)):
        ours, theirs = here.packages.get(name, "absent"), there.packages.get(name, "absent")
        if _public(ours) != _public(theirs):
            found.append(f"{name} {theirs}, here {ours}")
    if code_here != code_there:
        found.append(f"the code of hpo has the hash {code_there[:_SHOWN_DIGITS]}, here {code_here[:_SHOWN_DIGITS]}")
    return listed(found)


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _public(version: str) -> str:
    """Without the build: torch for CPUs here, and for GPUs there, is one version."""
    return version.partition("+")[0]
