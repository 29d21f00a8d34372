"""What a failure means for a trial: try again (and how), or give it up. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.remedies import says_disk_full
from hpo.results.records import RETRIED, Attempt
from trainers.protocol.events import PAUSED, Failed
from trainers.protocol.trial_spec import MOST_HALVINGS, TrialSpec

SAME_CRASHES = 3
"""So many trials in a row that end with the same crash stop the sweep: it is not the points."""
NOT_PAUSED = Failed("interrupted", "ended before it reached a checkpoint to pause at")
"""How a trial ends that did not pause in time."""
_FREE = (PAUSED.message, NOT_PAUSED.message)


def halvings_of_next_attempt(failed: Failed, spec: TrialSpec, attempts: Sequence[Attempt], retries: int) -> int | None:
    """How often the next attempt halves the micro-batch, or None when there is none.

    Out of memory: once more than this one, up to three times (evaluations take half as much at once too, so even a
    micro-batch of one row may fit). A crash, an interruption or a stall: as before, while `retries` last (a pause
    that a person asked for costs none). Anything else would only happen again.
    `attempts` are those before the one that failed.
    """
    if failed.cause == "oom":
        return spec.micro_batch_halvings + 1 if spec.micro_batch_halvings < MOST_HALVINGS else None
    spent = sum(a.cause in RETRIED and a.message not in _FREE for a in attempts)
    if failed.cause in RETRIED and (spent < retries or failed.message in _FREE):
        return spec.micro_batch_halvings
    return None


def halvings_to_begin_with(attempts: Sequence[Attempt]) -> int:
    """What earlier attempts, of this process or another, have learned of the memory a trial needs."""
    known = (a.micro_batch_halvings + (a.cause == "oom") for a in attempts)
    return min(MOST_HALVINGS, max(known, default=0))


def is_disk_full(failed: Failed) -> bool:
    """Whether there was no room to write: nothing about the trial, and no other one would do better."""
    return failed.cause == "crash" and says_disk_full(failed.message)
