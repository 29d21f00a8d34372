"""What a node of a cluster has, as the process says it that asked the node: resources, versions, disk, time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpo.executors.environment import Environment


@dataclass(frozen=True)
class NodeFacts:
    """A node that is alive."""

    name: str
    """Its host and address."""
    cores: int = 0
    """As the cluster counts them, like `gpus`."""
    gpus: int = 0
    memory_mb: float = 0.0
    """Free now."""
    disk_gb: float = 0.0
    """Free now beside its cache."""
    skew_s: float = 0.0
    """Seconds by which its clock is ahead of the asking machine's."""
    environment: Environment = field(default_factory=Environment)
    code: str = ""
    """Hash of the sources of hpo there."""
    problem: str = ""
    """Why it could not be asked; then only its name and resources are known."""
