"""`hpo reproduce`: a recorded run is trained again, and compared with what was recorded; nothing else is written."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from hpo.commands.find_run import find_run
from hpo.commands.preflight import WORKER, explained_by_log
from hpo.errors import ConfigError, GateRefused
from hpo.executors.base import Executor
from hpo.executors.environment import environment_here
from hpo.executors.local import LocalExecutor
from hpo.paths import Home
from hpo.progress_view import ProgressView
from hpo.signals import terminate_as_interrupt
from hpo.trials.calls import run_alone
from hpo.trials.recorded_run import RecordedRun
from hpo.trials.reproduction import Reproduction, compare
from hpo.trials.slots import first_devices
from hpo.trials.train_again import train_again
from trainers.protocol.counted import counted
from trainers.protocol.events import PreparedData
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Inspect, Load
from trainers.protocol.trial_spec import TrialSpec


def reproduce(home: Home, given: str, threads: int | None, view: ProgressView, worker: str = WORKER) -> Reproduction:
    """Train a recorded run again in a folder of its own, and compare it with the record.

    Raises `UsageError` for a run that is none, and `ConfigError` where data, base model or code are not those of the
    run: then nothing is trained.
    """
    run = find_run(home, given)
    with tempfile.TemporaryDirectory(prefix="hpo-reproduce-") as scratch, terminate_as_interrupt():
        log = Path(scratch, "host.log")
        paths = TrialPaths(Path(scratch, "run"))
        spec = run.spec_here(home, Path(scratch, "cache"), paths.dir)
        executor = LocalExecutor(log, worker)
        try:
            view.say(f"{run.name}: reading data and base model")
            with explained_by_log("reading data and base model", log):
                prepared = _inspected(executor, run, spec)
            devices = spec.devices if "cpu" in spec.devices else first_devices(prepared, len(spec.devices))
            spec = dataclasses.replace(spec, devices=devices, threads=threads or spec.threads)
            with explained_by_log("training", log):
                run_alone(executor, Load(spec.workload, prepared))
                again, notes = train_again(executor, run, spec, prepared, view)
            here = environment_here(prepared.gpu_names)
            return compare(run, again, spec, paths, here, notes, executor.fetch)
        finally:
            view.end()
            executor.close()


def raise_difference(found: Reproduction) -> None:
    """Raises `GateRefused` where the repetition is another result."""
    if found.outcome == "different":
        raise GateRefused(f"{found.run} was not reproduced: {_values(found)}")


def _inspected(executor: Executor, run: RecordedRun, spec: TrialSpec) -> PreparedData:
    """Data and model as they are today. Raises `ConfigError` with everything that is not as it was."""
    prepared = run_alone(executor, Inspect(spec.workload))
    assert isinstance(prepared, PreparedData)  # noqa: S101  # the protocol's answer to Inspect
    if changed := run.changed_inputs(prepared, spec):
        raise ConfigError(changed)
    return prepared


def show_reproduction(view: ProgressView, found: Reproduction) -> None:
    """Whether the run was reproduced, by which measure, and what is not as it was."""
    word = {"equal": "reproduced, bit for bit", "within": "reproduced within bounds", "different": "NOT reproduced"}
    view.say(f"{found.run}: {word[found.outcome]}")
    view.say(f"  {_values(found)}")
    weights = {"equal": "the same, bit for bit", "different": "other bits", "unknown": "not kept, so not compared"}
    view.say(f"  adapter: {weights[found.weights]}")
    for note in found.notes:
        view.say(f"  note: {note}")
    if found.differences:
        view.say("  not as it was:")
        for difference in found.differences:
            view.say(f"    {difference}")
    elif found.outcome != "equal":
        view.say("  everything else is as it was recorded")


def _values(found: Reproduction) -> str:
    """The two values, and by how much they may differ."""
    text = f"{found.metric} {found.reproduced:.4f}, recorded {found.recorded:.4f}"
    if found.bound is None:
        return text
    rows = "" if found.bound.changed is None else f"; {counted(found.bound.changed, 'row')} with another result"
    difference = found.reproduced - found.recorded
    side = "within" if found.outcome == "within" else "beyond"
    return f"{text}: {difference:+.2g}, {side} {found.bound.value:.2g} ({found.bound.of}{rows})"
