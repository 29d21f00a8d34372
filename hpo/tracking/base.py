"""What a sweep needs of whatever keeps its runs: MLflow, MLflow and TensorBoard, or nothing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpo.results.records import TrialRecord
from trainers.protocol.events import Evaluation, Step, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.trial_spec import TrialSpec

if TYPE_CHECKING:
    from hpo.report.facts import ReportFacts  # late where it is used: its libraries would delay the first step


class RunTracker(Protocol):
    """One run for the sweep, one for each trial and each repeat of a finalist, all known by the trial's number."""

    def start_trial(self, spec: TrialSpec, record: TrialRecord, *, is_baseline: bool) -> str:
        """The id of the trial's run: a new one, or the one that an earlier session began."""
        ...

    def start_repeat(self, spec: TrialSpec, trial: int, repeat: int) -> str:
        """The same for a repeat of `trial`; its numbers go under `spec.number`."""
        ...

    def step(self, number: int, step: Step) -> None:
        """Record loss and learning rate of a step."""
        ...

    def evaluation(self, number: int, evaluation: Evaluation) -> None:
        """Record the metrics of an evaluation, over the training examples seen."""
        ...

    def finish_trial(self, number: int, result: TrialResult, paths: TrialPaths) -> None:
        """Record how a trial ended, with its files, and close its run."""
        ...

    def pause_trial(self, number: int) -> None:
        """Close the run of a trial that the next session resumes."""
        ...

    def best_so_far(self, finished: int, value: float) -> None:
        """Record the best value after `finished` trials, in the sweep's run."""
        ...

    def gone(self, run_ids: Collection[str]) -> set[str]:
        """Those of `run_ids` that were deleted for good."""
        ...

    def artifact(self, name: str, text: str) -> None:
        """Put a text beside the sweep's run."""
        ...

    def artifacts(self, folder: Path) -> None:
        """Put the files of a folder beside the sweep's run."""
        ...

    def finish_sweep(self, facts: ReportFacts) -> None:
        """Record the champion and all that a report says, and close the sweep's run."""
        ...

    def abandon(self, status: str) -> None:
        """End every run that is still open with this status of MLflow's."""
        ...


class Untracked(RunTracker):
    """Keeps nothing: for tests and benchmarks."""

    def start_trial(self, spec: TrialSpec, record: TrialRecord, *, is_baseline: bool) -> str:
        """No id."""
        return ""

    def start_repeat(self, spec: TrialSpec, trial: int, repeat: int) -> str:
        """No id."""
        return ""

    def step(self, number: int, step: Step) -> None: ...
    def evaluation(self, number: int, evaluation: Evaluation) -> None: ...
    def finish_trial(self, number: int, result: TrialResult, paths: TrialPaths) -> None: ...
    def pause_trial(self, number: int) -> None: ...
    def best_so_far(self, finished: int, value: float) -> None: ...

    def gone(self, run_ids: Collection[str]) -> set[str]:
        """No run, because none was kept."""
        return set()

    def artifact(self, name: str, text: str) -> None: ...
    def artifacts(self, folder: Path) -> None: ...
    def finish_sweep(self, facts: ReportFacts) -> None: ...
    def abandon(self, status: str) -> None: ...
