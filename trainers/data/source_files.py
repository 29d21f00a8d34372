"""Finds the files for a path: a file, all files in a folder and its subfolders, or the matches of a pattern."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainers.data.formats.base import DataProblem, names, refused
from trainers.data.formats.table import reader_of
from trainers.protocol.catalog import DATA_SUFFIXES
from trainers.protocol.events import Finding

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_ABOUT_DATA = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "requirements.txt"}
"""Files beside data that contain no data, as in the hub's `datasets`."""
_ABOUT_ANYTHING = ("readme", "license", "licence", "notice", "changelog")
"""Names of other such files; those of texts may go on."""
_LFS_POINTER = b"version https://git-lfs"


def files_of(path: Path) -> list[Path]:
    """The file, or the files of known formats in a folder and its subfolders or of a pattern, sorted by name.

    Raises `DataProblem` where there is no file, and where one cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not glob.has_magic(str(path)):
            raise refused(path, _why_missing(path)) from None
        mode = 0
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long or contains NUL
        raise refused(ascii(str(path))[:200], f"cannot be opened: {_reason(error)}") from error
    if mode and not stat.S_ISDIR(mode):
        _check_file(path)
        return [path]
    found = sorted(_below(path) if mode else _matching(path))
    files = [file for file in found if reader_of(file) is not None and not _is_about_data(file)]
    packed = [file for file in found if file.suffix.lower() in COMPRESSED and reader_of(file.with_suffix(""))]
    if packed:
        raise DataProblem([Finding(str(file), "is compressed", f"unpack it first: {file.stem}") for file in packed])
    if not files:
        others = f" but {names([file.name for file in found])}" if found else ""
        raise refused(path, f"contains no data file{others}", f"files of {', '.join(DATA_SUFFIXES)}")
    for file in files:
        _check_file(file)
    return files


def _why_missing(path: Path) -> str:
    if path.is_symlink():
        return f"is a link to {os.readlink(path)}, which does not exist"
    return "does not exist"


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else str(error)


def _check_file(file: Path) -> None:
    """Raise `DataProblem` where a path is not a regular file with data."""
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISDIR: "a folder"}
            kind = next((name for is_kind, name in kinds.items() if is_kind(mode)), "a device")
            raise refused(file, f"is {kind}, not a file", "a regular file")
        with file.open("rb") as opened:
            is_pointer = opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    except FileNotFoundError:
        raise refused(file, _why_missing(file)) from None
    except OSError as error:
        raise refused(file, f"cannot be opened: {error.strerror}") from error
    if is_pointer:
        raise refused(file, "is a pointer of Git LFS, not the data itself", "run: git lfs pull")


def _is_about_data(file: Path) -> bool:
    name = file.name.lower()
    is_saved_state = name == "state.json" and (file.parent / "dataset_info.json").is_file()
    is_cache = name.startswith("cache-") and name.endswith(".arrow")  # of `datasets`, in a folder that it saved
    # A text may be called LICENSE-2.0.txt; a table whose name only begins so, such as notices.csv, is data.
    is_text, stem = name.endswith(".txt"), file.stem.lower()
    is_about_anything = stem.startswith(_ABOUT_ANYTHING) if is_text else stem in _ABOUT_ANYTHING
    return name in _ABOUT_DATA or is_about_anything or is_saved_state or is_cache


def _matching(pattern: Path) -> Iterator[Path]:
    """The matches of a pattern, folders with all files below them; hidden files only where the pattern names them."""
    for match in glob.iglob(str(pattern), recursive=True):
        yield from _below(Path(match)) if os.path.isdir(match) and "**" not in pattern.parts else [Path(match)]


def _below(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders except hidden ones; no folder twice where links form a loop."""
    seen = set()

    def unseen(parent: str, inner: Iterable[str]) -> list[str]:
        fresh = [name for name in sorted(inner) if not name.startswith((".", "__"))]
        return [name for name in fresh if os.path.realpath(os.path.join(parent, name)) not in seen]

    def refuse(error: OSError) -> None:
        raise refused(error.filename, f"cannot be opened: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = unseen(parent, folders)
        yield from (Path(parent, name) for name in files if not name.startswith("."))
