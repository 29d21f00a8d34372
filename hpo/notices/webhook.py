"""A delivery as JSON by HTTP: its `text` is what chat programs show, and its signature that of Standard Webhooks."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass

from hpo.config.notify import Webhook
from hpo.notices.delivery import Delivery, Environment, Undelivered
from hpo.notices.http_post import post
from hpo.notices.secrets import read_secret, without

_ENCODED_KEY = "whsec_"
"""What Standard Webhooks put before a key in base64; any other key is its own bytes."""


@dataclass(frozen=True)
class WebhookChannel:
    """Sends to one webhook."""

    webhook: Webhook
    environment: Environment
    now: Callable[[], datetime.datetime]
    limit_s: float
    """Of one try."""

    @property
    def name(self) -> str:
        """The place of its address: the address itself may be a secret."""
        return f"webhook {self.webhook.address}"

    def send(self, delivery: Delivery, left_s: float) -> None:
        """Post the delivery, signed where there is a key. Raises `Undelivered`."""
        address = read_secret(self.webhook.address, self.environment)
        body = json.dumps(payload(delivery)).encode()
        stamp = str(int(self.now().timestamp()))
        headers = {"Content-Type": "application/json", "webhook-id": delivery.id, "webhook-timestamp": stamp}
        secrets = [address]
        if self.webhook.signing_key is not None:
            key = read_secret(self.webhook.signing_key, self.environment)
            headers["webhook-signature"] = signature(key, delivery.id, stamp, body)
            secrets.append(key)
        try:
            post(address, body, headers, min(self.limit_s, left_s))
        except Undelivered as error:
            raise Undelivered(without(str(error), secrets), may_pass=error.may_pass) from None


def payload(delivery: Delivery) -> dict[str, object]:
    """What is posted: `text` for chat programs, `hpo` for programs of your own. A metric that is not a number is null
    there: JSON has no word for it, and a receiver would refuse the whole message."""
    message = delivery.message
    night = json.loads(json.dumps(message.night), parse_constant=lambda _: None)
    about = {"id": delivery.id, "name": message.name, "date": message.date, "events": message.events}
    return {"text": _as_chat(message.text), "hpo": {**about, "night": night}}


def signature(key: str, identity: str, stamp: str, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of `ID.TIME.BODY` in base64. Raises `Undelivered` for a key that cannot be decoded."""
    digest = hmac.new(_bytes(key), f"{identity}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _bytes(key: str) -> bytes:
    if not key.startswith(_ENCODED_KEY):
        return key.encode()
    try:
        return base64.b64decode(key.removeprefix(_ENCODED_KEY), validate=True)
    except binascii.Error:
        raise Undelivered(
            "its signing_key begins with whsec_, but what follows is not base64", may_pass=False
        ) from None


def _as_chat(text: str) -> str:
    """A text in which a label of the data can mention nobody and link to nothing: chat programs read `<!channel>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
