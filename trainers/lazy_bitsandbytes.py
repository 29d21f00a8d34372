"""bitsandbytes, for the trials alone that need it.

PEFT imports it wherever it is installed. That takes a second or two, and bitsandbytes asks every GPU what it can: after
that no child of the process could use one. So the trial host marks it as not to be had, and a child that quantizes or
takes an optimizer of 8 bits lifts the mark.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_NAME = "bitsandbytes"


def leave_out() -> None:
    """Let this process and its children do without, until one calls `bitsandbytes`. No use once it is imported."""
    if _NAME not in sys.modules:
        sys.modules[_NAME] = None  # type: ignore[assignment]  # how Python marks a module as not to be had


def bitsandbytes() -> Any:
    """The module, imported now if it was not; from here on PEFT has it too."""
    if sys.modules.get(_NAME, ...) is None:
        del sys.modules[_NAME]
        peft = importlib.import_module("peft.import_utils")
        for answer in (peft.is_bnb_available, peft.is_bnb_4bit_available):
            answer.cache_clear()
    return importlib.import_module(_NAME)
