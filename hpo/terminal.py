"""What a person sees while a sweep runs: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.demo.assets import Asset
from hpo.quoting import clipped, visible
from trainers.protocol.events import TrialResult
from trainers.protocol.settings import Setting

MOST_OF_A_CELL = 300
"""Characters shown of one cell."""


class ProgressView(Protocol):
    """Shows what happens in a sweep, and decides nothing."""

    def say(self, text: str) -> None:
        """Show a text, on one or several lines."""

    def begin(self, planned: int, finished: int, metric: str, jobs: int, best: float | None = None) -> None:
        """Show that trials start: `planned` in all, `finished` before this session, `best` as the best value so far."""

    def trial_started(self, number: int, params: Mapping[str, Setting]) -> None:
        """Show that a trial has started with these searched settings."""

    def step(self, number: int, fraction: float, loss: float | None) -> None:
        """Show a training step; `fraction` (0 to 1) is the share of the trial's budget that is spent."""

    def evaluated(self, number: int, fraction: float, value: float) -> None:
        """Show the objective's value after an evaluation."""

    def trial_finished(self, number: int, result: TrialResult, finished: int, *, is_best: bool) -> None:
        """Show the result of a trial; `finished` counts all finished trials, `is_best` says whether it leads."""

    def trial_goes_on(self, number: int, champion: int, finished: int) -> None:
        """Show that a stopped trial goes on, because it was within noise of `champion`; `finished` trials are left."""

    def tick(self) -> None:
        """Note that nothing has happened for a while."""

    def end(self) -> None:
        """Close the view of the trials: none is running any more."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table; each row has one cell per column."""


class Silent(ProgressView):
    """Shows nothing: for tests and for use from Python."""

    def say(self, text: str) -> None: ...
    def begin(self, planned: int, finished: int, metric: str, jobs: int, best: float | None = None) -> None: ...
    def trial_started(self, number: int, params: Mapping[str, Setting]) -> None: ...
    def step(self, number: int, fraction: float, loss: float | None) -> None: ...
    def evaluated(self, number: int, fraction: float, value: float) -> None: ...
    def trial_finished(self, number: int, result: TrialResult, finished: int, *, is_best: bool) -> None: ...
    def trial_goes_on(self, number: int, champion: int, finished: int) -> None: ...
    def tick(self) -> None: ...
    def end(self) -> None: ...
    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None: ...


@dataclass
class _Row:
    params: str
    started: float
    fraction: float = 0.0
    loss: float = math.nan
    value: float | None = None


