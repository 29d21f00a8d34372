"""One POST over HTTP: the certificate is checked, no redirect is followed, and no error names the address.

It runs in a thread of its own, because neither the search for a host's name nor an answer that comes byte by byte knows
a time limit.
"""

from __future__ import annotations

import queue
import ssl
import threading
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, unquote_plus, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from hpo.notices.delivery import Undelivered
from hpo.notices.secrets import without
from hpo.quoting import clipped, visible

MAY_PASS = (408, 425, 429)
"""Refusals that a second try may not meet; so are all from 500 on."""
AGENT = "hpo"
_MOST_READ = 4000
"""Bytes of an answer that refuses."""
_SHORTEST_TOKEN = 8
"""Characters of a name in a path that may be a secret."""
_SHORTEST_VALUE = 4
"""The same of a value in a query."""


class _StayHere(HTTPRedirectHandler):
    """Follows nothing: what is signed and addressed to one receiver goes to no other."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def post(address: str, body: bytes, headers: Mapping[str, str], limit_s: float) -> None:
    """Send a body, and take any answer from 200 to 299 as received.

    Raises `Undelivered`, at the latest after `limit_s` seconds. The address is in no message, for it may be a secret.
    """
    check_address(address)
    found = queue.SimpleQueue[Undelivered | None]()

    def work() -> None:
        found.put(_post(address, body, headers, limit_s))

    threading.Thread(target=work, daemon=True).start()
    try:
        failure = found.get(timeout=limit_s)
    except queue.Empty:
        failure = Undelivered(f"no answer within {limit_s:g} s", may_pass=True)
    if failure is not None:
        raise failure


def _post(address: str, body: bytes, headers: Mapping[str, str], limit_s: float) -> Undelivered | None:
    """Why the body was not received; None where it was. `limit_s` bounds each wait for the other side."""
    opener = build_opener(_StayHere, HTTPSHandler(context=ssl.create_default_context()))
    try:
        request = Request(address, data=body, headers={"User-Agent": AGENT, **headers}, method="POST")  # noqa: S310
        with opener.open(request, timeout=limit_s):
            return None
    except HTTPError as error:
        return _refused(error, address)
    except (OSError, HTTPException, ValueError) as error:
        return Undelivered(_words(error, limit_s), may_pass=isinstance(error, (OSError, HTTPException)))


def check_address(address: str) -> None:
    """Raises `Undelivered` for what is not an http or https address."""
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good or any(ord(c) <= 32 or ord(c) > 126 for c in address):
        raise Undelivered("its address is not an http or https address", may_pass=False)
    if parts.username is not None:
        raise Undelivered("its address holds a user name, which is not sent anywhere", may_pass=False)


def _refused(error: HTTPError, address: str) -> Undelivered:
    with error:
        if 300 <= error.code < 400:
            why = f"it answered {error.code}, a redirect, which is not followed: write the new address"
            return Undelivered(why, may_pass=False)
        try:
            body = error.read(_MOST_READ)
        except (OSError, HTTPException):
            body = b""
    said = without(body.decode("utf-8", "replace"), _parts(address))  # before it is cut: half a secret is not found
    if len(body) == _MOST_READ:
        said = said[: -len(address)]
    said = clipped(visible(" ".join(said.split())))
    return Undelivered(
        f"it answered {error.code}" + (f": {said}" if said else ""),
        may_pass=error.code >= 500 or error.code in MAY_PASS,
    )


def _parts(address: str) -> list[str]:
    """What of an address may be a secret: all of it, its path and query, each long name in the one and value in the
    other; as written, and decoded."""
    parts = urlsplit(address)
    path, query = parts.path.strip("/"), parts.query
    names = [name for name in path.split("/") if len(name) >= _SHORTEST_TOKEN]
    values = [pair.partition("=")[2] or pair for pair in query.split("&")]
    values = [value for value in values if len(value) >= _SHORTEST_VALUE]
    written = [address, path, query, *names, *values]
    return [*written, *map(unquote, written), *map(unquote_plus, values)]


def _words(error: Exception, limit_s: float) -> str:
    """What failed below HTTP, without the address."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {limit_s:g} s"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, OSError) and cause.strerror:
        return f"it cannot be reached: {cause.strerror}"
    return f"it cannot be reached ({type(cause).__name__})"
