"""Whoever waits for a night hears of it: heartbeats while it runs, then messages through the outbox."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hpo.config.notify import Notify
from hpo.nights.alerts import FAILED, events_of
from hpo.nights.record import NightFiles, NightRecord
from hpo.notices.delivery import Channel, Delivery, Environment, Message, Undelivered, delivery_id
from hpo.notices.heartbeat import Beat, beat
from hpo.notices.mail import MailChannel
from hpo.notices.outbox import Outbox, Patience, deliver
from hpo.notices.program import CommandChannel
from hpo.notices.webhook import WebhookChannel
from trainers.protocol.codec import to_json

BEAT_TRIES = 2


@dataclass(frozen=True)
class Signals:
    """What the file's `notify:` asks for, if anything. Each method returns what to say of it, in sentences."""

    notify: Notify | None
    files: NightFiles
    now: Callable[[], datetime.datetime]
    """A moment that knows its time zone."""
    environment: Environment = os.environ.get
    patience: Patience = field(default_factory=Patience)

    def start(self, record: NightRecord) -> list[str]:
        """The heartbeat of a night that begins or continues."""
        return self._beat("start", record, f"the night {record.date} of {record.name} begins")

    def end(self, record: NightRecord) -> list[str]:
        """The heartbeat of a night that is over."""
        end = f"{record.state}: {record.reason}".removesuffix(": ")
        kind: Beat = "fail" if record.state in FAILED else "success"
        return self._beat(kind, record, f"the night {record.date} of {record.name}: {end}")

    def send(self, record: NightRecord, text: str) -> list[str]:
        """Write down what is to be sent of a night, and try that and all that waits from earlier nights.

        `text` is the night's in plain words; its first line is the subject. Raises `SweepError` where the outbox cannot
        be written.
        """
        events, now = events_of(record), self.now().isoformat(timespec="seconds")
        if self.notify is None or not set(events) & set(self.notify.on):
            return self.retry()
        message = Message(
            record.name, record.date, text.partition("\n")[0], text, list(events), to_json(record),
            str(self.files.page(record.night)),
        )  # fmt: skip
        end = f"{record.state} {record.reason}"
        return self.retry([
            Delivery(delivery_id(message, channel.name, end), channel.name, now, message)
            for channel in self._channels()
        ])  # fmt: skip

    def retry(self, fresh: Sequence[Delivery] = ()) -> list[str]:
        """Try all that waits from earlier, also for a receiver that the file has no more: that is given up in the end.

        `fresh` is what comes new. Raises `SweepError` where the outbox cannot be written.
        """
        give_up_after = datetime.timedelta(days=(self.notify or Notify()).give_up_days)
        outbox = Outbox(self.files.outbox)
        return deliver(outbox, fresh, self._channels(), self.now(), give_up_after, self.patience)

    def _channels(self) -> list[Channel]:
        found: list[Channel] = []
        if (notify := self.notify) is None:
            return found
        limit_s = self.patience.limit_s
        found += [WebhookChannel(webhook, self.environment, self.now, limit_s) for webhook in notify.webhooks]
        if notify.smtp:
            found += [MailChannel(notify.smtp, to, self.environment, limit_s) for to in notify.smtp.to]
        if notify.command:
            found.append(CommandChannel(notify.command))
        return found

    def _beat(self, kind: Beat, record: NightRecord, text: str) -> list[str]:
        """Send a heartbeat, twice where the first one fails; what is said of it where both do."""
        if self.notify is None or self.notify.heartbeat is None:
            return []
        trouble = ""
        for attempt in range(BEAT_TRIES):
            try:
                beat(self.notify.heartbeat, self.environment, kind, record, text, self.patience.limit_s)
            except Undelivered as error:
                trouble = str(error)
                if not error.may_pass:
                    break
                if attempt + 1 < BEAT_TRIES:
                    time.sleep(self.patience.pause_s)
            else:
                return []
        return [f"the heartbeat did not get the {kind} of the night {record.date}: {trouble}"]
