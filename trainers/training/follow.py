"""A rank that follows: it does what the leader of its trial orders, and decides nothing itself"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from trainers.model.base import Base
from trainers.protocol.files import TrialPaths
from trainers.protocol.trial_spec import TrialSpec
from trainers.training.checkpoint import Checkpoints
from trainers.training.ranks import Ranks
from trainers.training.trainer import Trainer


def follow(base: Base, spec: TrialSpec, tokens_dir: Path, ranks: Ranks) -> NoReturn:
    """Begin as the leader does, and follow it without end: whoever has forked this process ends it."""
    trainer = Trainer(base, spec, tokens_dir, ranks)
    Checkpoints(TrialPaths(Path(spec.dir))).load(trainer)
    trainer.synchronize()
    while True:
        trainer.obey(*ranks.next_order())
