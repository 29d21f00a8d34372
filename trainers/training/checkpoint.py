"""Checkpoints: everything a trial needs to go on with the same numbers as if nothing had happened.

    checkpoints/000120/   state.safetensors   trainable parameters, optimizer moments
                          state.json          progress, schedule, loss scale
                          best/               the best adapter so far
                          best.safetensors    its parameters, where evaluations use some rows and all rows come last

A checkpoint is whole or not there (written aside, synced, renamed), and the one before it goes only afterwards; so
a kill or a power loss at any instant leaves one to go on from. Nothing in it is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from trainers.protocol.codec import from_json, to_json
from trainers.protocol.events import Evaluation
from trainers.protocol.files import TrialPaths, replace_folder, sync_folder

if TYPE_CHECKING:
    from trainers.training.trainer import Trainer


BEST = "best.safetensors"


@dataclass
class Progress:
    """Where a trial stands: the position in the data is `step`, since the order of rows follows from the seed."""

    step: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    smoothed_loss: float | None = None
    loss_sum: float = 0.0
    """Summed step losses since the last `Step` event, over `losses` steps."""
    losses: int = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    is_due: bool = False
    """Whether an evaluation falls at this step and has not been done."""
    is_judged: bool = True
    """Whether the verdict on the last evaluation has been taken."""


class Checkpoints:
    """The checkpoints of one trial."""

    def __init__(self, paths: TrialPaths) -> None:
        self._folder = paths.checkpoints
        self._adapter = paths.adapter

    def save(self, trainer: Trainer, progress: Progress, *, is_best: bool) -> None:
        """Write everything; `is_best` says that the adapter as it is now is the best so far."""
        name = f"{progress.step:08d}"
        scratch = self._folder / f".{name}.new"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        before = self.latest()
        if is_best:
            trainer.save_adapter(scratch / "best")
            if trainer.evaluates_some:
                save_file(trainer.learned(), str(scratch / BEST))
        elif before is not None and (before / "best").exists():
            _link(before / "best", scratch / "best")
            if trainer.evaluates_some:
                os.link(before / BEST, scratch / BEST)
        tensors, plain = trainer.state()
        save_file(tensors, str(scratch / "state.safetensors"))
        (scratch / "state.json").write_text(json.dumps({"progress": to_json(progress), "trainer": plain}))
        for file in scratch.rglob("*"):
            if file.is_file():
                _sync(file)
        replace_folder(scratch, self._folder / name)
        sync_folder(self._folder)
        if before is not None and before.name != name:
            shutil.rmtree(before)

    def load(self, trainer: Trainer) -> Progress | None:
        """Put the trainer where the last checkpoint left it; None when there is none."""
        folder = self.latest()
        if folder is None:
            return None
        stored = json.loads((folder / "state.json").read_text())
        trainer.load_state(load_file(str(folder / "state.safetensors")), stored["trainer"])
        return from_json(Progress, stored["progress"])

    def load_best(self, trainer: Trainer) -> None:
        """Put the parameters of the best evaluation into the trainer. Raises `ValueError` where none were kept."""
        file = (self.latest() or self._folder) / BEST
        if not file.exists():
            raise ValueError(f"{self._folder} has no parameters of the best evaluation")
        trainer.load_learned(load_file(str(file)))

    def latest(self) -> Path | None:
        """Folder of the last whole checkpoint; None where there is none.

        One that a kill left while it was replaced by another of the same step is alone, and hidden.
        """
        if not self._folder.exists():
            return None
        names = [folder.name for folder in self._folder.iterdir()]
        whole = [name for name in names if name.isdigit()] or [name for name in names if name.endswith(".old")]
        last = max(whole, key=lambda name: int(name.removeprefix(".").removesuffix(".old")), default=None)
        return None if last is None else self._folder / last

    def keep_best(self) -> None:
        """The best adapter becomes the trial's."""
        latest = self.latest()
        if latest is None:
            raise ValueError(f"{self._folder} has no checkpoint to take the best adapter from")
        scratch = self._adapter.with_name(f".{self._adapter.name}.new")
        shutil.rmtree(scratch, ignore_errors=True)
        _link(latest / "best", scratch)
        replace_folder(scratch, self._adapter)


def _link(source: Path, target: Path) -> None:
    """The files of a folder under another name, sharing their content: a written adapter never changes."""
    shutil.copytree(source, target, copy_function=os.link)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
