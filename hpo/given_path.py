"""A path as a person gives it: made absolute, or refused with the reason where no file can have it."""

from __future__ import annotations

import os
from pathlib import Path

_MOST_BYTES_OF_A_NAME, _MOST_BYTES = 255, 4095
"""Limits of Linux."""


def given_path(text: str | Path, base: Path) -> Path:
    """The absolute path of a text that is relative to `base` or begins with `~`; links and `..` are resolved.

    The file need not exist. Raises `ValueError` with the reason where no file can have this path.
    """
    if why := _refuse(str(text)):
        raise ValueError(why)
    try:
        path = (base / Path(text).expanduser()).resolve()
        path.exists()
    except RuntimeError as error:  # no such user, or links in a circle
        is_user = str(text).startswith("~") and "home" in str(error)
        why = "there is no such user" if is_user else "its symbolic links form a loop"
        raise ValueError(why) from error
    except OSError as error:
        raise ValueError(f"it cannot be accessed: {error.strerror}") from error
    if len(os.fsencode(path)) > _MOST_BYTES:
        raise ValueError(f"it is longer than {_MOST_BYTES:,} bytes")
    return path


def _refuse(text: str) -> str | None:
    if not text:
        return "it is empty"
    if "\0" in text:
        return "it contains a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8 text"
    if any(len(name.encode()) > _MOST_BYTES_OF_A_NAME for name in text.split("/")):
        return f"a name in it is longer than {_MOST_BYTES_OF_A_NAME} bytes"
    return None
