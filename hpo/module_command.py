"""How a module is started in a process of its own: by this Python, with no file of the current folder in a library's
place."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """`python -m MODULE ARGUMENTS`.

    By itself `-m` looks into the current folder first, where a project may have a `datasets` or a `statistics.py` of
    its own. Only in a checkout, where hpo need not be installed, that folder is the right one.
    """
    return [sys.executable, *([] if _is_in_checkout() else ["-P"]), "-m", module, *arguments]


def _is_in_checkout() -> bool:
    """Whether the current folder is the one that has this package."""
    try:
        return os.path.samefile(Path(__file__).parents[1], os.curdir)
    except OSError:  # it was removed, or is closed to this user
        return False
