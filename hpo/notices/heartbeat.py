"""Heartbeats as healthchecks.io expects them: a start, then a success or a failure, with the same run id."""

from __future__ import annotations

import uuid
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from hpo.config.notify import Secret
from hpo.nights.record import NightRecord
from hpo.notices.delivery import Environment, Undelivered
from hpo.notices.http_post import check_address, post
from hpo.notices.secrets import read_secret, without

Beat = Literal["start", "success", "fail"]
_MOST_BYTES = 10_000
"""Of the text that goes along."""


def beat(
    heartbeat: Secret, environment: Environment, kind: Beat, record: NightRecord, text: str, limit_s: float
) -> None:
    """Send one beat. Raises `Undelivered`; nothing is kept, since a late success would be a false one."""
    address = read_secret(heartbeat, environment)
    check_address(address)
    try:
        post(beat_address(address, kind, record), text.encode()[:_MOST_BYTES], {"Content-Type": "text/plain"}, limit_s)
    except Undelivered as error:
        raise Undelivered(without(str(error), [address]), may_pass=error.may_pass) from None


def beat_address(address: str, kind: Beat, record: NightRecord) -> str:
    """The address of a beat: `/start` or `/fail` after the path, the run's id in the query."""
    parts = urlsplit(address)
    path = parts.path.rstrip("/") + ("" if kind == "success" else f"/{kind}")
    run = uuid.uuid5(uuid.NAMESPACE_URL, f"hpo:{record.name}:{record.date}")
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("rid", str(run))])
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))
