"""Why no answer came from a server, in plain words, and what to do about it; knows `requests`, not MLflow."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import requests

_OF_ANOTHER_HOST = (62, 64)
"""OpenSSL's codes for a name and for an address that is not in the certificate."""
_EXPIRED = 10


@dataclass(frozen=True)
class Trouble:
    """What went wrong between this machine and a server."""

    found: str
    """The end of a sentence that begins with the server."""
    remedy: str = ""
    """Empty where nothing is to be said but that the server should run and be reached."""
    is_silent: bool = False
    """The server does not answer: each further attempt would take as long again."""


def trouble_of(error: requests.RequestException) -> Trouble:
    """The trouble behind an error of `requests` that has no answer with a status."""
    if isinstance(error, requests.exceptions.SSLError):
        return _of_tls(error)
    is_proxy = isinstance(error, requests.exceptions.ProxyError)
    for inner in _chain(error):
        if isinstance(inner, TimeoutError):
            return Trouble("does not answer", is_silent=True)
        if isinstance(inner, OSError) and inner.strerror and not is_proxy:
            return Trouble(f"cannot be reached ({inner.strerror})")
    if is_proxy:
        return Trouble("cannot be reached through the proxy", "check http_proxy, https_proxy and no_proxy")
    return Trouble("cannot be reached" if isinstance(error, requests.ConnectionError) else "gave half an answer")


def _of_tls(error: requests.exceptions.SSLError) -> Trouble:
    for inner in _chain(error):
        if isinstance(inner, ssl.SSLCertVerificationError):
            if inner.verify_code in _OF_ANOTHER_HOST:
                return Trouble("has a certificate for another host", "use the name that the certificate has")
            if inner.verify_code == _EXPIRED:
                return Trouble("has a certificate that has expired", "ask its administrator for a new one")
        elif isinstance(inner, ssl.SSLError) and inner.reason == "WRONG_VERSION_NUMBER":
            return Trouble("does not speak TLS", "its address may begin with http://")
    return Trouble(
        "has no certificate that this machine trusts", "MLFLOW_TRACKING_SERVER_CERT_PATH names a certificate to trust"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those below it: `requests` and urllib3 each wrap the system's own."""
    inner: object = error
    seen: list[object] = []
    while isinstance(inner, BaseException) and inner not in seen:
        yield inner
        seen.append(inner)
        reason = getattr(inner, "reason", None)  # of urllib3 an exception; of ssl a text
        inner = reason if isinstance(reason, BaseException) else inner.__cause__ or inner.__context__
