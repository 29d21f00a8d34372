"""What is shown of a sweep while it runs: the seam between what happens and who shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from hpo.results.time_left import NOTHING, Ahead
from trainers.protocol.events import TrialResult
from trainers.protocol.settings import Setting

SecondsLeft = Callable[[], float | None]
"""Until a bound ends something; None where there is none."""


class ProgressView(Protocol):
    """Shows what happens in a sweep, and decides nothing."""

    def say(self, text: str) -> None:
        """Show a text, on one or several lines."""

    def begin(
        self, planned: int, finished: int, metric: str, jobs: int, best: float | None = None, ahead: Ahead = NOTHING,
        budget_s: SecondsLeft = lambda: None,
    ) -> None:  # fmt: skip
        """Show that trials start: `planned` in all, `finished` before this session, `best` as the best value so far.

        `ahead` comes after them. `budget_s` is asked for the seconds until the budget ends them.
        """

    def begin_repeats(self, contestants: int, seeds: int, metric: str) -> None:
        """Show that finalists are trained again, each with at most so many seeds."""

    def race_stands(self, seed: int, contestants: int, trainings: int) -> None:
        """Show how far their race is: so many contestants are still in, and so many of their trainings with this seed
        (the first one is 1) have no result yet."""

    def begin_promotion(self, seconds: float) -> None:
        """Show of what is done from here on that it takes about so long in all."""

    def repeat_started(self, number: int, label: str, params: Mapping[str, Setting]) -> None:
        """Show that a repeat has started; `label` says which: `3 with seed 0`. `step`, `evaluated` have its number."""

    def repeat_finished(self, number: int, result: TrialResult) -> None:
        """Show the result of a repeat."""

    def doing(self, text: str) -> AbstractContextManager[None]:
        """Show for how long something goes on."""

    def trial_started(self, number: int, params: Mapping[str, Setting]) -> None:
        """Show that a trial has started with these searched settings."""

    def resumed(self, number: int, step: int) -> None:
        """Show that a trial continues from its checkpoint of a step."""

    def step(self, number: int, fraction: float, loss: float | None, seconds: float = 0.0) -> None:
        """Show a step; `fraction` (0 to 1) of the budget is spent, after `seconds` of training in all sessions."""

    def evaluated(self, number: int, fraction: float, value: float) -> None:
        """Show the objective's value after an evaluation."""

    def trial_finished(self, number: int, result: TrialResult, finished: int, *, is_best: bool) -> None:
        """Show the result of a trial; `finished` counts all finished trials, `is_best` says whether it leads."""

    def trial_paused(self, number: int) -> None:
        """Show that a trial, or a repeat, was interrupted: a later session continues it."""

    def trial_goes_on(self, number: int, champion: int, finished: int) -> None:
        """Show that a stopped trial goes on, because it was within noise of `champion`; `finished` trials are left."""

    def tick(self) -> None:
        """Note that nothing has happened for a while."""

    def end(self) -> None:
        """Close the view of the trials: none is running any more."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], joinable: int = 0) -> None:
        """Show a table, one cell per column; on too narrow a terminal its last `joinable` columns are one."""


class Silent(ProgressView):
    """Shows nothing: for tests and for use from Python."""

    def say(self, text: str) -> None: ...
    def begin(
        self, planned: int, finished: int, metric: str, jobs: int, best: float | None = None, ahead: Ahead = NOTHING,
        budget_s: SecondsLeft = lambda: None,
    ) -> None: ...  # fmt: skip
    def begin_repeats(self, contestants: int, seeds: int, metric: str) -> None: ...
    def race_stands(self, seed: int, contestants: int, trainings: int) -> None: ...
    def begin_promotion(self, seconds: float) -> None: ...
    def repeat_started(self, number: int, label: str, params: Mapping[str, Setting]) -> None: ...
    def repeat_finished(self, number: int, result: TrialResult) -> None: ...
    def doing(self, text: str) -> AbstractContextManager[None]:
        self.say(text)
        return nullcontext()

    def trial_started(self, number: int, params: Mapping[str, Setting]) -> None: ...
    def resumed(self, number: int, step: int) -> None: ...
    def step(self, number: int, fraction: float, loss: float | None, seconds: float = 0.0) -> None: ...
    def evaluated(self, number: int, fraction: float, value: float) -> None: ...
    def trial_finished(self, number: int, result: TrialResult, finished: int, *, is_best: bool) -> None: ...
    def trial_paused(self, number: int) -> None: ...
    def trial_goes_on(self, number: int, champion: int, finished: int) -> None: ...
    def tick(self) -> None: ...
    def end(self) -> None: ...
    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], joinable: int = 0) -> None: ...
