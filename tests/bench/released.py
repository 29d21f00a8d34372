"""Releases to measure: a demo sweep's model after a few steps, in the variants asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hpo.config.file import load_config
from hpo.config.trial_specs import TrialSpecs
from hpo.demo.fetch import fetch
from hpo.executors.local import LocalExecutor
from hpo.paths import Home
from hpo.trials.calls import run_alone
from tests.bench.promotion import train
from trainers.protocol.events import PreparedData
from trainers.protocol.exported import BundleExported, Exported
from trainers.protocol.requests import BundledTrial, Export, ExportBundle, Inspect, Train
from trainers.protocol.trial_spec import TrialSpec

ROOT = Path(__file__).parents[2]
ASSETS = {
    "smollm2-chat": ("SmolLM2-135M-Instruct", "chitchat"),
    "movie-sentiment": ("all-MiniLM-L6-v2", "vader-movie"),
}
_EXAMPLES = 16
"""Of the training: enough for an adapter that is not nothing. How fast a graph is does not depend on it, and a chat
model that has learned little still writes long answers."""
_VALIDATION_ROWS = {"smollm2-chat": 16, "movie-sentiment": 96}
"""Each training and each export reads all of them."""


def release_of(sweep: str, variant: str, folder: Path, home: Home) -> Path:
    """The release folder of a variant. Raises `RuntimeError` where training or export fails."""
    with _trained(sweep, 1, folder, home) as (executor, data, (spec,)):
        return _merged(executor, data, spec, variant, folder / sweep)


def bundle_of(sweep: str, adapters: int, folder: Path, home: Home) -> tuple[Path, Path, Path]:
    """A bundle of adapters that differ by their seeds, the first one merged, and the validation rows.

    Raises `RuntimeError` where training or export fails.
    """
    with _trained(sweep, adapters, folder, home) as (executor, data, specs):
        trials = tuple(BundledTrial(f"seed-{spec.number}", spec, data) for spec in specs)
        made = run_alone(executor, ExportBundle(trials, str(folder / "bundle")))
        assert isinstance(made, BundleExported), made
        assert not made.failures, made.failures
        merged = _merged(executor, data, specs[0], "fp32", folder / sweep)
    return folder / "bundle", merged, Path(data.tokens_dir) / "validation.jsonl"


@contextmanager
def _trained(
    sweep: str, trials: int, folder: Path, home: Home
) -> Iterator[tuple[LocalExecutor, PreparedData, list[TrialSpec]]]:  # fmt: skip
    """Trials of a sweep's baseline, each with another seed, and an executor that still runs."""
    for asset in ASSETS[sweep]:
        fetch(asset, home.dir, say=print)
    config = load_config(ROOT / f"search_spaces/{sweep}.yaml", home)
    config = replace(config, data=replace(config.data, validation_size=_VALIDATION_ROWS[sweep]))
    executor = LocalExecutor(folder / "host.log")
    try:
        data = run_alone(executor, Inspect(config.workload(home)))
        assert isinstance(data, PreparedData), data
        specs, paths = [], Home(folder).sweep(sweep)
        for number in range(trials):
            made = TrialSpecs(config, home, data).spec(number, config.baseline(), paths.trial(number), seed=number)
            settings = {**made.settings, "evaluations": 1}
            specs.append(replace(made, settings=settings, max_examples=_EXAMPLES, largest_budget_examples=_EXAMPLES))
            train(executor, Train((specs[-1],), data))
        yield executor, data, specs
    finally:
        executor.close()


def _merged(executor: LocalExecutor, data: PreparedData, spec: TrialSpec, variant: str, folder: Path) -> Path:
    needed = list(dict.fromkeys(["fp32", variant]))  # every other variant is made of the fp32 graph
    exported = run_alone(executor, Export(spec, data, needed, str(folder)))
    assert isinstance(exported, Exported), exported
    if variant not in exported.variants:
        raise RuntimeError(f"{variant} of {folder.name} was not made: {exported.failures}")
    return folder / variant
