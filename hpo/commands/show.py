"""`hpo show` and `hpo list`: sweeps as they are stored, summed up, and how a person sees them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hpo.config.objective import Objective, gate_of
from hpo.errors import HpoError
from hpo.paths import Home
from hpo.results.champion import Champion, choose_champion
from hpo.results.finalists_text import finalists_table, finalists_title, verdicts
from hpo.results.leaderboard import BEFORE_SETTINGS, MOST_LEFT_OUT, gain, leaderboard, notes, saved_in_words
from hpo.results.records import StudySnapshot
from hpo.results.release_text import challenger_line, release_line, variant_lines, variants_table, variants_title
from hpo.results.released import Release
from hpo.results.summary import SweepSummary, summarize
from hpo.study.one_writer import has_strange_folder, holders_of_leases, is_running
from hpo.study.store import study_names, unreadable, view_study
from hpo.trials.timeline_file import timeline_or_why
from trainers.protocol.counted import counted

if TYPE_CHECKING:
    from hpo.progress_view import ProgressView
    from hpo.study.lease import Holder

T = TypeVar("T")

MOST_ROWS = 200
"""Of the leaderboard, best first: nobody reads more in a terminal, and thousands take seconds to lay out."""


@dataclass(frozen=True)
class UnreadableSweep:
    """A sweep whose records cannot be read, and why."""

    sweep: str
    problem: str

    def to_json(self) -> dict[str, str]:
        """As `hpo list --json` prints it."""
        return {"sweep": self.sweep, "state": "unreadable", "problem": self.problem}


@dataclass(frozen=True)
class SweepLine:
    """What `hpo list` shows of a sweep."""

    sweep: str
    state: str
    trials: Sized
    objective: Objective
    champion: Champion | None
    release: Release | None


def read_sweep(home: Home, name: str) -> SweepSummary:
    """A sweep, summed up. Raises `UsageError` for a name that is none, `HpoError` for a damaged study."""
    return read_study(home, name)[1]


def read_study(
    home: Home, name: str, state: str | None = None, holders: Mapping[str, Holder] | None = None
) -> tuple[StudySnapshot, SweepSummary]:
    """The same with the study that it is the sum of, as both are at one moment; `state` is given by who knows it, and
    `holders` by who reads several sweeps."""
    stored = view_study(home.studies_db, name)
    paths = home.sweep(name)
    state = state or _state_of(home, stored, holders_of_leases(home) if holders is None else holders)
    is_here = not has_strange_folder(home, name)
    files = paths.champion_files() if state == "complete" and is_here else {}
    timeline = timeline_or_why(paths.timeline) if is_here else ()
    try:
        return stored, summarize(stored, state, files, *timeline)
    except (LookupError, TypeError, ValueError) as error:
        raise unreadable(name, home.studies_db, error) from error


def _state_of(home: Home, stored: StudySnapshot, holders: Mapping[str, Holder]) -> str:
    """The state that a sweep is in now: whoever wrote that it runs may have been killed."""
    if is_running(home, stored.name, holders):
        return "running"
    return "interrupted" if stored.state.state == "running" else stored.state.state


def list_sweeps(home: Home) -> list[SweepSummary | UnreadableSweep]:
    """Every sweep by name; one that cannot be read does not hide the others.

    Raises `HpoError` where there are sweeps and none of them can be read.
    """
    holders = holders_of_leases(home)
    return _each(home, lambda name: read_study(home, name, holders=holders)[1])


def list_lines(home: Home) -> list[SweepLine | UnreadableSweep]:
    """The same, as far as a line for each needs it. Raises the same."""
    holders = holders_of_leases(home)

    def line(name: str) -> SweepLine:
        stored = view_study(home.studies_db, name, is_brief=True)
        try:
            best = choose_champion(
                stored.records, stored.objective, stored.config["constraints"], stored.state.finalists
            )
        except (LookupError, TypeError, ValueError) as error:
            raise unreadable(name, home.studies_db, error) from error
        state = _state_of(home, stored, holders)
        return SweepLine(name, state, stored.records, stored.objective, best, stored.state.release)

    return _each(home, line)


def _each(home: Home, read: Callable[[str], T]) -> list[T | UnreadableSweep]:
    def read_or_problem(name: str) -> T | UnreadableSweep:
        try:
            return read(name)
        except HpoError as error:
            return UnreadableSweep(name, str(error))

    found = [read_or_problem(name) for name in study_names(home.studies_db)]
    problems = [sweep.problem for sweep in found if isinstance(sweep, UnreadableSweep)]
    if problems and len(problems) == len(found):
        raise HpoError("\n".join(problems[:10]))
    return found


def show_sweep(view: ProgressView, summary: SweepSummary, *, hints: bool, link: str | None = None) -> None:
    """Show the leaderboard, champion against baseline, variants and release; `hints` adds the next commands, and `link`
    where MLflow shows it."""
    columns, rows = leaderboard(summary, MOST_ROWS, MOST_LEFT_OUT)
    view.table(f"{summary.sweep} ({summary.state})", columns, rows, joinable=len(columns) - BEFORE_SETTINGS)
    if (more := len(summary.trials) - MOST_ROWS) > 0:
        view.say(f"and {counted(more, 'more trial')}: see hpo query, hpo report or hpo show --json")
    view.say(f"\n{gain(summary)}")
    if summary.finalists:
        view.table(finalists_title(summary.finalists), *finalists_table(summary.finalists, summary.objective))
        view.say("")
    for line in [*saved_in_words(summary.savings), *verdicts(summary), *notes(summary)]:
        view.say(line)
    if summary.variants and summary.torch:
        metric = gate_of(summary.task, summary.objective).metric
        table = variants_table(summary.torch, summary.variants, metric)
        view.table(variants_title(summary), *table)
        for line in variant_lines(summary):
            view.say(line)
    if release := summary.release:
        view.say(f"\n{release_line(summary, release)}")
    if challenger := summary.challenger:
        view.say(f"\n{challenger_line(challenger, summary.refusal)}")
    if summary.refusal and not hints:  # at the end of a sweep it is the error that ends the command
        view.say(f"\nnot released: {summary.refusal}")
    if link:
        view.say(f"\nin MLflow, while hpo ui runs: {link}")
    if hints:
        view.say("\nnext:")
        view.say(f"  hpo show {summary.sweep}")
        view.say(f"  hpo report {summary.sweep}")
        if release:
            view.say(f"  hpo predict {release.name} {shlex.quote(release.example or 'some text')}")
            view.say(f"  hpo serve {release.name}")
        if challenger:
            view.say(f"  hpo approve {challenger.name}/{challenger.version}")
        view.say(f"  hpo ui {summary.sweep}")


def show_list(view: ProgressView, sweeps: Sequence[SweepSummary | SweepLine], problems: Sequence[str] = ()) -> None:
    """Show all sweeps in a table, and below it why others cannot be read."""
    if not sweeps and not problems:
        view.say("no sweeps yet; to begin: hpo init NAME.yaml, then hpo sweep NAME.yaml")
        return
    columns = ["sweep", "state", "trials", "metric", "champion", "release"]
    rows = [
        [
            s.sweep, s.state, str(len(s.trials)), s.objective.metric, f"{s.champion.value:.4f}" if s.champion else "-",
            f"{s.release.name} v{s.release.version}" if s.release else "-",
        ]
        for s in sweeps
    ]  # fmt: skip
    view.table("sweeps", columns, rows)
    for problem in problems:
        view.say(problem)
