"""`hpo nightly`: tonight's run of each file, once, whichever scheduler asks and however often."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.commands.night_steps import real_steps
from hpo.config.file import load_config, read_config, says_whose_nights
from hpo.config.nightly import Nightly
from hpo.config.sweep_config import SweepConfig
from hpo.errors import ConfigError, GateRefused, HpoError, Interrupted, Problem, SweepError
from hpo.nights.alerts import regressions_of
from hpo.nights.engine import Engine, Ran
from hpo.nights.lock import Held, night_lock
from hpo.nights.record import NightFiles
from hpo.nights.steps import Frame, Steps
from hpo.nights.zone import zone_named
from hpo.paths import NAME_PATTERN, Home
from hpo.progress_view import ProgressView, Silent
from hpo.signals import terminate_as_interrupt
from trainers.protocol.codec import to_json

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
        regressions = [GateRefused.exit_code for ran in self.nights if regressions_of(ran.record)]
        return _gravest([*failures, *regressions])

    def to_json(self) -> dict[str, Any]:
        """As `hpo nightly --json` prints it."""
        nights = [{**to_json(ran.record), "regressions": regressions_of(ran.record)} for ran in self.nights]
        return {
            "file": str(self.file), "name": self.name, "nights": nights, "held_by": self.held_by,
            "problem": str(self.error) if self.error else "", "exit_code": self.exit_code,
        }  # fmt: skip


def check_name(config: SweepConfig) -> None:
    """Raises `ConfigError` where a night's sweep could not be called after the file's."""
    if not NAME_PATTERN.fullmatch(f"{config.name}-2026-11-28"):
        found = f"{config.name!r} is too long for nights, whose sweeps have the date behind it"
        raise ConfigError([Problem(config.written.where(("name",)), found, f"at most {LONGEST_NAME} characters")])


def check_file(config: SweepConfig, nights: NightFiles, home: Home) -> None:
    """Raises `ConfigError` where another file runs the nights of this name: the second one's would never be run.

    A file that is gone, or has another name now, has given its name away.
    """
    last = nights.newest()
    other = Path(last.file) if last else config.file
    if (
        not other.is_absolute()
        or not other.exists()
        or other.samefile(config.file)
        or not _has_name(other, config, home)
    ):
        return
    found = f"the nights of {config.name!r} are run from {other}"
    remedy = "give one of the two files another name, or move that file away if this one takes its place"
    raise ConfigError([Problem(config.written.where(("name",)), found, remedy)])


def _has_name(other: Path, config: SweepConfig, home: Home) -> bool:
    try:
        return load_config(other, home).name == config.name
    except ConfigError:  # whoever corrects it will run its nights again
        return True


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
    name, wrong = "", None
    try:
        config, problems = read_config(file, home)
        wrong = ConfigError(problems) if problems else None
        if wrong and not says_whose_nights(file):
            raise wrong
        check_name(config)
        name = config.name
        nightly, nights = config.nightly or Nightly(), NightFiles(home.nights(name))
        zone = zone_named(tz or nightly.tz)

        def local() -> datetime.datetime:
            return now().astimezone(zone)

        called = local()
        with night_lock(nights.lock, local, waits=nightly.overlap == "queue") as lock_fd:
            check_file(config, nights, home)
            frame = Frame(config, home, nights, zone, local, called, view.say, lock_fd, always)
            engine = Engine(frame, steps)
            ran = engine.refuse(wrong) if wrong else engine.run()
            if wrong and not ran:
                raise wrong
    except Held as held:
        if wrong:
            view.say(f"error: {wrong}")
        view.say(f"{name}: its nights are run by {held}: nothing to do")
        return FileNights(file, name, held_by=str(held), error=wrong)
    except Interrupted:
        raise
    except (HpoError, OSError) as error:  # the latter for a home that cannot be written
        view.say(f"error: {error}")
        return FileNights(file, name, error=error if isinstance(error, HpoError) else SweepError(str(error)))
    if not ran:
        view.say(f"{name}: tonight's run has ended already: nothing to do")
    return FileNights(file, name, ran, error=wrong)
