"""What a sweep has written down about itself, besides its trials: one frozen type. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from hpo.config.budget import Spent
from hpo.config.strategy import ResolvedStrategy
from hpo.results.left_out import LeftOut
from hpo.results.outcome import FinalistsOutcome
from hpo.results.released import Release, TorchNumbers, VariantVerdict
from trainers.protocol.codec import RECORD_FORMAT
from trainers.protocol.events import Decision, PreparedData

State = Literal["running", "complete", "interrupted", "failed"]


@dataclass(frozen=True)
class Change:
    """One key of the file that an edit changed."""

    key: str
    """Its path, with dots."""
    old: Any
    new: Any


@dataclass(frozen=True)
class Revision:
    """What an edit changed, and what it did to the trials so far."""

    revision: int
    changes: list[Change]
    left_out: int
    """Trials that do not fit the edited file."""


@dataclass(frozen=True)
class SweepState:
    """A field is None (or empty) until the sweep has come so far."""

    format: int = RECORD_FORMAT
    state: State = "interrupted"
    revision: int = 1
    revisions: list[Revision] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    """The whole file as plain values, with defaults. A study without it was never opened to the end."""
    strategy: ResolvedStrategy | None = None
    budget_setting: str | None = None
    """The setting that bounds a trial, as the file calls it."""
    clock: str | None = None
    """What chat templates that print the date are shown, as local ISO time."""
    precision: Decision | None = None
    """None where each device decides what `precision: auto` is, as in sweeps that began before it was measured."""
    data: PreparedData | None = None
    evaluation_rows: int | None = None
    """Validation rows that evaluations inside a trial use; None where they use all, or where nobody wrote it down."""
    spent: Spent = field(default_factory=Spent)
    last_number: int = -1
    """The last number that a trial of an earlier revision had."""
    baseline: int | None = None
    """The trial with the default configuration."""
    void: list[int] = field(default_factory=list)
    """Trials that are not counted: they said nothing of their points, which a later session tried again."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Of the space, in the last session: what cannot fit into memory."""
    base_score: dict[str, float] | None = None
    """Metrics of the untouched base model."""
    search_ended_by: str | None = None
    finalists: FinalistsOutcome | None = None
    torch: TorchNumbers | None = None
    variants: list[VariantVerdict] = field(default_factory=list)
    variants_trial: int | None = None
    """The trial that `torch` and `variants` are of; None where nobody wrote it down."""
    release: Release | None = None
    """The last version that became champion."""
    challenger: Release | None = None
    """A registered version that did not become champion, or waits for approval."""
    chosen_trial: int | None = None
    """The trial that a person released instead of the champion. An edit that opens a revision forgets it."""
    refusal: str | None = None
    """Why the champion was not released."""
    run_ids: dict[str, str] = field(default_factory=dict)
    """Trial -> its MLflow run, where that was made anew after the trial's end."""

    def next_revision(self, last_number: int) -> SweepState:
        """What the next revision begins with.

        The data, what was spent, what was measured of the base model and what was released survive an edit. What
        followed from the old trials is found anew.
        """
        return SweepState(
            revision=self.revision + 1,
            revisions=self.revisions,
            last_number=last_number,
            clock=self.clock,
            precision=self.precision,
            data=self.data,
            spent=self.spent,
            void=self.void,
            base_score=self.base_score,
            torch=self.torch,
            variants=self.variants,
            variants_trial=self.variants_trial,
            release=self.release,
            challenger=self.challenger,
        )

    def written(self) -> dict[str, Any]:
        """The fields that are not at their default."""
        fresh = SweepState()
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value != getattr(fresh, name)}
