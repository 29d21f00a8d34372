"""Measuring the ONNX variants of a champion: in turns with as many rows as needed, against each one on all rows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hpo.config.file import load_config
from hpo.config.objective import gate_of
from hpo.config.sweep_config import SweepConfig
from hpo.config.trial_specs import TrialSpecs
from hpo.demo.fetch import fetch
from hpo.executors.local import LocalExecutor
from hpo.paths import Home
from hpo.release.gates import apply_gate
from hpo.trials.calls import run_alone
from tests.bench.tables import Row
from trainers.protocol.catalog import TASKS
from trainers.protocol.events import TERMINAL, Evaluation, PreparedData, Trained, TrialEvent
from trainers.protocol.exported import Exported
from trainers.protocol.measured import AllJudged, Measurement
from trainers.protocol.requests import Export, Gate, Inspect, Measure, MeasureAll, Train
from trainers.protocol.trial_spec import TrialSpec

ROOT = Path(__file__).parents[2]
SWEEPS = {
    "smollm2-chat": ("SmolLM2-135M-Instruct", "chitchat"),
    "movie-sentiment": ("all-MiniLM-L6-v2", "vader-movie"),
}
EXAMPLES = 64
"""Of the training: enough for an adapter that is not nothing."""
DROPS = (0.01, 0.05)
ROWS = "validation_size: 256"
"""The chat sweep has 32 rows, with which there is nothing to save."""


@dataclass(frozen=True)
class Promotable:
    """A trained trial of a sweep with its exported variants; `executor` answers requests while it is open."""

    executor: LocalExecutor
    config: SweepConfig
    spec: TrialSpec
    data: PreparedData
    exported: Exported
    out: Path
    """The folder with a release of each variant."""

    @property
    def validation(self) -> Path:
        return Path(self.data.tokens_dir) / "validation.jsonl"


@contextmanager
def promotable(name: str, folder: Path, examples: int) -> Iterator[Promotable]:
    """The baseline of a sweep file, trained on so many examples and exported below `folder`."""
    for asset in SWEEPS[name]:
        fetch(asset, ROOT / "mlruns", say=print)
    home = Home(ROOT / "mlruns")
    file = folder / f"{name}.yaml"
    file.write_text((ROOT / f"search_spaces/{name}.yaml").read_text().replace("validation_size: 32", ROWS))
    config = load_config(file, home)
    executor = LocalExecutor(folder / "host.log")
    try:
        data = run_alone(executor, Inspect(config.workload(home)))
        assert isinstance(data, PreparedData)
        paths = Home(folder).sweep("bench").trial(0)
        whole = TrialSpecs(config, home, data).spec(0, config.baseline(), paths)
        settings = {**whole.settings, "evaluations": 1}
        spec = replace(whole, settings=settings, max_examples=examples, largest_budget_examples=examples)
        train(executor, Train((spec,), data))
        out = folder / "out"
        exported = run_alone(executor, Export(spec, data, list(TASKS[config.task].variants["cpu"]), str(out)))
        assert isinstance(exported, Exported)
        yield Promotable(executor, config, spec, data, exported, out)
    finally:
        executor.close()


def rows() -> list[Row]:
    found = []
    for name in SWEEPS:
        with tempfile.TemporaryDirectory() as folder, promotable(name, Path(folder), EXAMPLES) as given:
            found += _verdicts(name, given)
    return found


def _verdicts(name: str, given: Promotable) -> list[Row]:
    gate = gate_of(given.config.task, given.config.objective)
    place = (str(given.out), str(given.validation), 2)
    began, alone = time.perf_counter(), []
    for variant in given.exported.variants:
        measured = run_alone(given.executor, Measure(variant, *place))
        assert isinstance(measured, Measurement)
        alone.append(measured)
    seconds = time.perf_counter() - began
    lines = []
    for drop in DROPS:
        began = time.perf_counter()
        wanted = Gate(gate.metric, gate.direction, drop)
        judged = run_alone(given.executor, MeasureAll(given.exported.variants, *place, wanted))
        took = time.perf_counter() - began
        assert isinstance(judged, AllJudged)
        assert not judged.failures
        on_all = {v.variant: v for v in apply_gate(given.exported.metrics, alone, {}, gate, drop)}
        lines.append(Row(f"{name}, max_drop {drop}: seconds, against all rows", f"{took:.0f} of {seconds:.0f}"))
        for one in judged.judged:
            m = one.measurement
            verdict = "not needed" if one.slower_than else "passed" if one.passed else "refused"
            same = "same" if one.slower_than or one.passed == on_all[m.variant].passed else "OTHER"
            lines.append(Row(f"  {m.variant}: {verdict} at {one.drop:+.4f} (all: {on_all[m.variant].drop:+.4f})",
                             f"{m.rows or judged.count} of {judged.count}, {same}"))  # fmt: skip
    return lines


def train(executor: LocalExecutor, request: Train) -> None:
    """Run a training to its end."""
    request_id = executor.submit(request)
    while not isinstance(event := (executor.wait() or (0, None))[1], TERMINAL):
        if isinstance(event, TrialEvent) and isinstance(event.report, Evaluation):
            executor.reply(request_id, event.trial, "go")
    assert isinstance(event, Trained), event
