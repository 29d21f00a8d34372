"""`hpo nightly`: tonight's run of each file, once, whichever scheduler asks and however often."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hpo.config.file import load_config
from hpo.config.nightly import Nightly
from hpo.config.sweep_config import SweepConfig
from hpo.errors import ConfigError, GateRefused, HpoError, Interrupted, Problem, SweepError
from hpo.nights.decide import decide, unless_looked, unless_unchanged
from hpo.nights.engine import Engine, Ran, regression
from hpo.nights.lock import Held, night_lock
from hpo.nights.record import NightFiles
from hpo.nights.sources import sources_now
from hpo.nights.steps import Frame, Outcome, Steps, Tonight
from hpo.nights.zone import zone_named
from hpo.paths import NAME_PATTERN, Home
from hpo.signals import terminate_as_interrupt
from hpo.terminal import ProgressView, Silent
from trainers.protocol.codec import to_json

WORKER = "trainers.host.dispatch"
"""The module that trial hosts answer requests with."""


LONGEST_NAME = 100 - len("-2026-11-28")
"""Of a file that is run nightly: its sweeps have a date behind it."""


@dataclass(frozen=True)
class FileNights:
    """What a call did for one file."""

    file: Path
    name: str = ""
    """Empty where the file could not be read."""
    nights: Sequence[Ran] = ()
    held_by: str = ""
    """Who runs its nights now; then this call does nothing for it."""
    error: HpoError | None = None
    """Why no night could run."""

    @property
    def exit_code(self) -> int:
        """0 for done or nothing to do, else that of what went wrong; a regression is refused by a gate."""
        if self.error:
            return self.error.exit_code
        failures = [ran.failure.exit_code for ran in self.nights if ran.failure]
        regressions = [GateRefused.exit_code for ran in self.nights if regression(ran.record)]
        return _gravest([*failures, *regressions])

    def to_json(self) -> dict[str, Any]:
        """As `hpo nightly --json` prints it."""
        nights = [{**to_json(ran.record), "regression": regression(ran.record)} for ran in self.nights]
        return {
            "file": str(self.file), "name": self.name, "nights": nights, "held_by": self.held_by,
            "problem": str(self.error) if self.error else "", "exit_code": self.exit_code,
        }  # fmt: skip


def check_name(config: SweepConfig) -> None:
    """Raises `ConfigError` where a night's sweep could not be called after the file's."""
    if not NAME_PATTERN.fullmatch(f"{config.name}-2026-11-28"):
        found = f"{config.name!r} is too long for nights, whose sweeps have the date behind it"
        raise ConfigError([Problem(config.written.where(("name",)), found, f"at most {LONGEST_NAME} characters")])


def exit_code_of(found: Sequence[FileNights]) -> int:
    """That of the whole call: 1 where a night failed, else 2 where a file is wrong, else 3 for a regression, else 0."""
    return _gravest(nights.exit_code for nights in found)


def _gravest(codes: Iterable[int]) -> int:
    return min((code for code in codes if code), default=0)


def now_here() -> datetime.datetime:
    """The time, as this machine's clock has it."""
    return datetime.datetime.now(datetime.UTC)


def run_nightly(
    files: Sequence[Path], home: Home, *, tz: str | None = None, always: bool = False, view: ProgressView | None = None,
    now: Callable[[], datetime.datetime] = now_here, steps: Steps | None = None,
) -> list[FileNights]:  # fmt: skip
    """Run what is due of each file's nights, in order; a file that fails does not stop the others.

    `steps` are the real ones unless they are given. Raises `UsageError` for a `tz` that is no time zone, `Interrupted`
    on Ctrl-C: the same call continues.
    """
    view = view or Silent()
    if tz is not None:
        zone_named(tz)
    try:
        with terminate_as_interrupt():
            return [_run_file(file, home, tz, view, now, steps or real_steps(view), always=always) for file in files]
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command continues") from None