@dataclass
class TerminalView(ProgressView):
    """Shows a live table while trials run on a terminal, and one line per event elsewhere."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=False))
    _rows: dict[int, _Row] = field(default_factory=dict)
    _live: Live | None = None
    _planned: int = 0
    _finished: int = 0
    _pruned: int = 0
    _failed: int = 0
    _began_with: int = 0
    _began: float = 0.0
    _best: float | None = None
    _metric: str = ""

    def say(self, text: str) -> None:
        # Programs read piped output: do not wrap its lines.
        self.console.print(Text(visible(text)), soft_wrap=not self.console.is_terminal)

    def begin(self, planned: int, finished: int, metric: str, jobs: int, best: float | None = None) -> None:
        self._planned, self._finished, self._began_with = planned, finished, finished
        self._metric, self._best, self._began = metric, best, time.monotonic()
        resumed = f", {finished} already done" if finished else ""
        self.say(f"{planned} trial{'s' * (planned != 1)}{resumed}, {jobs} at a time; metric {metric}")
        if self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._render, refresh_per_second=4, transient=True)
            self._live.start()

    def trial_started(self, number: int, params: Mapping[str, Setting]) -> None:
        self._rows[number] = _Row(params_text(params), time.monotonic())
        if not self._live:
            self.say(f"trial {number} started: {self._rows[number].params}")

    def step(self, number: int, fraction: float, loss: float | None) -> None:
        self._rows[number].fraction = fraction
        self._rows[number].loss = self._rows[number].loss if loss is None else loss

    def evaluated(self, number: int, fraction: float, value: float) -> None:
        self._rows[number].fraction = fraction
        self._rows[number].value = value
        if not self._live:
            self.say(f"trial {number} {fraction:4.0%}: {self._metric} {value:.4f}")

    def trial_finished(self, number: int, result: TrialResult, finished: int, *, is_best: bool) -> None:
        row = self._rows.pop(number)
        self._finished = finished
        self._best = result.value if is_best else self._best
        self._pruned += result.state == "pruned"
        self._failed += result.state == "failed"
        self.say(finished_line(number, result, self._metric, row.params, is_best=is_best))

    def trial_goes_on(self, number: int, champion: int, finished: int) -> None:
        self._finished = finished
        self._pruned -= self._pruned > 0  # an earlier session may have stopped it
        self.say(f"trial {number} goes on: where it stopped, it was not surely behind trial {champion}")

    def tick(self) -> None:
        """Nothing to do: the live table refreshes by itself."""

    def end(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(title=_cell(title), title_justify="left", box=None, pad_edge=False, title_style="bold")
        for index, column in enumerate(columns):
            numeric = all(_is_number(row[index]) for row in rows) and bool(rows)
            table.add_column(_cell(column), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(cell) for cell in row))
        self.console.print()
        # In a pipe each row is one line of any length.
        if self.console.is_terminal:
            self.console.print(table)
        else:
            wide = Console(file=self.console.file, width=1000, highlight=False)
            wide.print(table)

    # --- the live table ----------------------------------------------------------------------------

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        # On a narrow terminal only the parameters are cut.
        for column, width in (("trial", 5), ("progress", 16), ("", 4), ("loss", 6), (self._metric, 7)):
            table.add_column(_cell(column), no_wrap=True, min_width=max(width, len(column)))
        table.add_column("parameters", no_wrap=True, overflow="ellipsis")
        for number, row in sorted(self._rows.items()):
            table.add_row(
                str(number), ProgressBar(total=1.0, completed=row.fraction, width=16), f"{row.fraction:4.0%}",
                "" if math.isnan(row.loss) else f"{row.loss:.3f}",
                "" if row.value is None else f"{row.value:.4f}", _cell(row.params),
            )  # fmt: skip
        return Group(table, Text(self._status(), style="bold"))

    def _status(self) -> str:
        parts = [f"{self._finished}/{self._planned} done"]
        if self._pruned:
            parts.append(f"{self._pruned} pruned")
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._best is not None:
            parts.append(f"best {self._best:.4f}")
        if (eta_s := self._eta_s()) is not None:
            parts.append(f"about {duration(eta_s)} left")
        return " · ".join(parts)

    def _eta_s(self) -> float | None:
        """Seconds left, from the work that this session has done so far; None before there is enough of it."""
        done = self._finished - self._began_with + sum(row.fraction for row in self._rows.values())
        if done < 0.3:
            return None
        return (time.monotonic() - self._began) * (self._planned - self._began_with - done) / done


def _cell(text: str) -> Text:
    """A text as one line in a cell of a table; markup in it is shown as it is."""
    return Text(clipped(visible(text).replace("\n", "\\n").replace("\t", "\\t"), MOST_OF_A_CELL))


def finished_line(number: int, result: TrialResult, metric: str, params: str, *, is_best: bool) -> str:
    """The line that stays on the terminal when a trial has ended: state, value, time and settings."""
    took = duration(result.seconds)
    if result.state == "failed":
        message = " ".join(result.message.split())
        return f"trial {number} failed ({result.cause}: {message}) after {took}  {params}"
    value = f"{metric} {result.value:.4f}" if result.value is not None else ""
    how = {
        "pruner": "pruned", "early_stopping": "stopped early", "budget": "done",
        "trial_minutes": "stopped by trial_minutes", "sweep_budget": "stopped by the budget",
    }[result.stopped_by]  # fmt: skip
    star = "  *best so far*" if is_best else ""
    return f"trial {number} {how}: {value} in {took}  {params}{star}"


def params_text(params: Mapping[str, Setting]) -> str:
    """Settings on one line, as `learning_rate=0.00046 lora_r=8`; `default configuration` where there are none."""
    return " ".join(f"{k}={setting_text(v)}" for k, v in params.items()) or "default configuration"


def setting_text(value: Setting) -> str:
    """A setting for people: floats with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """A duration for people, as `9 s`, `2 min 05 s` or `3 h 10 min`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace("-", "").replace(",", "").replace("e", "").replace("+", "").isdigit()


# --- whole sweeps --------------------------------------------------------------------------------------


def evaluations_line(evaluations: int, some: int, rows: int) -> str:
    """How often a trial is evaluated, and on how many of the validation rows."""
    if some == rows:
        return f"{evaluations} evaluations per trial, on all {rows:,} validation rows"
    return f"{evaluations} evaluations per trial, on {some:,} of {rows:,} validation rows; on all of them at its end"


def show_plan(view: ProgressView, plan: Mapping[str, Any]) -> None:
    """Show what a sweep would run, what the corners of its space need, and when it would end.

    `plan` is what `hpo plan --json` prints.
    """
    view.say(f"{plan['trials']} trials ({plan['trials_left']} to go), {plan['repeats']} repeats of finalists; "
             f"{plan['examples_per_trial']:,} examples per trial")  # fmt: skip
    view.say(f"search strategy: {plan['strategy']['type']} ({plan['strategy']['why']})")
    where = f"{plan['gpus']} GPUs" if plan["gpus"] else f"{plan['cores']} cores"
    view.say(
        f"{plan['jobs']} at a time on {where}, {plan['threads']} thread{'s' * (plan['threads'] != 1)} each; "
        f"{plan['available_memory_mb'] / 1024:.1f} GB of memory free"
    )
    names = list(dict.fromkeys(name for probe in plan["probes"] for name in probe["params"]))
    view.say(evaluations_line(plan["evaluations"], plan["evaluation_rows"], plan["rows"]["validation"]))
    columns = ["point", "trainable", "memory", "adapter", "s/step", "evaluation", "trial", "evaluating", *names]
    rows = [
        [
            p["point"], f"{p['trainable_parameters']:,}", f"{p['memory_mb']:.0f} MB", f"{p['adapter_mb']:.1f} MB",
            f"{p['seconds_per_step']:.2f}", f"{p['seconds_per_evaluation']:.1f} s",
            duration(p["trial_seconds"]), f"{p['evaluation_share']:.0%}",
            *(setting_text(p["params"].get(name)) for name in names),
        ]
        for p in plan["probes"]
    ]  # fmt: skip
    view.table("corners of the space, measured on a few steps", columns, rows)
    for note in plan["notes"]:
        view.say(f"note: {note}")
    cost = "" if plan["cost"] is None else f", cost {plan['cost']:.2f}"
    view.say(f"\nabout {duration(plan['seconds'])} without pruning, until {plan['ends_at']} ({plan['ends_by']}){cost}")


def show_assets(view: ProgressView, assets: Mapping[str, Asset], fetched: Mapping[str, bool]) -> None:
    """Show the demo models and data in a table; `fetched` says by name which are in the cache."""
    columns = ["name", "kind", "download", "licence", "fetched", "description"]
    rows = [
        [a.name, a.kind, f"{a.download_mb} MB", a.licence, "yes" if fetched[a.name] else "no", a.description]
        for a in assets.values()
    ]
    view.table("demo models and data", columns, rows)
