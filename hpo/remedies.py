"""What to do about a disk or a database that failed: what to mend first, or that the same command continues. Pure."""

from __future__ import annotations

import errno
import re

CONTINUES = "the same command continues"
_BY_NUMBER = {
    (errno.ENOSPC, errno.EDQUOT): "make room",
    (errno.ENOTDIR, errno.EISDIR, errno.EEXIST): "move away what lies there in the place of a folder or file",
    (errno.EACCES, errno.EPERM): "give yourself the right to read and write there",
    (errno.EROFS,): "mount it so that it can be written, or choose another --home",
    (errno.ENAMETOOLONG,): "choose a shorter path or name",
    (errno.ELOOP,): "mend the links, which lead in a circle",
    (errno.EMFILE, errno.ENFILE): "close other programs, or raise the limit of open files (ulimit -n)",
    (errno.ENOENT,): "bring back what is missing",
}
_BY_WORDS = (
    # SQLite's own words.
    (r"database or disk is full|no space left", "make room"),
    (r"database( table)? is locked", "when no other process holds it"),
    (r"readonly database|unable to open|access permission", "give yourself the right to read and write it"),
    (
        r"malformed|not a database|disk I/O error|no such (table|column)",
        "bring back a copy of the database, or move it away",
    ),
)
_DELETED = r"Run with id=\S+ not found|must be in (the )?'?active'? state|No (such )?experiment|non-active experiment"


def way_on(error: BaseException) -> str:
    """What helps, in words that follow the error's own."""
    if isinstance(error, OSError):
        known = (what for numbers, what in _BY_NUMBER.items() if error.errno in numbers)
        return f"{next(known, 'mend that')}; then {CONTINUES}"
    words = first_line(error)
    for pattern, what in _BY_WORDS:
        if re.search(pattern, words, re.IGNORECASE):
            return f"{what}, {CONTINUES}" if what.startswith("when") else f"{what}; then {CONTINUES}"
    if re.search(_DELETED, words, re.IGNORECASE):
        return f"someone has deleted it in MLflow; {CONTINUES}, and makes it anew"
    return f"mend that; then {CONTINUES}"


def first_line(error: BaseException) -> str:
    """What a database has to say, without the statement it was given."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    cause = getattr(cause, "orig", cause)  # the driver's own error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
