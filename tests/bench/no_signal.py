"""Sweeps on labels that were drawn at random, with real tiny models: how many end with "better than the baseline".

Each is a search with pruning, and finals with either claim on it, as `hpo sweep` runs them; in this process, and
without MLflow. The objective is accuracy, by which nothing can be better than one half. (By macro-F1 something can: who
answers with both labels, by chance, has 0.50, and who knows only one of them 0.33.)
"""

from __future__ import annotations

import dataclasses
import gc
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hpo.commands.sweep import search
from hpo.config.budget import Meter, Spent
from hpo.config.file import load_config
from hpo.config.finalists import Claim, Finalists
from hpo.config.trial_specs import TrialSpecs
from hpo.executors.inline import InlineExecutor
from hpo.paths import Home
from hpo.progress_view import Silent
from hpo.search.finalists import run_finalists
from hpo.study.store import open_study
from hpo.tracking.base import Untracked
from hpo.trials.calls import run_alone
from hpo.trials.context import SweepContext
from hpo.trials.slots import Slots
from tests.bench.tables import Row
from tests.conftest import reviews, write_jsonl
from tests.trainers.families import build
from trainers.host.dispatch import work
from trainers.protocol.events import PreparedData
from trainers.protocol.requests import Inspect, Load

CLAIMS: tuple[Claim, ...] = ("recipe", "adapter")
TOP, SEEDS = 2, 3
POINTS = 6
ROWS = {"train": 160, "validation": 400, "test": 40}
BOUND = 20
"""One of so many sweeps may end wrongly."""
CONTROLS = 5


@dataclasses.dataclass
class Counted:
    """Sweeps that have ended."""

    better: Counter[Claim] = dataclasses.field(default_factory=Counter)
    """Claim -> how many ended with `better than the baseline`."""
    seconds: list[float] = dataclasses.field(default_factory=list)


def rows(sweeps: int) -> list[Row]:
    """So many sweeps without signal, and a few with one, which show that the finals see it where there is one."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        build("bert", folder / "model")
        without = counted(folder / "without", folder / "model", sweeps, has_signal=False)
        control = counted(folder / "with", folder / "model", CONTROLS, has_signal=True)
    found = []
    for claim in CLAIMS:
        wrong, seen = f"{without.better[claim]} of {sweeps}", f"{control.better[claim]} of {CONTROLS}"
        found += [
            Row(f"'better than the baseline', claim: {claim}: no signal", wrong, f"{max(1, sweeps // BOUND)}"),
            Row("  the same with a signal", seen),
        ]
    return [*found, Row("a sweep with both finals, median", f"{statistics.median(without.seconds):.1f} s")]


def counted(folder: Path, model: Path, sweeps: int, *, has_signal: bool) -> Counted:
    """So many sweeps, each with a seed and rows of its own."""
    found = Counted()
    for seed in range(sweeps):
        began = time.perf_counter()
        sweep = searched(folder / str(seed), model, seed, has_signal=has_signal)
        for claim in CLAIMS:
            found.better[claim] += claims_better(sweep, claim)
        sweep.study.close()
        found.seconds.append(time.perf_counter() - began)
    return found


def searched(folder: Path, model: Path, seed: int, *, has_signal: bool) -> SweepContext:
    """A sweep whose search is over."""
    home = Home(folder / "home")
    home.dir.mkdir(parents=True)
    config = load_config(write_sweep(folder, model, seed, has_signal=has_signal), home)
    executor, workload = InlineExecutor(work), config.workload(home)
    inspection = run_alone(executor, Inspect(workload))
    assert isinstance(inspection, PreparedData)
    run_alone(executor, Load(workload, inspection))
    gc.freeze()  # the host collects before each trial; here it would look through all of torch each time
    specs = TrialSpecs(config, home, inspection)
    study = open_study(config, specs.fingerprint, None)
    meter = Meter(config.budget, Spent(), time.time)
    sweep = SweepContext(specs, study, Untracked(), executor, Silent(), Slots(1, 1), meter)
    search(sweep)
    return sweep


def claims_better(sweep: SweepContext, claim: Claim) -> bool:
    """Whether the finals end with `better than the baseline`."""
    config = dataclasses.replace(sweep.config, finalists=Finalists(TOP, SEEDS, claim))
    run_finalists(dataclasses.replace(sweep, specs=dataclasses.replace(sweep.specs, config=config)))
    outcome = sweep.study.state.finalists
    assert outcome is not None
    assert outcome.champion is not None
    lead = outcome.against_baseline
    return lead is not None and lead.is_beyond_noise and lead.difference > 0


def write_sweep(folder: Path, model: Path, seed: int, *, has_signal: bool) -> Path:
    """Texts whose label can be read off their words; without a signal the labels are dealt out anew."""
    found = reviews(sum(ROWS.values()), seed)
    labels = [row["label"] for row in found]
    if not has_signal:
        random.Random(seed).shuffle(labels)
    write_jsonl(
        folder / "rows.jsonl",
        [{"text": f"{row['text']} {i}", "label": y} for i, (row, y) in enumerate(zip(found, labels, strict=True))],
    )
    config: dict[str, Any] = {
        "name": "no-signal",
        "task": "text-classification",
        "model": str(model),
        "data": {"train": "rows.jsonl", "validation_size": ROWS["validation"], "test_size": ROWS["test"]},
        "objective": {"metric": "accuracy"},
        "seed": seed,
        "search_strategy": {"type": "random", "num_trials": POINTS},
        "search_space": {
            "learning_rate": {"type": "float", "low": 1e-3, "high": 3e-2, "log": True},
            "lora_r": {"type": "int", "low": 4, "high": 16},
        },
        "training": {"max_examples": ROWS["train"], "evaluations": 2, "max_length": 32, "precision": "fp32"},
        "finalists": {"top": TOP, "seeds": SEEDS},
        "promote": False,
    }
    path = folder / "no-signal.yaml"
    path.write_text(json.dumps(config))
    return path
