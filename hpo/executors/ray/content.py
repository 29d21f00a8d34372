"""What is sent to a node: the files of a folder, known by the hash of all of them. Standard library only."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.protocol.codec import fingerprint
from trainers.protocol.files import TrialPaths, file_hash

PIECE = 8 << 20
"""Bytes that are sent at once."""
_NEVER_READ = (".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".ot", ".tflite")
"""Endings of weights that no trial reads: a base model is read from safetensors alone."""
_NOT_OF_TRIALS = ("rows", "examples", "result.json", "spec.json", "environment.json", "test.npy")
"""Of a trial's folder: what the sweep itself keeps there, and what a trial never reads again."""


@dataclass(frozen=True)
class Content:
    """Some files, by their names on the node (relative, with slashes)."""

    files: Mapping[str, Path]

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file."""
        return {name: _hash_of(path, path.stat().st_size, path.stat().st_mtime_ns) for name, path in self.files.items()}

    @functools.cached_property
    def key(self) -> str:
        """Hash of names and contents: the folder that a node keeps them in."""
        return fingerprint(self.hashes)

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """The name of a file with its next bytes; an empty file has one piece."""
        for name, path in self.files.items():
            with path.open("rb") as file:
                piece = file.read(PIECE)
                yield name, piece
                while len(piece) == PIECE:
                    piece = file.read(PIECE)
                    yield name, piece


@functools.lru_cache(maxsize=4096)
def _hash_of(path: Path, _size: int, _mtime: int) -> str:
    return file_hash(path)


def model_content(folder: Path) -> Content:
    """A base model's folder, without weights in formats that are never read."""
    return Content({name: path for name, path in _files(folder) if path.suffix not in _NEVER_READ})


def whole_content(folder: Path) -> Content:
    """All files of a folder."""
    return Content(dict(_files(folder)))


def trial_content(folder: Path) -> Content:
    """What a trial goes on from: checkpoints, adapter, log and usage."""
    return Content({name: path for name, path in _files(folder) if name.partition("/")[0] not in _NOT_OF_TRIALS})


def adapter_content(folder: Path) -> Content:
    """What a trial has learned, under the names that its folder has."""
    adapter = TrialPaths(folder).adapter
    return Content({f"{adapter.name}/{name}": path for name, path in _files(adapter)})


def code_content(folder: Path, request: Mapping[str, Any]) -> Content:
    """The files of your own code that a request names as FILE.py:FUNCTION, of the folder of the YAML."""
    names = {text.partition(":")[0] for text in _texts(request) if ".py:" in text}
    return Content({name: folder / name for name in sorted(names) if (folder / name).is_file()})


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of a folder's files; links count as what they point to, hidden files are somebody's scratch."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            yield name, path


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
