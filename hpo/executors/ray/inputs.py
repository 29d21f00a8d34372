"""What a node keeps for later sweeps: base models, tokens, adapters and code, in folders named by their content.

A session holds the folders that it uses. Those that nobody holds, and nobody has used for `KEPT_DAYS`, are removed when
a session begins, and by `hpo gc` on that machine.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from hpo.garbage import discard
from hpo.lock import held_alone, hold_if_there, is_in_use

HOME_VARIABLE = "HPO_NODE_HOME"
KEPT_DAYS = 14


def node_home() -> Path:
    """The node's own folder, which may not be there yet. Nobody else can read what lies in it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(HOME_VARIABLE) or cache / "hpo" / "node")


def made_node_home() -> Path:
    """The same, with the folders that it has."""
    for name in ("cache", "inputs", "sessions"):
        (node_home() / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    return node_home()


def hold_inputs(folder: Path) -> int | None:
    """Say that this process uses a folder of inputs now, and until it closes what this returns; None where there is no
    such folder."""
    fd = hold_if_there(folder)
    if fd is not None:
        os.utime(folder)  # nobody removes what is held
    return fd


def unused_inputs(home: Path) -> list[Path]:
    """Folders of inputs that may go, the longest unused first."""
    return sorted((f for f in (home / "inputs").glob("*") if _is_old(f) and not is_in_use(f)), key=_last_use)


def remove_inputs(folder: Path) -> None:
    """Remove a folder of inputs, unless a session has begun to use it."""
    with held_alone(folder) as is_mine:
        if is_mine and _is_old(folder):
            discard(folder)


def _is_old(folder: Path) -> bool:
    """Whether nobody has used it for long; a hidden one is left of a removal that was cut short."""
    return folder.name.startswith(".") or _last_use(folder) < time.time() - KEPT_DAYS * 86400


def _last_use(folder: Path) -> float:
    """In seconds since the epoch; infinite where it has just been removed."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