def _run_file(
    file: Path, home: Home, tz: str | None, view: ProgressView, now: Callable[[], datetime.datetime], steps: Steps, *,
    always: bool,
) -> FileNights:  # fmt: skip
    name = ""
    try:
        config = load_config(file, home)
        check_name(config)
        name = config.name
        nightly, nights = config.nightly or Nightly(), NightFiles(home.nights(name))
        zone = zone_named(tz or nightly.tz)

        def local() -> datetime.datetime:
            return now().astimezone(zone)

        with night_lock(nights.lock, local, waits=nightly.overlap == "queue") as lock_fd:
            frame = Frame(config, home, nights, zone, local, view.say, lock_fd, always)
            ran = Engine(frame, steps).run()
    except Held as held:
        view.say(f"{name}: its nights are run by {held}: nothing to do")
        return FileNights(file, name, held_by=str(held))
    except Interrupted:
        raise
    except (HpoError, OSError) as error:  # the latter for a home that cannot be written
        view.say(f"error: {error}")
        return FileNights(file, name, error=error if isinstance(error, HpoError) else SweepError(str(error)))
    if not ran:
        view.say(f"{name}: tonight's run has ended already: nothing to do")
    return FileNights(file, name, ran)


# --- the steps -----------------------------------------------------------------------------------------


def real_steps(view: ProgressView, worker: str = WORKER) -> Steps:
    """The steps of a night as `hpo nightly` runs them; what a step needs is imported when it runs."""
    return Steps(
        freeze=unless_unchanged(read_rows),
        look=unless_looked(look),
        decide=decide,
        sweep=lambda tonight: sweep(tonight, view, worker),
        certify=certify,
        promote=promote,
        keep=keep,
        report=report,
        signal=signal,
        started=lambda tonight: [],
    )


def read_rows(tonight: Tonight) -> Outcome:
    """The rows of the file's sources as they are now, by their content."""
    return Outcome("the rows are read where they lie", {"sha256": sources_now(tonight.config)})


def look(tonight: Tonight) -> Outcome:
    """The sweep checks its rows before its first trial."""
    return Outcome("the sweep checks its rows")


def certify(tonight: Tonight) -> Outcome:
    """The sweep has compared its release with the champion on the same rows."""
    swept = tonight.facts("sweep")
    decision = {"waits": "promote", "champion": "promote", "refused": "keep"}.get(str(swept.get("ruling")), "nothing")
    why = str(swept.get("why") or "")
    return Outcome(why or f"nothing to compare: {decision}", {"decision": decision, "why": why})


def report(tonight: Tonight) -> Outcome:
    """What happened, in a line."""
    return Outcome(f"{tonight.night} is {tonight.record.state}")


def signal(tonight: Tonight) -> Outcome:
    """Nobody waits for it."""
    return Outcome("nobody waits for the night")


def sweep(tonight: Tonight, view: ProgressView, worker: str) -> Outcome:
    """The search under the night's own name, and the release of its champion as a challenger."""
    from hpo.commands.sweep import run_sweep_of
    from hpo.nights.night_sweep import night_sweep, said_of_sweep, sweep_facts

    summary = run_sweep_of(night_sweep(tonight, tonight.config), tonight.home, view=view, worker=worker)
    facts = sweep_facts(summary)
    return Outcome(said_of_sweep(facts), facts)


def promote(tonight: Tonight) -> Outcome:
    """The alias."""
    from hpo.nights.alias import promote as give_alias

    return give_alias(tonight)


def keep(tonight: Tonight) -> Outcome:
    """Retention, by the deletion that `hpo delete --sweep` and `hpo gc` have."""
    from hpo.commands.delete import delete_whole_sweep
    from hpo.commands.gc import free_losing_trials
    from hpo.nights.keep import Shelf
    from hpo.nights.keep import keep as free
    from hpo.study.store import study_names

    home = tonight.home
    return free(tonight, Shelf(
        lambda: study_names(home.studies_db), partial(delete_whole_sweep, home), partial(free_losing_trials, home),
    ))  # fmt: skip
