"""What a night has to say, and one delivery of it to one receiver, as the outbox keeps it: no secret is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainers.protocol.codec import RECORD_FORMAT

LONGEST_TROUBLE = 300
"""Characters kept of why a delivery failed."""


@dataclass(frozen=True)
class Message:
    """What is said of a night."""

    name: str
    """Of the nights."""
    date: str
    subject: str
    text: str
    events: list[str]
    """What happened, of the words of `notify.on`."""
    night: dict[str, Any] = field(default_factory=dict)
    """The record of the night as plain values."""
    page: str = ""
    """The file of the night's page."""


@dataclass(frozen=True)
class Delivery:
    """One message to one receiver."""

    id: str
    """The same whenever it is sent again, so that a receiver can drop what it has."""
    channel: str
    """The receiver, by what it is: `webhook env:HOOK`, `mail to me@example.org`, `command`."""
    created: str
    """ISO time with its offset, when it was first written down."""
    message: Message
    calls: int = 0
    """In how many calls it has been tried."""
    trouble: str = ""
    """Why the last try failed."""
    format: int = RECORD_FORMAT


class Undelivered(Exception):
    """A receiver did not take a delivery; the message says why, and `may_pass` whether a second try could help."""

    def __init__(self, why: str, *, may_pass: bool) -> None:
        super().__init__(why)
        self.may_pass = may_pass


class Channel(Protocol):
    """A way to one receiver."""

    @property
    def name(self) -> str:
        """As deliveries and messages call it: the same whatever else the file names, and no secret."""

    def send(self, delivery: Delivery, left_s: float) -> None:
        """Hand over a delivery. Raises `Undelivered` where that fails, or takes longer than it may, at most `left_s`
        seconds."""


Environment = Callable[[str], str | None]
"""The value of an environment variable; None where there is none."""


def delivery_id(message: Message, channel: str, end: str) -> str:
    """Of a message to a channel. It follows from the night and its end, so a continued night sends the same."""
    content = "\n".join([message.name, message.date, end, channel])
    return hashlib.sha256(content.encode()).hexdigest()[:32]
