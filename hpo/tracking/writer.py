"""Writes that nobody waits for: one after the other, in a thread of their own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer:
    """Carries out writes in the order in which they are given, up to the first that fails: what was given after it is
    dropped, so that what is written has no hole, and a later session goes on from its end."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._under_way: list[Future[object]] = []
        self._has_failed = False

    def soon(self, write: Callable[[], object]) -> None:
        """Have `write` called. Raises what an earlier one has raised."""
        while self._under_way and self._under_way[0].done():
            self._under_way.pop(0).result()
        self._under_way.append(self._thread.submit(self._carry_out, write))

    def settle(self) -> None:
        """Wait for all writes. Raises what the first of them has raised that failed."""
        while self._under_way:
            self._under_way.pop(0).result()

    def _carry_out(self, write: Callable[[], object]) -> None:
        if self._has_failed:
            return
        try:
            write()
        except BaseException:
            self._has_failed = True
            raise
