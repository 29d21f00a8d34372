"""How long promotions take: as long as the home's last one of the same base, else by the size of the base."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from hpo.trials.context import SweepContext
from trainers.protocol.codec import from_file, to_file
from trainers.protocol.files import write_atomically

_LEAST_S = 15.0
_PER_MILLION_S = 1.0
"""For each million parameters of the base: on two cores all-MiniLM-L6-v2 (23 M) takes 30 s, SmolLM2 (135 M) 170 s."""


@dataclass(frozen=True)
class PromotionTime:
    """How long the last promotion of a base took."""

    seconds: float


def promotion_seconds(sweep: SweepContext) -> float:
    """About how long it takes to export, measure and register a champion of this sweep; 0 where none is released."""
    if sweep.config.promote is None:
        return 0.0
    try:
        return from_file(PromotionTime, _note(sweep).read_text(encoding="utf-8")).seconds
    except (OSError, ValueError):  # there is none yet, or it is damaged: it is an estimate in either case
        return _LEAST_S + _PER_MILLION_S * _parameters(sweep.inspection.model_dir) / 1e6


def note_promotion(sweep: SweepContext, seconds: float) -> None:
    """Keep it for the next sweep on this base."""
    path = _note(sweep)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_file(PromotionTime(seconds)))


def _note(sweep: SweepContext) -> Path:
    assert sweep.config.promote is not None  # noqa: S101  # the caller promotes
    return sweep.home.promotion_time(sweep.inspection.model_fingerprint, sweep.config.promote.target)


def _parameters(folder: str) -> int:
    """Of a base model's folder, by the headers of its files; 0 where there is none on this disk."""
    return sum(_parameters_of(file) for file in Path(folder).glob("*.safetensors")) if folder else 0


def _parameters_of(file: Path) -> int:
    with file.open("rb") as content:
        header = json.loads(content.read(int.from_bytes(content.read(8), "little")) or "{}")
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
