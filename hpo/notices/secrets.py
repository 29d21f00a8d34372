"""Secrets, read in the moment of use from where they stand, and kept out of every text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpo.config.notify import Secret
from hpo.notices.delivery import Environment, Undelivered

MOST_BYTES = 10_000
"""Of a file that holds a secret: a longer one is another file."""


def read_secret(secret: Secret, environment: Environment) -> str:
    """The secret itself, without the white space around it. Raises `Undelivered` where there is none."""
    found = environment(secret.name) if secret.source == "env" else _content(Path(secret.name))
    if found is None or not found.strip():
        missing = "is not set" if secret.source == "env" else "is empty"
        raise Undelivered(f"{secret} {missing}", may_pass=False)
    return found.strip()


def without(text: str, secrets: Iterable[str]) -> str:
    """A text in which each secret is replaced by dots."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "...")
    return text


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Undelivered(f"file:{path} cannot be read: {error.strerror}", may_pass=False) from None
    if len(content) > MOST_BYTES:
        raise Undelivered(f"file:{path} is larger than {MOST_BYTES:,} bytes", may_pass=False)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Undelivered(f"file:{path} is not UTF-8 text", may_pass=False) from None
