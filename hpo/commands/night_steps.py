"""What the steps of a night do when `hpo nightly` runs them; what a step needs is imported when it runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hpo.nights.decide import decide, unless_looked, unless_unchanged
from hpo.nights.sources import sources_now
from hpo.nights.steps import Outcome, Steps, Tonight
from hpo.terminal import ProgressView
from trainers.protocol.files import write_atomically

if TYPE_CHECKING:
    from hpo.nights.signals import Signals

WORKER = "trainers.host.dispatch"
"""The module that trial hosts answer requests with."""


def real_steps(view: ProgressView, worker: str = WORKER) -> Steps:
    """The steps, in their order."""
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
        started=started,
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
    """The night's page."""
    from hpo.nights.page import night_page

    path = tonight.frame.files.page(tonight.night)
    write_atomically(path, night_page(tonight.record, tonight.earlier))
    return Outcome(f"the night's page is {path}", {"page": str(path)})


def signal(tonight: Tonight) -> Outcome:
    """Messages and the last heartbeat."""
    from hpo.nights.page import night_text

    signals = _signals(tonight)
    said = signals.send(tonight.record, night_text(tonight.record))
    said += signals.end(tonight.record)
    return Outcome("; ".join(said) or "nobody waits for the night")


def started(tonight: Tonight) -> list[str]:
    """The first heartbeat."""
    return [] if tonight.frame.nightly.notify is None else _signals(tonight).start(tonight.record)


def _signals(tonight: Tonight) -> Signals:
    from hpo.nights.signals import Signals

    frame = tonight.frame
    return Signals(frame.nightly.notify, frame.files, frame.now)


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
