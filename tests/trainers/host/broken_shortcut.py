"""The real worker, with a shortcut that says on standard error when it is put on, or breaks as BROKEN_SHORTCUT says"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator

from trainers.host import dispatch
from trainers.protocol.events import Event
from trainers.protocol.requests import Request, Verdict


def work(request: Request) -> Generator[Event, Verdict | None, None]:
    from trainers.fast.padding_free import LayersWithoutPadding

    if not hasattr(LayersWithoutPadding, "real"):
        LayersWithoutPadding.real = LayersWithoutPadding.apply
        LayersWithoutPadding.apply = apply
    yield from dispatch.work(request)


def apply(self, model, undo):
    how = os.environ["BROKEN_SHORTCUT"]
    if how == "raises":
        raise RuntimeError("broken")
    if how == "crashes":
        os.abort()
    if how == "is killed twice" and not os.path.exists(second := f"{os.environ['KILLED_AT']}-2"):
        os.mkdir(second if os.path.exists(os.environ["KILLED_AT"]) else os.environ["KILLED_AT"])
        os.kill(os.getpid(), signal.SIGKILL)
    print("applied", file=sys.stderr)
    self.real(model, undo)
