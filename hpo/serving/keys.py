"""The keys of a server and their roles: read from the environment or a file, compared in constant time, never shown."""

from __future__ import annotations

import base64
import binascii
import difflib
import hmac
import ipaddress
import os
from collections.abc import Iterable, Sequence
from enum import IntEnum
from pathlib import Path

from hpo.errors import UsageError

VARIABLE = "HPO_API_KEY"
_SHORTEST = 16
"""Characters of a key: shorter ones can be guessed."""


class Role(IntEnum):
    """What a key may do; each role may also do what those before it may."""

    INFER = 1
    """Ask the models: everything but `/metrics` and what changes the server."""
    PLAIN = 2
    """Of a key without a role: also read `/metrics`."""
    ADMIN = 3
    """Also load and unload models."""


_ROLES = {"infer": Role.INFER, "admin": Role.ADMIN}


class Keys:
    """Keys that open a server; without any, it is open to all who reach it."""

    def __init__(self, entries: Sequence[str] = ()) -> None:
        """`entries`: `KEY`, `infer:KEY` or `admin:KEY` each."""
        self._roles = {key.encode(): role for role, key in map(_parted, entries)}

    def __repr__(self) -> str:
        return f"<{len(self._roles)} keys>"

    def __bool__(self) -> bool:
        return bool(self._roles)

    def role_of(self, authorization: bytes) -> Role | None:
        """The role of a request with this header: `Bearer KEY`, or the key as the password of `Basic`.

        None without a key that is ours. Every key is compared to its end, so that the time says nothing about them.
        """
        if not self._roles:
            return Role.ADMIN
        given = _given(authorization)
        return max((role for key, role in self._roles.items() if hmac.compare_digest(key, given)), default=None)


def _parted(entry: str) -> tuple[Role, str]:
    """Role and key of an entry. A colon after any other word belongs to the key."""
    word, colon, key = entry.partition(":")
    return (_ROLES[word], key) if colon and word in _ROLES else (Role.PLAIN, entry)


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

    Raises `UsageError` for a file that cannot be read, for keys that are short, not ASCII, given twice or of an unknown
    role, with all problems, and for a host that others reach without a key.
    """
    if file is not None:
        lines = _lines(file)
        entries = {f"--key-file {file}:{number}": line for number, line in enumerate(lines, 1) if line}
        if not entries:
            raise UsageError(f"--key-file {file}: has no key; expected one a line")
    else:
        entries = {VARIABLE: given} if (given := os.environ.get(VARIABLE, "").strip()) else {}
    if problems := list(_problems(entries)):
        raise UsageError("\n".join(problems))
    if not entries and not is_loopback(host):
        raise UsageError(f"--host {host}: others can reach it; set {VARIABLE} or give --key-file")
    return Keys(tuple(entries.values()))


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--key-file {file}: cannot be read: {type(error).__name__}") from None


def _problems(entries: dict[str, str]) -> Iterable[str]:
    """What is wrong with entries, by where they are; no key is quoted."""
    first: dict[str, str] = {}
    for number, (where, entry) in enumerate(entries.items(), 1):
        key = _parted(entry)[1]
        word, colon, _ = entry.partition(":")
        meant = difflib.get_close_matches(word.strip().lower(), _ROLES, 1, 0.7) if colon and word not in _ROLES else []
        if meant:
            yield f"{where}: key {number} has an unknown role; did you mean {meant[0]}:KEY?"
        elif len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            expected = f"expected at least {_SHORTEST}, printable ASCII without spaces"
            yield f"{where}: key {number} has {len(key)} characters; {expected}"
        elif key in first:
            yield f"{where}: key {number} is the one of {first[key]} again; expected each key once"
        first.setdefault(key, where.removeprefix("--key-file "))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
