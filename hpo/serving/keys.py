"""The keys of a server: read from the environment or a file, compared in constant time, shown to nobody."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
from pathlib import Path

from hpo.errors import UsageError

VARIABLE = "HPO_API_KEY"
_SHORTEST = 16
"""Characters of a key: shorter ones can be guessed."""


class Keys:
    """Keys that open a server; without any, it is open to all who reach it."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self._keys = tuple(key.encode() for key in keys)

    def __repr__(self) -> str:
        return f"<{len(self._keys)} keys>"

    def __bool__(self) -> bool:
        return bool(self._keys)

    def open_for(self, authorization: bytes) -> bool:
        """Whether a request with this header may pass: `Bearer KEY`, or the key as the password of `Basic`.

        Every key is compared to its end, so that the time says nothing about them.
        """
        given = _given(authorization)
        matches = [hmac.compare_digest(key, given) for key in self._keys]
        return not self._keys or any(matches)


def _given(authorization: bytes) -> bytes:
    scheme, _, value = authorization.strip().partition(b" ")
    if scheme.lower() != b"basic":
        return value.strip() if scheme.lower() == b"bearer" else b""
    try:
        return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def read_keys(file: Path | None, host: str) -> Keys:
    """The keys in a file, one a line, or in `HPO_API_KEY`.

    Raises `UsageError` for a file that cannot be read, a key that is short or not ASCII, and a host that others reach
    without a key.
    """
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--key-file {file}: cannot be read: {type(error).__name__}") from None
        keys = tuple(line.strip() for line in lines if line.strip())
        if not keys:
            raise UsageError(f"--key-file {file}: has no key; expected one a line")
    else:
        keys = tuple(key for key in [os.environ.get(VARIABLE, "").strip()] if key)
    where = f"--key-file {file}" if file is not None else VARIABLE
    for number, key in enumerate(keys, 1):
        if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"{where}: key {number} has {len(key)} characters; expected at least {_SHORTEST}, printable ASCII "
                "without spaces"
            )
    if not keys and not is_loopback(host):
        raise UsageError(f"--host {host}: others can reach it; set {VARIABLE} or give --key-file")
    return Keys(keys)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
