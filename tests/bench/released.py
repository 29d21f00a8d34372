"""Releases to measure: a demo sweep's model after a few steps, in the variants asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpo.config.file import load_config
from hpo.config.trial_specs import TrialSpecs
from hpo.demo.fetch import fetch
from hpo.executors.local import LocalExecutor
from hpo.paths import Home
from hpo.trials.calls import run_alone
from tests.bench.promotion import train
from trainers.protocol.events import Exported, PreparedData
from trainers.protocol.requests import Export, Inspect, Train

ROOT = Path(__file__).parents[2]
ASSETS = {
    "smollm2-chat": ("SmolLM2-135M-Instruct", "chitchat"),
    "movie-sentiment": ("all-MiniLM-L6-v2", "vader-movie"),
}
_EXAMPLES = 64
"""Of the training: enough for an adapter that is not nothing. How fast a graph is does not depend on it."""


def release_of(sweep: str, variant: str, folder: Path, home: Home) -> Path:
    """The release folder of a variant. Raises `RuntimeError` where training or export fails."""
    for asset in ASSETS[sweep]:
        fetch(asset, home.dir, say=print)
    config = load_config(ROOT / f"search_spaces/{sweep}.yaml", home)
    executor = LocalExecutor(folder / "host.log")
    try:
        data = run_alone(executor, Inspect(config.workload(home)))
        assert isinstance(data, PreparedData), data
        whole = TrialSpecs(config, home, data).spec(0, config.baseline(), Home(folder).sweep(sweep).trial(0))
        settings = {**whole.settings, "evaluations": 1}
        spec = replace(whole, settings=settings, max_examples=_EXAMPLES, largest_budget_examples=_EXAMPLES)
        train(executor, Train((spec,), data))
        exported = run_alone(executor, Export(spec, data, [variant], str(folder / sweep)))
        assert isinstance(exported, Exported), exported
    finally:
        executor.close()
    return folder / sweep / variant
