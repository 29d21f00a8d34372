"""What of earlier nights is freed once the alias has its place: sweeps, rows, losing trials. Records and pages stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hpo.errors import HpoError, UsageError
from hpo.garbage import discard
from hpo.nights.night import Night, night_of
from hpo.nights.record import NightFiles
from hpo.nights.steps import Outcome, Tonight
from hpo.quoting import listed
from hpo.remedies import first_line
from trainers.protocol.codec import to_json


@dataclass(frozen=True)
class Shelf:
    """Where sweeps lie, and how they go."""

    names: Callable[[], Sequence[str]]
    """All sweeps that there are."""
    delete: Callable[[str], object]
    """Deletes a sweep. Raises `UsageError` where an alias, a server or another sweep needs it, one of `errors`
    where that fails."""
    free_losers: Callable[[str], int]
    """Frees adapters and checkpoints of a sweep's losing trials; returns how many bytes they had. Raises one
    of `errors`."""
    errors: tuple[type[Exception], ...] = (HpoError, OSError)
    """What is raised where something cannot be freed now."""


@dataclass(frozen=True)
class Kept:
    """What retention did."""

    deleted: list[str]
    """Sweeps of nights."""
    stays: dict[str, str]
    """Sweep -> why it was not deleted."""
    rows: list[str]
    """Hashes of frozen rows that were deleted."""
    freed_bytes: int
    """Of losing trials."""
    failed: list[str]
    """What could not be done, and why: the next night tries it again."""


def keep(tonight: Tonight, shelf: Shelf) -> Outcome:
    """Free what `nightly.keep` does not keep. After a kill the next call frees the rest.

    What cannot be freed fails no night: its version has the alias already.
    """
    wanted, files = tonight.frame.nightly.keep, tonight.frame.files
    nights = _with_sweep(files, tonight.night.name, shelf.names())
    past = [night for night in nights if night <= tonight.night]  # a clock that was ahead leaves later ones
    deleted, stays, rows, freed, failed = [], {}, [], 0, list[str]()
    for night in past[: -wanted.nights]:
        with _noted(f"{night.sweep} could not be deleted", shelf.errors, failed):
            try:
                shelf.delete(night.sweep)
                deleted.append(night.sweep)
            except UsageError as error:
                stays[night.sweep] = str(error)
    left = [night for night in nights if night.sweep not in deleted]
    with _noted("rows could not be freed", shelf.errors, failed):
        rows = _free_rows(tonight, left, past[-wanted.nights :]) if past else []
    with _noted("losing trials could not be freed", shelf.errors, failed):
        freed = shelf.free_losers(tonight.night.sweep) if wanted.checkpoints == "best" else 0
    kept = Kept(deleted, stays, rows, freed, failed)
    return Outcome(_in_words(kept), to_json(kept))


@contextmanager
def _noted(what: str, errors: tuple[type[Exception], ...], failed: list[str]) -> Iterator[None]:
    """While something is freed: what goes wrong becomes a sentence in `failed`."""
    try:
        yield
    except errors as error:
        said = str(error) if isinstance(error, HpoError) else first_line(error)
        failed.append(f"{what}: {said}")


def _with_sweep(files: NightFiles, name: str, sweeps: Sequence[str]) -> list[Night]:
    """The nights of a name that have a record and a sweep, the oldest first."""
    nights = [night for sweep in sweeps if (night := night_of(sweep)) and night.name == name]
    return sorted(night for night in nights if files.record(night).exists())


def _free_rows(tonight: Tonight, with_sweep: Sequence[Night], kept: Sequence[Night]) -> list[str]:
    """Delete the frozen rows that neither a sweep needs nor a night has that is no older than those which are kept."""
    files = tonight.frame.files
    records = [record for night in with_sweep if (record := files.read(night))]
    records += [record for record in [*tonight.earlier, tonight.record] if record.night >= kept[0]]
    needed = {str(record.facts("freeze").get("sha256")) for record in records}
    doomed = [path for path in sorted(files.data.glob("[0-9a-f]*")) if path.name not in needed]
    for path in doomed:
        discard(path)
    return [path.name for path in doomed]


def _in_words(kept: Kept) -> str:
    parts = [f"deleted {listed(kept.deleted)}"] if kept.deleted else []
    parts += [f"kept {listed(kept.stays)}, because something needs it"] if kept.stays else []
    parts += [f"freed {kept.freed_bytes / 1e6:,.1f} MB of losing trials"] if kept.freed_bytes else []
    parts += kept.failed
    return "; ".join(parts) or "nothing to free"
