"""Which Ray cluster is meant. Standard library only."""

from __future__ import annotations

import os
import socket
from pathlib import Path

AUTO = "auto"


def address_of(given: str) -> str | None:
    """HOST:PORT of the cluster that is meant; None for a local Ray of the sweep's own.

    `auto` is the cluster that `RAY_ADDRESS` names, or that `ray start` has started on this machine.
    """
    if given != AUTO:
        return given
    if (named := os.environ.get("RAY_ADDRESS", "")) not in ("", AUTO):
        return named
    file = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # noqa: S108  # Ray's own place
    try:
        address = file.read_text().strip()
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except (OSError, ValueError):
        return None  # none was started, or it has ended since
    return address
