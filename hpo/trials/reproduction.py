"""Whether a training that was repeated gave what the first one gave: equal bits, a value within a bound, or neither."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hpo.executors.base import Fetch
from hpo.executors.environment import Difference, Environment
from hpo.results.gaps import Scores, gap, scores
from hpo.trials.recorded_run import RecordedRun
from hpo.trials.trial_files import rows_of_result
from trainers.metrics.table import Rows, row_results
from trainers.protocol.events import TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.trial_spec import TrialSpec

Outcome = Literal["equal", "within", "different"]
LAST_DIGITS = 1e-4
"""A difference of so small a share of the value is rounding, whatever the rows say."""


@dataclass(frozen=True)
class Bound:
    """The largest difference that still counts as the same result."""

    value: float
    of: str
    """What it is, in words."""
    rows: int
    changed: int | None
    """Rows with another result; None where the first training's rows are gone."""


@dataclass(frozen=True)
class Reproduction:
    """A training and its repetition, compared."""

    run: str
    outcome: Outcome
    metric: str
    recorded: float
    reproduced: float
    weights: Literal["equal", "different", "unknown"]
    """`unknown` where neither a hash nor the adapter of the first training is there."""
    bound: Bound | None
    """None where all bits are equal."""
    differences: list[Difference]
    """In what machine, packages and settings are not as they were."""
    notes: list[str]
    seconds: float
    """That the repetition took."""

    def to_json(self) -> dict[str, Any]:
        """As `hpo reproduce --json` prints it."""
        return {**dataclasses.asdict(self), "differences": [d._asdict() for d in self.differences]}


def compare(
    run: RecordedRun, again: TrialResult, spec: TrialSpec, paths: TrialPaths, here: Environment, notes: list[str],
    fetch: Fetch,
) -> Reproduction:  # fmt: skip
    """Compare a run with its repetition of `spec`, whose files lie in `paths`, on this machine."""
    weights: Literal["equal", "different", "unknown"] = "unknown"
    if run.weights and again.adapter_sha256:
        weights = "equal" if run.weights == again.adapter_sha256 else "different"
    recorded, reproduced = run.result.value or 0.0, again.value or 0.0
    bound: Bound | None = None
    outcome: Outcome = "equal"
    if weights != "equal" or recorded != reproduced:
        bound = _bound(run, again, paths, fetch)
        outcome = "within" if abs(reproduced - recorded) <= bound.value else "different"
    changed, notes = differences(run, spec, here), [*run.notes, *notes]
    if outcome != "equal" and run.environment is None:
        notes = [*notes, "machine and packages of the run were not recorded: an earlier hpo trained it"]
    if run.environment and run.environment.is_mixed:
        notes = [*notes, "a part of the run was trained in another environment, or with other threads"]
    return Reproduction(
        run.name, outcome, spec.metric, recorded, reproduced, weights, bound, changed, notes, again.seconds
    )


def differences(run: RecordedRun, spec: TrialSpec, here: Environment) -> list[Difference]:
    """In what a repetition with `spec` on this machine is not as the run was."""
    kinds = [",".join(device.partition(":")[0] for device in each.devices) for each in (run.spec, spec)]
    precisions = [each.workload.arithmetic for each in (run.spec, spec)]
    settings = [
        Difference("threads", str(run.spec.threads), str(spec.threads)),
        Difference("device", *kinds),
        Difference("precision", *precisions),
    ]
    found = run.environment.differences(here) if run.environment else []
    return [*(d for d in settings if d.was != d.now), *found]


def _bound(run: RecordedRun, again: TrialResult, paths: TrialPaths, fetch: Fetch) -> Bound:
    """Two standard errors of the paired difference; the metric's own standard error where the run's rows are gone."""
    value_of = _metric_of(run)
    rows = rows_of_result(paths, again, fetch)
    second = scores(rows, value_of)
    least = LAST_DIGITS * abs(run.result.value or 0.0)
    try:
        earlier = rows_of_result(run.paths, run.result, fetch)
    except FileNotFoundError:
        nothing = Scores(0.0, np.zeros_like(second.without))
        error = math.sqrt(gap([second], [nothing], None).row_variance)
        what = (
            f"the standard error of {run.spec.metric} over {len(rows):,} rows; the run's own results of them are gone"
        )
        return Bound(max(least, _finite(error)), what, len(rows), None)
    is_same = np.isclose(rows, earlier, rtol=0, atol=0, equal_nan=True)  # a row without a generated answer has NaN
    changed = int((~is_same).any(axis=1).sum())
    error = 2 * math.sqrt(gap([second], [scores(earlier, value_of)], None).row_variance)
    what = f"two standard errors of the difference on the same {len(rows):,} rows"
    if error < least:
        what = f"{LAST_DIGITS:.2%} of the value"
    return Bound(max(least, _finite(error)), what, len(rows), changed)


def _metric_of(run: RecordedRun) -> Callable[[Rows], float]:
    workload = run.spec.workload
    metrics = row_results(workload.task, workload.metrics).metrics
    return lambda rows: metrics(rows, run.prepared.labels)[run.spec.metric]


def _finite(error: float) -> float:
    """Of one row nothing is known: then only rounding counts as the same."""
    return error if math.isfinite(error) else 0.0
