"""A path as a person gives it: made absolute, or refused in words where no file can have it."""

from __future__ import annotations

import os
from pathlib import Path

_MOST_BYTES_OF_A_NAME, _MOST_BYTES = 255, 4095
"""What Linux allows."""


def given_path(text: str | Path, base: Path) -> Path:
    """The absolute path of a text, which starts at `base` and may begin with `~`; links and `..` are followed.

    Raises `ValueError` that says why no file can have it; whether there is one is another question.
    """
    if why := _refuse(str(text)):
        raise ValueError(why)
    try:
        path = (base / Path(text).expanduser()).resolve()
        path.exists()
    except RuntimeError as error:  # no such user, or links in a circle
        is_user = str(text).startswith("~") and "home" in str(error)
        why = "there is no such user" if is_user else "its links lead in a circle"
        raise ValueError(why) from error
    except OSError as error:
        raise ValueError(f"it cannot be looked at: {error.strerror}") from error
    if len(os.fsencode(path)) > _MOST_BYTES:
        raise ValueError(f"it is longer than {_MOST_BYTES:,} bytes")
    return path


def _refuse(text: str) -> str | None:
    if not text:
        return "it is empty"
    if "\0" in text:
        return "it holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it is no UTF-8 text"
    if any(len(name.encode()) > _MOST_BYTES_OF_A_NAME for name in text.split("/")):
        return f"a name in it is longer than {_MOST_BYTES_OF_A_NAME} bytes"
    return None
