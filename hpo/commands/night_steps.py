"""What the steps of a night do when `hpo nightly` runs them; what a step needs is imported when it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hpo.errors import HpoError
from hpo.executors.base import Executor
from hpo.nights.decide import asked_now, decide, has_other_sources, unless_looked, unless_unchanged
from hpo.nights.steps import Frame, Outcome, Steps, Tonight
from hpo.progress_view import ProgressView
from trainers.protocol.codec import from_json, to_json

if TYPE_CHECKING:
    from hpo.nights.data import FrozenData
    from hpo.notices.signals import Signals

WORKER = "trainers.host.dispatch"
"""The module that trial hosts answer requests with."""


def real_steps(view: ProgressView, worker: str = WORKER) -> Steps:
    """The steps, in their order."""
    return Steps(
        freeze=unless_unchanged(partial(freeze, worker=worker)),
        look=unless_looked(partial(look, worker=worker)),
        decide=decide,
        sweep=partial(sweep, view=view, worker=worker),
        certify=partial(certify, worker=worker),
        promote=promote,
        keep=keep,
        report=report,
        signal=signal,
        started=lambda tonight: signals(tonight.frame).start(tonight.record),
        is_outdated=is_outdated,
        idle=retry_signals,
    )


def is_outdated(tonight: Tonight) -> bool:
    """Whether a failed night begins again: its rows or its file have changed, and no trial has a result to lose.

    With a result the sweep goes on with its rows: data that only grows would begin it anew after each failure.
    """
    from hpo.nights.night_sweep import has_results

    try:
        return has_other_sources(tonight) and not has_results(tonight.home, tonight.night.sweep)
    except (HpoError, OSError):
        return False  # the step that is tried again meets the same, and says it


@contextmanager
def night_host(tonight: Tonight, worker: str) -> Iterator[Executor]:
    """A trial host that keeps the lock of the nights, for what is asked outside of a sweep."""
    from hpo.commands.session import plain_errors
    from hpo.executors.local import LocalExecutor
    from hpo.executors.restarting import RestartingExecutor

    log, fds = tonight.frame.files.dir / "host.log", [tonight.frame.lock_fd]
    executor = RestartingExecutor(lambda: LocalExecutor(log, worker, keep_fds=fds))
    try:
        with plain_errors():
            yield executor
    finally:
        executor.close()


def freeze(tonight: Tonight, worker: str) -> Outcome:
    """The rows as they are now, each on its side for ever."""
    from hpo.nights.data import freeze as freeze_rows

    with night_host(tonight, worker) as executor:
        frozen = freeze_rows(executor, tonight.config, tonight.home, tonight.night)
    return Outcome(frozen.said(), to_json(frozen))


def look(tonight: Tonight, worker: str) -> Outcome:
    """Checks of the rows, and how they differ from the night before."""
    from hpo.nights.data import frozen_before
    from hpo.nights.data import look as look_at

    before = frozen_before(tonight.frame.files, tonight.night)
    with night_host(tonight, worker) as executor:
        seen = look_at(executor, tonight.config, tonight.home, frozen_rows(tonight), before)
    said = seen.stops or "; ".join(seen.shift) or "nothing unusual"
    return Outcome(said, to_json(seen), "failed" if seen.stops else None)


def frozen_rows(tonight: Tonight) -> FrozenData:
    """What this night has frozen; a home may have been moved since."""
    from hpo.nights.data import FrozenData

    frozen = from_json(FrozenData, tonight.facts("freeze"))
    return replace(frozen, folder=str(tonight.frame.files.data / frozen.sha256))


def sweep(tonight: Tonight, view: ProgressView, worker: str) -> Outcome:
    """The search on the frozen rows, under the night's own name, and the release of its champion as a challenger."""
    from hpo.commands.delete import delete_whole_sweep
    from hpo.commands.sweep import run_sweep_of
    from hpo.nights.data import frozen_config
    from hpo.nights.night_sweep import earlier_champions, is_leftover, night_sweep, said_of_sweep, sweep_facts

    asked = asked_now(tonight.config)  # before the sweep: who edits the file meanwhile asks the next night
    config = frozen_config(tonight.config, frozen_rows(tonight), tonight.night)
    again = earlier_champions(tonight, config)
    for line in again.not_tried:
        tonight.frame.say(line)
    config = night_sweep(tonight, config, again)
    if is_leftover(tonight.home, config):
        delete_whole_sweep(tonight.home, config.name)
    facts = sweep_facts(run_sweep_of(config, tonight.home, view=view, worker=worker))
    return Outcome(said_of_sweep(facts), {**facts, "asked": to_json(asked), "not_tried": again.not_tried})


def certify(tonight: Tonight, worker: str) -> Outcome:
    """Champion and challenger, as released, on rows of tonight that no search saw; a claim goes into the ledger."""
    promote, swept = tonight.config.promote, tonight.facts("sweep")
    if promote is None or swept.get("version") is None:
        return Outcome("there is no release to certify", {"decision": "nothing"})
    from hpo.certify.certify import certify as certified_by
    from hpo.certify.ledger import Ledger
    from hpo.commands.preflight import at_its_clock
    from hpo.nights.data import certifying_config, frozen_config

    # Under the release's own name: who has edited it since means the next night.
    released = replace(tonight.config, promote=replace(promote, name=str(swept["model"])))
    frozen = frozen_rows(tonight)
    config = at_its_clock(frozen_config(released, frozen, tonight.night), tonight.home)
    rows = certifying_config(config, frozen).workload(tonight.home)
    ledger = Ledger(tonight.home.ledger(str(swept["model"])), tonight.frame.nightly.error_budget)
    with night_host(tonight, worker) as executor:
        found = certified_by(executor, config, tonight.home, tonight.night, ledger, rows)
    return Outcome(found.why, to_json(found))


def report(tonight: Tonight) -> Outcome:
    """The night's page."""
    from hpo.nights.page import write_page

    return Outcome(str(write_page(tonight.home, tonight.record, tonight.earlier)))


def signals(frame: Frame) -> Signals:
    """Whoever the file wants to hear of its nights."""
    from hpo.notices.signals import Signals

    return Signals(frame.nightly.notify, frame.files, frame.now)


def signal(tonight: Tonight) -> Outcome:
    """The heartbeat of the end, which needs no disk, then the messages."""
    from hpo.nights.page import night_text

    sender = signals(tonight.frame)
    lines = sender.end(tonight.record)
    lines += sender.send(tonight.record, night_text(tonight.record))
    return Outcome("; ".join(lines) or "nobody waits for the night")


def retry_signals(frame: Frame) -> list[str]:
    """What earlier nights could not deliver; where nothing waits, nothing is imported."""
    if not any(frame.files.outbox.glob("*.json")):
        return []
    return signals(frame).retry()


def promote(tonight: Tonight) -> Outcome:
    """The alias."""
    from hpo.commands.session import plain_errors
    from hpo.nights.alias import promote as give_alias

    with plain_errors():
        return give_alias(tonight)


def keep(tonight: Tonight) -> Outcome:
    """Retention, by the deletion that `hpo delete --sweep` and `hpo gc` have."""
    from hpo.commands.delete import delete_whole_sweep
    from hpo.commands.gc import free_losing_trials
    from hpo.commands.session import store_errors
    from hpo.nights.keep import Shelf
    from hpo.nights.keep import keep as free
    from hpo.study.store import study_names

    home = tonight.home
    return free(tonight, Shelf(
        lambda: study_names(home.studies_db), partial(delete_whole_sweep, home), partial(free_losing_trials, home),
        (HpoError, *store_errors()),
    ))  # fmt: skip
