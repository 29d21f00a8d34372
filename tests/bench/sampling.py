"""How soon each strategy finds a good point: whole searches on simulated surfaces of fine-tuning, no model trained.

A surface is flat at its best learning rate and falls off on both sides, faster where it is too high, as the curves of
`pruning.py` do. The best learning rate rises with the batch size and falls a little with the rank, which itself matters
little. It is drawn about LoRA's default, anywhere in the range, or at least a factor of 5 away from the default.
Measured is by how much the true value of the point with the best (noisy) result is below the best there is.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from hpo.config.space import Point
from hpo.search.proposals import Proposals
from hpo.study.study import Study
from tests.bench.tables import Row
from tests.hpo.builders import make_config, trial_result
from trainers.protocol.codec import fingerprint

DEFAULT = math.log10(5e-4)
RANGE = (-5.0, -2.0)
"""Learning rates searched, as decades."""
PLACES = ("about the default", "anywhere", "away")
"""Where the best learning rate lies."""
TRIALS = (4, 8, 16, 24)
SURFACES = 40
NOISE = 0.01
NUMBERS: dict[str, Any] = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "lora_r": {"type": "int", "low": 4, "high": 64, "log": True},
    "batch_size": {"type": "choice", "values": [8, 16, 32]},
}
MIXED: dict[str, Any] = {
    **NUMBERS,
    "method": {"type": "choice", "values": ["lora", "rslora", "full"]},
    "lora_r": {**NUMBERS["lora_r"], "when": {"method": ["lora", "rslora"]}},
}
SPACES = {"numbers": NUMBERS, "with methods": MIXED}
SHIFT = {"lora": 0.0, "rslora": -0.4, "full": -1.0}
"""Decades by which a method's best learning rate lies off LoRA's."""


@dataclass(frozen=True)
class Surface:
    """The true values of one imagined task; numbers in decades are of learning rates."""

    best_rate: float
    by_batch: float
    by_rank: float
    too_low: float
    too_high: float
    of_rank: float
    of_batch: float

    def value(self, point: Mapping[str, Any]) -> float:
        batch, rank = point["batch_size"] / 16, point.get("lora_r", 64) / 8
        best = self.best_rate + self.by_batch * math.log10(batch) - self.by_rank * math.log10(rank)
        off = math.log10(point["learning_rate"]) - best - SHIFT[point.get("method", "lora")]
        width = self.too_low if off < 0 else self.too_high
        trained = 0.33 + 0.5 * math.exp(-0.5 * (off / width) ** 2)
        return trained + self.of_rank * math.log2(rank) / 4 + self.of_batch * math.log2(batch)

    def best(self, space: Mapping[str, Any]) -> float:
        return max(
            self.value({"learning_rate": 10**rate, "lora_r": rank, "batch_size": batch, "method": method})
            for rate in np.linspace(*RANGE, 150)
            for rank in (4, 8, 16, 32, 64)
            for batch in NUMBERS["batch_size"]["values"]
            for method in (space["method"]["values"] if "method" in space else ["lora"])
        )


def surface(where: str, rng: np.random.Generator) -> Surface:
    """`where` is one of `PLACES`."""
    best = rng.normal(DEFAULT, 0.3) if where == "about the default" else rng.uniform(*RANGE)
    while where == "away" and abs(best - DEFAULT) < 0.7:
        best = rng.uniform(*RANGE)
    return Surface(
        float(best), rng.uniform(0.2, 0.8), rng.uniform(0, 0.6), rng.uniform(0.5, 0.9), rng.uniform(0.25, 0.5),
        rng.uniform(0, 0.02), rng.normal(0, 0.01),
    )  # fmt: skip


def searched(folder: Path, strategy: str, space: Mapping[str, Any], task: Surface, seed: int) -> list[float]:
    """Of one search: after each trial, what is lacking to the best there is."""
    config = make_config(
        folder, name="bench", search_space=space, seed=seed, training={"learning_rate": 10**DEFAULT},
        search_strategy={"type": strategy, "num_trials": max(TRIALS)},
    )  # fmt: skip
    rng, best = np.random.default_rng(seed), task.best(space)
    study = Study(config, of_point, optuna.storages.InMemoryStorage())
    proposals = Proposals(config, study)
    lacking: list[float] = []
    chosen = -math.inf
    while begun := proposals.begin():
        number, point = begun
        true = task.value(point)
        result = true + float(rng.normal(0, NOISE))
        study.finish(number, trial_result("complete", result))
        lacking.append(best - true if result > chosen else lacking[-1])
        chosen = max(chosen, result)
    study.close()
    return lacking


def of_point(point: Point) -> str:
    return fingerprint(dict(point))


def rows(strategies: str | None = None) -> list[Row]:
    """`strategies` between commas; Optuna's Gaussian process takes half an hour, and is left out by default."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for title, space in SPACES.items():
            for place, where in enumerate(PLACES):
                found.append(Row(f"{title}, best learning rate {where}: lacking", _cells([f"{n}" for n in TRIALS])))
                tasks = [surface(where, np.random.default_rng([seed, place])) for seed in range(SURFACES)]
                for strategy in (strategies or "tpe,qmc,informed").split(","):
                    lacking = [searched(Path(scratch), strategy, space, t, seed) for seed, t in enumerate(tasks)]
                    means = np.array(lacking).mean(axis=0)
                    found.append(Row(f"  {strategy}", _cells([f"{means[n - 1]:.3f}" for n in TRIALS])))
    return found


def _cells(texts: list[str]) -> str:
    return " ".join(f"{text:>6}" for text in texts)
