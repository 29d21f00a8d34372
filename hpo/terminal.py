"""What a person sees while a sweep runs: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.progress_view import ProgressView, SecondsLeft
from hpo.quoting import visible
from hpo.results.aligned import aligned, is_number, joined, one_line
from hpo.results.progress_text import duration, finished_line, params_text
from hpo.results.time_left import NOTHING, Ahead, TimeLeft, UnderWay
from trainers.protocol.events import TrialResult
from trainers.protocol.settings import Setting


@dataclass
class _Row:
    label: str
    params: str
    started: float
    """By the view's clock, as if no session had come in between."""
    fraction: float = 0.0
    loss: float = math.nan
    value: float | None = None


@dataclass
class TerminalView(ProgressView):
    """Shows a live table while trials run on a terminal, and one line per event elsewhere."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=False))
    clock: Callable[[], float] = time.monotonic
    _rows: dict[int, _Row] = field(default_factory=dict)
    _live: Live | None = None
    _planned: int = 0
    _finished: int = 0
    _pruned: int = 0
    _failed: int = 0
    _best: float | None = None
    _metric: str = ""
    _left: TimeLeft = field(default_factory=TimeLeft)
    _are_repeats: bool = False
    """Whether what is shown are the finalists' trainings."""
    _budget_s: SecondsLeft = lambda: None
    _promoted_by: float | None = None
    """When the promotion ends, by the view's clock, as far as is known."""

    def say(self, text: str) -> None:
        # Programs read piped output: do not wrap its lines.
        self.console.print(Text(visible(text)), soft_wrap=not self.console.is_terminal)

    def begin(
        self, planned: int, finished: int, metric: str, jobs: int, best: float | None = None, ahead: Ahead = NOTHING,
        budget_s: SecondsLeft = lambda: None,
    ) -> None:  # fmt: skip
        resumed = f", {finished} already done" if finished else ""
        self.say(f"{planned} trial{'s' * (planned != 1)}{resumed}, {jobs} at a time; metric {metric}")
        self._left, self._budget_s = TimeLeft(jobs, ahead), budget_s
        self._best, self._are_repeats = best, False
        self._show(planned, finished, metric)

    def begin_repeats(self, contestants: int, seeds: int, metric: str) -> None:
        self._left.begin_race(contestants, seeds)
        self._best, self._are_repeats = None, True
        self._show(contestants * seeds, 0, metric)

    def race_stands(self, seed: int, contestants: int, trainings: int) -> None:
        self._planned = self._finished + self._left.race_stands(seed, contestants, trainings)

    def begin_promotion(self, seconds: float) -> None:
        self._promoted_by = self.clock() + seconds

    def _show(self, planned: int, finished: int, metric: str) -> None:
        self._rows.clear()
        self._planned, self._finished, self._metric = planned, finished, metric
        self._pruned, self._failed, self._promoted_by = 0, 0, None
        if self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._render, refresh_per_second=4, transient=True)
            self._live.start()

    def trial_started(self, number: int, params: Mapping[str, Setting]) -> None:
        self._start(number, str(number), params)

    def repeat_started(self, number: int, label: str, params: Mapping[str, Setting]) -> None:
        self._start(number, label, params)

    def _start(self, number: int, label: str, params: Mapping[str, Setting]) -> None:
        self._rows[number] = _Row(label, params_text(params), self.clock())
        if not self._live:
            self.say(f"trial {label} started: {self._rows[number].params}")

    def resumed(self, number: int, step: int) -> None:
        if not self._live:
            self.say(f"trial {self._rows[number].label} continues from its checkpoint at step {step}")

    def step(self, number: int, fraction: float, loss: float | None, seconds: float = 0.0) -> None:
        row = self._rows[number]
        row.fraction = fraction
        row.loss = row.loss if loss is None else loss
        row.started = min(row.started, self.clock() - seconds)

    def evaluated(self, number: int, fraction: float, value: float) -> None:
        self._rows[number].fraction = fraction
        self._rows[number].value = value
        if not self._live:
            self.say(f"trial {self._rows[number].label} {fraction:4.0%}: {self._metric} {value:.4f}")

    def trial_finished(self, number: int, result: TrialResult, finished: int, *, is_best: bool) -> None:
        row = self._ended(number, result)
        self._finished = finished
        self._best = result.value if is_best else self._best
        self._pruned += result.state == "pruned"
        self.say(finished_line(row.label, result, self._metric, row.params, is_best=is_best))

    def repeat_finished(self, number: int, result: TrialResult) -> None:
        row = self._ended(number, result)
        self._finished += 1
        self.say(finished_line(row.label, result, self._metric, row.params, is_best=False))

    def _ended(self, number: int, result: TrialResult) -> _Row:
        self._failed += result.state == "failed"
        row = self._rows.pop(number)
        # A trial whose result was there already, or nearly, takes no time now; the next one will.
        self._left.ended(max(self.clock() - row.started, result.seconds), is_complete=result.state == "complete")
        return row

    def trial_paused(self, number: int) -> None:
        row = self._rows.pop(number)
        self.say(f"trial {row.label} paused at {row.fraction:.0%}")

    def trial_goes_on(self, number: int, champion: int, finished: int) -> None:
        self._finished = finished
        self._pruned -= self._pruned > 0  # an earlier session may have stopped it
        self.say(f"trial {number} goes on: where it stopped, it was not surely behind trial {champion}")

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        if not self.console.is_terminal:
            self.say(text)
            yield
            return
        began = self.clock()

        def render() -> Text:
            parts = [visible(text), duration(self.clock() - began)]
            if self._promoted_by is not None and (left := self.seconds_left()):
                parts.append(f"about {duration(left)} left")
            return Text(" · ".join(parts), style="bold", overflow="ellipsis")

        with Live(console=self.console, get_renderable=render, refresh_per_second=4, transient=True):
            yield
        self.say(f"{text}: {duration(self.clock() - began)}")

    def tick(self) -> None:
        """Nothing to do: the live table refreshes by itself."""

    def end(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], joinable: int = 0) -> None:
        cells = [[one_line(cell) for cell in row] for row in (columns, *rows)]
        numbers = [i for i in range(len(columns)) if rows and all(is_number(row[i]) for row in cells[1:])]
        self.console.print()
        if title:
            self.console.print(Text(one_line(title), style="bold"), soft_wrap=not self.console.is_terminal)
        header, *lines = aligned(cells, numbers, cell_len)
        # In a pipe each row is one line of any length.
        if self.console.is_terminal and max(map(cell_len, (header, *lines))) > self.console.width:
            cells = joined(cells, joinable) if joinable else cells
            self.console.print(_folded(cells, [i for i in numbers if i < len(columns) - joinable]))
            return
        # A table of rich's with 200 rows takes as long as 2,000 trials to read.
        self.console.print(Text(header, style="bold"), soft_wrap=True)
        if lines:
            self.console.print(Text("\n".join(lines)), soft_wrap=True)

    # --- the live table ----------------------------------------------------------------------------

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        # On a narrow terminal only the parameters are cut.
        for column, width in (("trial", 5), ("progress", 16), ("", 4), ("loss", 6), (self._metric, 7)):
            table.add_column(_cell(column), no_wrap=True, min_width=max(width, len(column)))
        table.add_column("parameters", no_wrap=True, overflow="ellipsis")
        for _, row in sorted(self._rows.items()):
            table.add_row(
                row.label, ProgressBar(total=1.0, completed=row.fraction, width=16), f"{row.fraction:4.0%}",
                "" if math.isnan(row.loss) else f"{row.loss:.3f}",
                "" if row.value is None else f"{row.value:.4f}", _cell(row.params),
            )  # fmt: skip
        return Group(table, Text(self._status(), style="bold"))

    def _status(self) -> str:
        most = f"{self._finished} of at most {self._planned} repeats done"
        parts = [most if self._are_repeats else f"{self._finished}/{self._planned} done"]
        if self._pruned:
            parts.append(f"{self._pruned} pruned")
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._best is not None:
            parts.append(f"best {self._best:.4f}")
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {duration(left)} left{self._with_what()}")
        return " · ".join(parts)

    def _with_what(self) -> str:
        """What is part of the time left besides the trainings that are shown."""
        ahead = self._left.ahead
        is_part = {"repeats": ahead.trainings and not self._are_repeats, "release": ahead.promotion_s}
        named = " and ".join(name for name, is_ahead in is_part.items() if is_ahead)
        return f", with {named}" if named else ""

    def seconds_left(self) -> float | None:
        """About how long the sweep still takes, all that is ahead included; None before that is known."""
        now = self.clock()
        if self._promoted_by is not None:
            return max(0.0, self._promoted_by - now)
        running = [UnderWay(now - row.started, row.fraction) for row in self._rows.values()]
        if self._are_repeats:
            return self._left.in_repeats(running)
        waiting = max(0, self._planned - self._finished - len(running))
        return self._left.in_search(waiting, running, self._budget_s())


def _cell(text: str) -> Text:
    """A text as one line in a cell of a table; markup in it is shown as it is."""
    return Text(one_line(text))


def _folded(cells: Sequence[Sequence[str]], to_the_right: Sequence[int]) -> Table:
    """A table that fits a narrow terminal: cells are folded."""
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(cells[0]):
        table.add_column(Text(column), justify="right" if index in to_the_right else "left", overflow="fold")
    for row in cells[1:]:
        table.add_row(*map(Text, row))
    return table
