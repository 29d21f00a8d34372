"""What a person can do about a disk, a database or a package that failed, before the same command continues."""

from __future__ import annotations

import errno
import re
from pathlib import Path

CONTINUES = "the same command continues"
LOCK = Path(__file__).parents[1] / "requirements.lock"
"""The versions that the tests run with, where hpo runs from its source; an installed one has no such file."""
_BY_NUMBER = {
    (errno.ENOSPC, errno.EDQUOT): "make room",
    (errno.ENOTDIR, errno.EISDIR, errno.EEXIST): "move away the file or folder that blocks this path",
    (errno.EACCES, errno.EPERM): "give yourself permission to read and write there",
    (errno.EROFS,): "mount it with write access, or choose another --home",
    (errno.ENAMETOOLONG,): "choose a shorter path or name",
    (errno.ELOOP,): "fix the symbolic links, which form a loop",
    (errno.EMFILE, errno.ENFILE): "close other programs, or raise the limit of open files (ulimit -n)",
    (errno.ENOENT,): "restore the missing file or folder",
}
_REFUSED = r"password authentication|no password supplied|no pg_hba\.conf entry|role .* does not exist"
_NO_DATABASE = r"FATAL: +database .* does not exist"
_BY_WORDS = (
    # Patterns of SQLite's own messages.
    (r"database or disk is full|no space left", "make room"),
    (r"database( table)? is locked", "when no other process holds it"),
    (r"readonly database|unable to open|access permission", "give yourself permission to read and write it"),
    # Patterns of PostgreSQL's.
    (_REFUSED, "correct user and password in HPO_STUDIES, or let the server accept them"),
    (_NO_DATABASE, "create the database, or correct its name in HPO_STUDIES"),
    (
        r"connection failed|failed to resolve host|closed the connection unexpectedly|terminating connection",
        "start the server, or correct its address in HPO_STUDIES",
    ),
    (r"permission denied for", "grant that right to the role"),
    (r"malformed|not a database|disk I/O error|no such (table|column)", "restore a backup of it, or move it away"),
)
_DELETED = r"Run with id=\S+ not found|must be in (the )?'?active'? state|No (such )?experiment|non-active experiment"

# The system's words, SQLite's, numpy's.
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded|disk is full|\d+ requested and \d+ written", re.I)


def says_disk_full(message: str) -> bool:
    """Whether an error's message is of a disk without room."""
    return _DISK_FULL.search(message) is not None


def is_refusal(error: BaseException) -> bool:
    """Whether it is a server's answer that it lets nobody in so."""
    return re.search(f"{_REFUSED}|{_NO_DATABASE}", first_line(error), re.IGNORECASE) is not None


def way_on(error: BaseException) -> str:
    """What a person can do about an error, as the end of a sentence that begins with the error's own message."""
    if isinstance(error, OSError):
        known = (what for numbers, what in _BY_NUMBER.items() if error.errno in numbers)
        return f"{next(known, 'fix that')}; then {CONTINUES}"
    words = first_line(error)
    for pattern, what in _BY_WORDS:
        if re.search(pattern, words, re.IGNORECASE):
            return f"{what}, {CONTINUES}" if what.startswith("when") else f"{what}; then {CONTINUES}"
    if re.search(_DELETED, words, re.IGNORECASE):
        return f"someone has deleted it in MLflow; {CONTINUES} and creates it again"
    return f"fix that; then {CONTINUES}"


def packages_again(library: str = "") -> str:
    """The way to packages, or one library, in versions that hpo works with."""
    if LOCK.is_file():
        return f"pip install -r {LOCK}"
    if not library:
        return "pip check names what is missing; pip install --force-reinstall PACKAGE repairs what is broken"
    from importlib.metadata import requires  # late: hardly anybody needs it

    lowest = [found[1] for line in requires("hpo") or [] if (found := re.match(rf"{library}\b[^;]*>=([\d.]+)", line))]
    return f"pip install {library}~={lowest[0]}.0"


def first_line(error: BaseException) -> str:
    """The first line of a database's message, without the SQL statement that SQLAlchemy adds."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    cause = getattr(cause, "orig", cause)  # the driver's own error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
