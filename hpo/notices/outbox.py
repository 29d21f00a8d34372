"""Deliveries on disk until they have arrived: tried a few times in a call, and again by each next one, for some days.

A receiver that hangs holds nobody up: each has a thread of its own, and the night waits for all of them together, for a
bounded time. What was not answered by then counts as not delivered. If it arrived all the same, the next call sends it
again with the same id. A file that cannot be read or written keeps no other delivery back.
"""

from __future__ import annotations

import dataclasses
import datetime
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo.errors import SweepError
from hpo.notices.delivery import LONGEST_TROUBLE, Channel, Delivery, Undelivered
from hpo.quoting import clipped
from trainers.protocol.codec import from_file, to_file
from trainers.protocol.counted import counted
from trainers.protocol.files import write_atomically

SENT_KEPT = 200
"""Of deliveries that have arrived, the newest ones stay for people to read."""


@dataclass(frozen=True)
class Patience:
    """How long one call tries. The limits are seconds of this process's own clock, not of the night's."""

    tries: int = 3
    pause_s: float = 1.0
    """Before the second try; doubled before each further one."""
    limit_s: float = 10.0
    """Of one try over a network; a command has its own limit."""
    total_s: float = 60.0
    """Of all receivers together."""


@dataclass(frozen=True)
class Attempt:
    """What came of a delivery in one call."""

    delivery: Delivery
    trouble: str = ""
    """Empty where it has arrived."""


@dataclass(frozen=True)
class Outbox:
    """The deliveries of the nights of one name; those that have arrived, or were given up, are in two folders."""

    dir: Path

    def put(self, delivery: Delivery) -> None:
        """Write a delivery down, unless it has been before. Raises `OSError`."""
        if not any(self._path(delivery, place).exists() for place in ("", "sent", "given-up")):
            self._write(delivery)

    def waiting(self) -> tuple[list[Delivery], list[str]]:
        """What has not arrived, the oldest first, and what is wrong with files that cannot be read, in sentences."""
        found, damaged = [], []
        for path in sorted(self.dir.glob("*.json")):
            try:
                delivery = from_file(Delivery, path.read_text(encoding="utf-8"))
                found.append((datetime.datetime.fromisoformat(delivery.created), delivery))
            except (OSError, ValueError) as error:
                damaged.append(f"{path} cannot be read: {error}; move the file away")
        return [delivery for _, delivery in sorted(found, key=lambda pair: pair[0])], damaged

    def keep(self, attempt: Attempt) -> Delivery:
        """Write down that an attempt failed. Raises `OSError`."""
        delivery, trouble = attempt.delivery, clipped(attempt.trouble, LONGEST_TROUBLE)
        kept = dataclasses.replace(delivery, calls=delivery.calls + 1, trouble=trouble)
        self._write(kept)
        return kept

    def move(self, delivery: Delivery, place: str) -> None:
        """Move a delivery to `sent` or `given-up`. Raises `OSError`."""
        target = self._path(delivery, place)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path(delivery).replace(target)
        if place == "sent":
            for path in sorted(target.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-SENT_KEPT]:
                path.unlink()

    def _write(self, delivery: Delivery) -> None:
        self.dir.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(delivery), to_file(delivery))

    def _path(self, delivery: Delivery, place: str = "") -> Path:
        return self.dir / place / f"{delivery.id}.json"


def deliver(
    outbox: Outbox, fresh: Sequence[Delivery], channels: Sequence[Channel], now: datetime.datetime,
    give_up_after: datetime.timedelta, patience: Patience,
) -> list[str]:  # fmt: skip
    """Write `fresh` down, try it and everything that waits, and return what came of it, in sentences.

    What cannot be written down is sent all the same; then this raises `SweepError`, so that the next call sends what is
    not known to have arrived.
    """
    unwritten, troubles = [], []
    for delivery in fresh:
        try:
            outbox.put(delivery)
        except OSError as error:
            unwritten.append(delivery)
            troubles.append(f"{delivery.channel}: {error}")
    waiting, said = outbox.waiting()
    for attempt in _attempts([*waiting, *unwritten], channels, patience):
        try:
            said.append(_noted(outbox, attempt, now, give_up_after))
        except OSError as error:
            troubles.append(f"{attempt.delivery.channel}: {error}")
    if troubles:
        raise SweepError("; ".join([*said, f"{outbox.dir} cannot be written: {'; '.join(dict.fromkeys(troubles))}"]))
    return said


def _noted(outbox: Outbox, attempt: Attempt, now: datetime.datetime, give_up_after: datetime.timedelta) -> str:
    """Write down what came of a delivery, and say it. Raises `OSError`."""
    delivery = attempt.delivery
    if not attempt.trouble:
        outbox.move(delivery, "sent")
        return f"{delivery.channel} has the night {delivery.message.date}"
    kept = outbox.keep(attempt)
    if now - datetime.datetime.fromisoformat(kept.created) < give_up_after:
        return f"{kept.channel} does not have the night {kept.message.date}: {kept.trouble}; the next call tries again"
    outbox.move(kept, "given-up")
    return (
        f"{kept.channel} never got the night {kept.message.date}: {kept.trouble}; given up after "
        f"{give_up_after.total_seconds() / 86400:g} days and {counted(kept.calls, 'call')}"
    )


def _attempts(waiting: Sequence[Delivery], channels: Sequence[Channel], patience: Patience) -> Iterator[Attempt]:
    """One attempt for each delivery, as soon as it is known; at the end those that had no answer in time."""
    pending, found = {delivery.id: delivery for delivery in waiting}, queue.SimpleQueue[Attempt | None]()
    deadline = time.monotonic() + patience.total_s
    known = {channel.name for channel in channels}
    busy = 0
    for channel in channels:
        if own := [delivery for delivery in waiting if delivery.channel == channel.name]:
            busy += 1
            threading.Thread(target=_work, args=(channel, own, patience, deadline, found.put), daemon=True).start()
    while busy and (left := deadline - time.monotonic()) > 0:
        try:
            attempt = found.get(timeout=left)
        except queue.Empty:
            break
        if attempt is None:
            busy -= 1
        else:
            yield Attempt(pending.pop(attempt.delivery.id), attempt.trouble)
    for delivery in pending.values():
        late = f"no answer within {patience.total_s:g} s"
        yield Attempt(delivery, late if delivery.channel in known else "notify has no such receiver any more")


def _work(
    channel: Channel, deliveries: Sequence[Delivery], patience: Patience, deadline: float,
    put: Callable[[Attempt | None], None],
) -> None:  # fmt: skip
    """Everything for one receiver, the oldest first. While it is down the rest is not tried; a message that it refuses
    keeps no other back."""
    down: Undelivered | None = None
    try:
        for delivery in deliveries:
            failure = down or _try(channel, delivery, patience, deadline)
            put(Attempt(delivery, str(failure or "")))
            down = failure if failure and failure.may_pass else None
    finally:
        put(None)


def _try(channel: Channel, delivery: Delivery, patience: Patience, deadline: float) -> Undelivered | None:
    """Why a delivery failed in all its tries; None where it arrived."""
    pause_s = patience.pause_s
    failure: Undelivered | None = None
    for attempt in range(patience.tries):
        try:
            channel.send(delivery, max(0.1, deadline - time.monotonic()))
        except Undelivered as error:
            failure = error
            if not error.may_pass or attempt + 1 == patience.tries or time.monotonic() + pause_s >= deadline:
                break
            time.sleep(pause_s)
            pause_s *= 2
        else:
            return None
    return failure
