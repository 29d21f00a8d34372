"""Ctrl-C and SIGTERM as a request to stop, not as an exception in the middle of a write."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(eq=False)
class StopWish:
    """Whether a person has asked to stop."""

    is_made: bool = False


_wishes: list[StopWish] = []
"""Those of this process that can be made now."""


def is_stop_wished() -> bool:
    """Whether a person has asked this process to stop."""
    return any(wish.is_made for wish in _wishes)


@contextmanager
def stop_wish() -> Iterator[StopWish]:
    """While inside, the first signal only sets the wish, and the second raises `KeyboardInterrupt`.

    Only the main thread can handle signals; in other threads this changes nothing.
    """
    wish = StopWish()

    def take(number: int, frame: FrameType | None) -> None:
        if wish.is_made:
            raise KeyboardInterrupt
        wish.is_made = True

    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.signal(number, take) for number in _SIGNALS}
    _wishes.append(wish)
    try:
        yield wish
    finally:
        _wishes.remove(wish)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """While inside, SIGTERM raises `KeyboardInterrupt`, so that it ends a sweep as Ctrl-C does: resumable."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
