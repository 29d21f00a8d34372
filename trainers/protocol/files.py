"""Files of a trial: where they lie, how they appear, what they hash to. Standard library only."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""What PEFT calls the files of an adapter."""
OWN_WEIGHTS = "model.safetensors"
"""What methods that PEFT has not keep: all weights, or bottlenecks."""
TARGET_SCALE = "target_scale.json"
"""Beside them, where numbers are learned: mean and standard deviation, the unit that a head answers in."""


@dataclass(frozen=True)
class TrialPaths:
    """The files of one trial. `result` appears last, by rename: where it stands, the trial is over."""

    dir: Path

    @property
    def spec(self) -> Path:
        """The `TrialSpec`, as JSON; written by the sweep before the trial begins."""
        return self.dir / "spec.json"

    @property
    def environment(self) -> Path:
        """Machine and packages that the trial is trained with, as JSON; written by the sweep beside the spec."""
        return self.dir / "environment.json"

    @property
    def result(self) -> Path:
        """The `TrialResult`, as JSON; written by the sweep when the trial is over."""
        return self.dir / "result.json"

    @property
    def adapter(self) -> Path:
        """Folder of what the best evaluation had learned (see `adapter_files`)."""
        return self.dir / "adapter"

    @property
    def log(self) -> Path:
        """What the trial's process printed, over all attempts."""
        return self.dir / "trial.log"

    @property
    def usage(self) -> Path:
        """What its process used of the machine, a line of JSON for each sample, over all attempts."""
        return self.dir / "usage.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint, named by its step; only whole ones have such a name."""
        return self.dir / "checkpoints"

    @property
    def meeting(self) -> Path:
        """Where the processes of a trial on several devices find each other; gone once the attempt is over."""
        return self.dir / ".ranks"

    @property
    def examples(self) -> Path:
        """What the trial gets wrong, for people to read."""
        return self.dir / "examples"

    def rows(self, index: int) -> Path:
        """Per-row results of an evaluation."""
        return self.dir / "rows" / f"{index:04d}.npy"

    @property
    def all_rows(self) -> Path:
        """Per-row results of the best adapter on all validation rows, where evaluations use only some."""
        return self.dir / "rows" / "all.npy"


def adapter_files(folder: Path) -> list[Path]:
    """The files that hold what an adapter, or the method `full`, has learned."""
    is_peft = (folder / ADAPTER_CONFIG).is_file() or not (folder / OWN_WEIGHTS).is_file()
    return [folder / name for name in ((ADAPTER_CONFIG, ADAPTER_WEIGHTS) if is_peft else (OWN_WEIGHTS,))]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_hash(adapter: Path) -> str:
    """SHA-256 of the weights in an adapter's folder: its config may name places. Empty where it has no weights."""
    weights = adapter_files(adapter)[-1]
    return file_hash(weights) if weights.is_file() else ""


def file_fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files, in the order of their names."""
    return joint_fingerprint((path.name, file_hash(path)) for path in paths)


def joint_fingerprint(hashes: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over files whose names and hashes are known, in the order of their names."""
    digest = hashlib.sha256()
    for name, content in sorted(hashes, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(bytes.fromhex(content))
    return digest.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is either whole or not there: a temporary neighbour, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a power loss."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_folder(scratch: Path, folder: Path) -> None:
    """Put a finished folder in the place of an older one, by rename."""
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        scratch.rename(folder)
        shutil.rmtree(old)
    else:
        scratch.rename(folder)
