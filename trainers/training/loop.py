"""The training loop: steps, evaluations at fixed shares of the budget, checkpoints, the best adapter kept.

A generator: it yields events and takes verdicts, so whoever drives it (a forked child, a test) decides when it goes
on. A verdict is waited for after each evaluation; after a `Step` it may say stop, finish or pause.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

from trainers.memory import peak_rss_mb
from trainers.model.base import Base
from trainers.protocol.events import PAUSED, Evaluation, Failed, Resumed, Step, TrialReport, TrialResult
from trainers.protocol.files import TrialPaths, weights_hash
from trainers.protocol.requests import STOPPED_BY, Verdict
from trainers.protocol.trial_spec import TrialSpec
from trainers.training.checkpoint import Checkpoints, Progress
from trainers.training.early_stopping import EarlyStopping
from trainers.training.evaluation import save_rows
from trainers.training.ranks import ALONE, Ranks
from trainers.training.trainer import Trainer

STEP_EVENT_EVERY_S = 0.5
SMOOTHING = 0.9
StoppedBy = Literal["budget", "early_stopping", "pruner", "trial_minutes"]


def train(
    base: Base, spec: TrialSpec, tokens_dir: Path, ranks: Ranks = ALONE
) -> Generator[TrialReport, Verdict | None, None]:
    """Train one trial, from its last checkpoint if it has one.

    Yields `Resumed` (only then), `Step`s, `Evaluation`s (each waits for a verdict) and a `TrialResult` or `Failed`.
    Where evaluations use some of the validation rows, a trial that was not pruned is evaluated on all of them at its
    end, as it was at its best evaluation. With several ranks, this one leads them.
    """
    trainer = Trainer(base, spec, tokens_dir, ranks)
    for line in trainer.shortcuts.log_lines():
        print(line, file=sys.stderr)  # a trial's log
    if trainer.is_sharded:
        print(f"frozen layers are spread over {ranks.count} devices", file=sys.stderr)
    trial = _Trial(trainer, Checkpoints(TrialPaths(Path(spec.dir))))
    trainer.synchronize()
    if trial.progress.step:
        judged = trial.progress.evaluations if trial.progress.is_judged else trial.progress.evaluations[:-1]
        yield Resumed(trial.progress.step, trial.progress.examples, judged)
    stopped_by: StoppedBy = "budget"
    for event in trial.run():
        verdict = yield event
        if isinstance(event, Failed):
            return
        if verdict == "pause":
            if isinstance(event, Step):  # at an evaluation the checkpoint is there already
                trial.save()
            yield PAUSED
            return
        if isinstance(event, Evaluation):
            trial.progress.is_judged = True
        if verdict in STOPPED_BY or (isinstance(event, Evaluation) and trial.stops_early(event)):
            stopped_by = STOPPED_BY.get(verdict, "early_stopping")
            break
    yield trial.result(stopped_by)


class _Trial:
    """A trial under way: where it stands, and what its own curve says."""

    def __init__(self, trainer: Trainer, checkpoints: Checkpoints) -> None:
        self.trainer = trainer
        self.spec = trainer.spec
        self._checkpoints = checkpoints
        self._paths = TrialPaths(Path(self.spec.dir))
        self.progress = checkpoints.load(trainer) or Progress()
        self._began = time.monotonic() - self.progress.seconds
        settings = self.spec.settings
        self.stopping = EarlyStopping(
            self.spec.direction,
            int(settings["early_stopping.patience"] or 1),
            float(settings["early_stopping.min_delta"] or 0),
        )
        self.best: Evaluation | None = None
        for evaluation in self.progress.evaluations:
            self._take(evaluation)

    def _take(self, evaluation: Evaluation) -> bool:
        """Count an evaluation; whether it is the best so far."""
        is_best = self.stopping.is_best(evaluation.metrics[self.spec.metric])
        self.best = evaluation if is_best else self.best
        return is_best

    def stops_early(self, evaluation: Evaluation) -> bool:
        """Whether the curve has stopped improving before the budget is spent."""
        return self.stopping.should_stop and evaluation.examples < self.spec.max_examples

    def run(self) -> Iterator[Step | Evaluation | Failed]:
        """All steps that are left, with evaluations at equal shares of the sweep's full budget and at the end."""
        progress = self.progress
        if not progress.is_judged:
            yield progress.evaluations[-1]
        elif progress.is_due:
            yield self._evaluate()
        last_event = 0.0
        for rows in itertools.islice(self.trainer.batches, progress.step, None):
            loss, tokens = self.trainer.step(rows)
            progress.step += 1
            progress.examples += len(rows)
            progress.tokens += tokens
            progress.loss_sum, progress.losses = progress.loss_sum + loss, progress.losses + 1
            progress.seconds = time.monotonic() - self._began
            if why := self._diverged(loss):
                yield Failed("diverged", f"{why} at step {progress.step}")
                return
            progress.is_due = self._evaluation_is_due(len(rows))
            is_time = progress.is_due or progress.step == 1 or progress.seconds - last_event > STEP_EVENT_EVERY_S
            if is_time or self._falls_on("logging_steps"):
                last_event = progress.seconds
                yield self._step_event()
            if progress.is_due:
                yield self._evaluate()
            elif self._falls_on("save_steps"):
                self.save()

    def _falls_on(self, setting: str) -> bool:
        """Whether this step is one of every so many."""
        every = self.spec.settings[setting]
        return every is not None and self.progress.step % int(every) == 0

    def _evaluation_is_due(self, new_examples: int) -> bool:
        """Whether the last `new_examples` crossed a share of the full budget, or were the trial's last."""
        count, full = int(self.spec.settings["evaluations"] or 1), self.spec.largest_budget_examples
        before = (self.progress.examples - new_examples) * count // full
        return self.progress.examples * count // full > before or self.progress.examples >= self.spec.max_examples

    def _diverged(self, loss: float) -> str | None:
        """Why training is beyond repair: a loss that is no number, or one far above where it began.

        Three times the first loss and one more: above what guessing at random costs, for classes (0.7 to begin with)
        and for tokens (4 to begin with, 11 at random) alike.
        """
        if not math.isfinite(loss):
            return f"loss is {loss}"
        progress = self.progress
        if progress.first_loss is None or progress.smoothed_loss is None:
            progress.first_loss = progress.smoothed_loss = loss
        progress.smoothed_loss = SMOOTHING * progress.smoothed_loss + (1 - SMOOTHING) * loss
        limit = 3 * progress.first_loss + 1
        if progress.smoothed_loss > limit:
            return f"loss rose from {progress.first_loss:.3g} to {progress.smoothed_loss:.3g}"
        return None

    def _step_event(self) -> Step:
        """The mean loss since the last one; between two points of the curve, a sign of life."""
        progress = self.progress
        if self.spec.settings["logging_steps"] is not None and not self._falls_on("logging_steps"):
            return Step(progress.step, progress.examples, None, self.trainer.learning_rate, progress.seconds)
        mean = progress.loss_sum / progress.losses
        progress.loss_sum, progress.losses = 0.0, 0
        return Step(progress.step, progress.examples, mean, self.trainer.learning_rate, progress.seconds)

    def _evaluate(self) -> Evaluation | Failed:
        """Evaluate, then write the checkpoint: nobody hears of an evaluation that a kill could undo."""
        progress = self.progress
        if not self.trainer.has_numbers():
            return Failed("diverged", f"a trained weight is no number at step {progress.step}")
        metrics, rows = self.trainer.evaluate()
        if why := self._without_numbers(metrics):
            return Failed("diverged", f"{why} at step {progress.step}")
        index = len(progress.evaluations)
        save_rows(rows, self._paths.rows(index))
        progress.seconds = time.monotonic() - self._began
        evaluation = Evaluation(
            index, self._fraction(), progress.step, progress.examples, progress.tokens,
            metrics, progress.seconds,
        )  # fmt: skip
        is_best = self._take(evaluation)
        progress.evaluations.append(evaluation)
        progress.is_judged, progress.is_due = False, False
        self._checkpoints.save(self.trainer, progress, is_best=is_best)
        return evaluation

    def _without_numbers(self, metrics: dict[str, float]) -> str | None:
        """Which of the objective and the loss is no number: a model without numbers still answers with some label."""
        wrong = [name for name in (self.spec.metric, "loss") if not math.isfinite(metrics[name])]
        return f"{wrong[0]} is {metrics[wrong[0]]}" if wrong else None

    def _fraction(self) -> float:
        """The share of the full budget spent: at a share where all trials are compared, exactly that."""
        count, full = int(self.spec.settings["evaluations"] or 1), self.spec.largest_budget_examples
        return (
            self.progress.examples / full
            if self.progress.examples >= self.spec.max_examples
            else self.progress.examples * count // full / count
        )

    def save(self) -> None:
        """A checkpoint between two evaluations."""
        self._checkpoints.save(self.trainer, self.progress, is_best=False)

    def _on_all_rows(self, best: Evaluation) -> dict[str, float]:
        """Metrics of the best adapter on all validation rows, whose per-row results are kept too."""
        if best.step != self.progress.step:
            self._checkpoints.load_best(self.trainer)
        metrics, rows = self.trainer.evaluate_all()
        save_rows(rows, self._paths.all_rows)
        return metrics

    def result(self, stopped_by: StoppedBy) -> TrialReport:
        """How it ended, with the best adapter in its final place."""
        if self.best is None:
            return Failed("timeout", "stopped before its first evaluation")
        metrics = self.best.metrics
        if self.trainer.evaluates_some and stopped_by != "pruner":
            metrics = self._on_all_rows(self.best)
            if why := self._without_numbers(metrics):
                return Failed("diverged", f"{why} on all validation rows")
        self._checkpoints.keep_best()
        return TrialResult(
            state="pruned" if stopped_by == "pruner" else "complete",
            value=metrics[self.spec.metric],
            metrics=metrics,
            best_index=self.best.index,
            evaluations=self.progress.evaluations,
            stopped_by=stopped_by,
            seconds=time.monotonic() - self._began,
            trainable_parameters=self.trainer.trainable_parameters,
            peak_rss_mb=sum(map(peak_rss_mb, self.trainer.ranks.pids)),
            adapter_mb=sum(f.stat().st_size for f in self._paths.adapter.iterdir()) / 1e6,
            adapter_sha256=weights_hash(self._paths.adapter),
        )
