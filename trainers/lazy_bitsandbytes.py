"""bitsandbytes, imported only in the trials that need it.

PEFT imports it wherever it is installed. That takes a second or two, and it initializes CUDA: after that no forked
child of the process can use a GPU. So the trial host marks it as not installed. A child that quantizes, or uses an
8-bit optimizer, removes the mark.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from typing import Any

_NAME = "bitsandbytes"


def leave_out() -> None:
    """Mark bitsandbytes as not installed, for this process and its children, until one calls `bitsandbytes`.

    It has no effect after the module was imported.
    """
    if _NAME not in sys.modules:
        sys.modules[_NAME] = None  # type: ignore[assignment]  # how Python marks a module that cannot be imported


def is_installed() -> bool:
    """Whether a trial could import it, marked or not."""
    return sys.modules.get(_NAME) is not None or PathFinder.find_spec(_NAME) is not None


def bitsandbytes() -> Any:
    """The module, imported now if it was not; from now on PEFT finds it too.

    Raises `ImportError` without it.
    """
    if sys.modules.get(_NAME, ...) is None:
        del sys.modules[_NAME]
        peft = importlib.import_module("peft.import_utils")
        for answer in (peft.is_bnb_available, peft.is_bnb_4bit_available):
            answer.cache_clear()
    return importlib.import_module(_NAME)
