"""`hpo gc`: frees what no sweep, no alias and no person needs any more, and says how much of each kind."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpo.databases.sqlite import usable
from hpo.executors.ray.inputs import KEPT_DAYS, node_home, remove_inputs, unused_inputs
from hpo.garbage import Garbage, discard, half_deleted, size_of
from hpo.lock import exclusive, held_alone, is_in_use, is_locked, sweep_lock
from hpo.nights.record import NightFiles
from hpo.paths import Home, held_of_prepared
from hpo.progress_view import ProgressView
from hpo.release.deletion import delete_versions, files_of, registered_folders
from hpo.release.deletion import with_alias as versions_with_alias
from hpo.release.versions import versions_of
from hpo.results.needed import is_finished, needed_trainings, starting_points
from hpo.results.records import StudySnapshot, TrialRecord
from hpo.study.one_writer import has_other_studies, has_strange_folder, holders_of_leases
from hpo.study.store import left_out_trials, study_names, view_study
from hpo.tracking.mlflow_deletion import delete_for_good, deleted_runs, run_folder
from trainers.protocol.files import TrialPaths

LOSERS = "adapters and checkpoints of losing trials"
VARIANTS = "ONNX variants that were not released"
PREPARED = "prepared data that no sweep uses"
DELETED_RUNS = "runs deleted in MLflow"
RELEASES = "releases without an alias"
OF_NODE = f"inputs that sweeps over Ray have not used here for {KEPT_DAYS} days"
CUT_SHORT = "files of deletions and releases that were cut short"
_WRITTEN_WITHIN_S = 86400.0
"""Prepared data that have their name by then, or never."""
_MODELS = "*/artifacts/model-" + "[0-9a-f]" * 8
"""Folders in the home's artifacts, as `hpo.release.registry` names them: a person may have other models there."""


@dataclass(frozen=True)
class Freed:
    """What was freed of one kind, or would be."""

    kind: str
    count: int
    size_bytes: int


def collect_garbage(home: Home, *, dry_run: bool, releases: bool) -> list[Freed]:
    """Free what nobody needs, or only say how much there is; with `releases` also versions without an alias.

    Running sweeps and nights keep everything, and no finished sweep can start meanwhile; a bundle that is being
    registered is waited for. After a kill, the next call frees the rest.
    Raises `HpoError` where a sweep or a night cannot be read: nobody knows what it needs.
    """
    names = study_names(home.studies_db)
    running = _running(home)
    busy = running | _of_open_nights(home)
    with ExitStack() as locks:
        if not dry_run:
            if usable(home.mlflow_db):
                locks.enter_context(exclusive(home.bundle_lock))
            for name in names:
                is_ours = home.sweep(name).dir.exists() and not has_strange_folder(home, name)
                if is_ours and name not in running:  # also in a restored home, where no sweep has a lock file yet
                    locks.enter_context(sweep_lock(home.sweep(name).lock))
        sweeps = [view_study(home.studies_db, name) for name in names]
        busy |= {view.name for view in sweeps if not is_finished(view)}
        every = _all_garbage(home, sweeps, running, busy, releases=releases)
        found = [garbage for garbage in every if garbage.size_bytes]
        if not dry_run:
            for garbage in found:
                garbage.free()
    kinds = dict.fromkeys(garbage.kind for garbage in found)
    return [_freed(kind, [garbage for garbage in found if garbage.kind == kind]) for kind in kinds]


def _running(home: Home) -> set[str]:
    """The sweeps that run now, here or elsewhere."""
    here = {path.parent.name for path in home.sweeps.glob("*/lock") if is_locked(path)}
    return here | {*holders_of_leases(home)}


def free_losing_trials(home: Home, name: str) -> int:
    """Free adapters and checkpoints of losing trials of one finished sweep that will not be continued, and of those
    that its budget interrupted; returns how many bytes they had.

    Raises `SweepError` where the sweep runs, `HpoError` where a sweep cannot be read.
    """
    with sweep_lock(home.sweep(name).lock):
        sweeps = [view_study(home.studies_db, other) for other in study_names(home.studies_db)]
        others = ({view.name for view in sweeps} | {*holders_of_leases(home)}) - {name}
        found = [one for one in _of_trials(home, sweeps, others, closed=[name]) if one.size_bytes]
        for garbage in found:
            garbage.free()
    return sum(garbage.size_bytes for garbage in found)


def show_freed(view: ProgressView, freed: Sequence[Freed], *, dry_run: bool) -> None:
    """Show how much of each kind was freed, or would be."""
    if not freed:
        view.say("nothing to free")
        return
    rows = [[kind.kind, f"{kind.count:,}", f"{kind.size_bytes / 1e6:,.1f}"] for kind in freed]
    view.table("to be freed" if dry_run else "freed", ["kind", "items", "MB"], rows)
    total = sum(kind.size_bytes for kind in freed) / 1e6
    command = "hpo gc --releases" if any(kind.kind == RELEASES for kind in freed) else "hpo gc"
    view.say(f"{total:,.1f} MB would be freed: {command} frees it" if dry_run else f"{total:,.1f} MB freed")


def _of_open_nights(home: Home) -> set[str]:
    """The sweeps of nights that still have to give their release its alias: nights that run, or are tried again."""
    found = set()
    for folder in sorted(home.dir.glob("nights/*")):
        records = NightFiles(folder).all()
        found |= {r.night.sweep for r in records if r.step("promote") is None and not r.is_over}
        found |= {r.night.sweep for r in records[-1:] if r.step("promote") is None and r.state == "failed"}
    return found


def _all_garbage(
    home: Home, sweeps: Sequence[StudySnapshot], running: set[str], busy: set[str], *, releases: bool
) -> Iterator[Garbage]:
    """`busy` are the sweeps that keep everything: those that run, are unfinished, or that a night still needs."""
    yield from _cut_short(home, is_quiet=not running)
    yield from _of_trials(home, sweeps, busy)
    yield from _prepared_data(home, sweeps, running)
    yield from _of_node()
    if usable(home.mlflow_db):
        if releases:
            yield from _releases(home, busy)
        yield from _deleted_runs(home, busy)


def _of_trials(
    home: Home, sweeps: Sequence[StudySnapshot], busy: set[str], closed: Collection[str] = ()
) -> Iterator[Garbage]:
    """What finished sweeps keep of trials that nobody needs, and their variants beside the released one.

    Trials that an edit of the file left out are no part of the sweep any more; their numbers never come back. One of
    them may still be released.
    """
    left_out = {view.name: left_out_trials(home.studies_db, view.name) for view in sweeps}
    needed, starts = needed_trainings(sweeps, left_out, closed), starting_points(sweeps)
    for view in sweeps:
        if not is_finished(view) or view.name in busy or has_strange_folder(home, view.name):
            continue
        yield _of_files(VARIANTS, [home.sweep(view.name).release])
        found = {record.number: _heavy_files(home, view.name, record) for record in view.records}
        for record in left_out[view.name]:
            repeats = [file for repeat in home.sweep(view.name).repeats(record.number) for file in _heavy(repeat)]
            found[record.number] = [*_heavy_files(home, view.name, record), *repeats]
        for number, files in found.items():
            is_start = any(file.resolve() in (start, *start.parents) for file in files for start in starts)
            if (view.name, number) not in needed and not is_start:
                yield _of_files(LOSERS, files)


def _heavy_files(home: Home, sweep: str, record: TrialRecord) -> list[Path]:
    """A trial's adapter, here and in MLflow, its checkpoints and per-row results; its numbers stay."""
    copies = [run_folder(home, record.run_id) / "artifacts" / "adapter"] if record.run_id else []
    return [*_heavy(home.sweep(sweep).trial(record.number)), *copies]


def _heavy(paths: TrialPaths) -> list[Path]:
    return [paths.adapter, paths.checkpoints, paths.rows(0).parent]


def _prepared_data(home: Home, sweeps: Sequence[StudySnapshot], running: set[str]) -> Iterator[Garbage]:
    """Tokenized data; what a study in another database uses is not known here. A plan has no study, and a sweep that
    has just begun has not written down what it uses: they hold it."""
    if running or has_other_studies(home):
        return
    used = {Path(view.state.data.tokens_dir).name for view in sweeps if view.state.data}
    for folder in sorted(home.tokens.glob("*")):
        if folder.name not in used and not _is_held(folder):
            yield Garbage(PREPARED, size_of([folder]), partial(_free_prepared, folder))


def _is_held(folder: Path) -> bool:
    """Whether somebody uses prepared data, or may still write them: under a hidden name, and for less than a day."""
    if folder.name.startswith("."):
        return folder.exists() and time.time() - folder.stat().st_mtime < _WRITTEN_WITHIN_S
    return is_in_use(held_of_prepared(folder))


def _free_prepared(folder: Path) -> None:
    """Free them, unless somebody has begun to use them."""
    held = held_of_prepared(folder)
    with held_alone(held) as is_mine:
        if is_mine or not held.exists():
            discard(folder)


def _of_node() -> Iterator[Garbage]:
    """What this machine keeps as a node of clusters, whatever homes their sweeps have."""
    for folder in unused_inputs(node_home()):
        yield Garbage(OF_NODE, size_of([folder]), partial(remove_inputs, folder))


def _deleted_runs(home: Home, busy: set[str]) -> Iterator[Garbage]:
    """Runs that a person deleted in MLflow, unless a registered version has its files there."""
    held = {version.run_id for version in versions_of(home)}
    for run_id, sweep in deleted_runs(home).items():
        if run_id not in held and sweep not in busy:
            size = max(1, size_of([run_folder(home, run_id)]))  # a record without files goes too
            yield Garbage(DELETED_RUNS, size, partial(delete_for_good, home, [run_id]))


def _releases(home: Home, busy: set[str]) -> Iterator[Garbage]:
    """Versions without an alias; one that a sweep or night has just registered gets its own in a moment."""
    every = versions_of(home)
    kept = [v for v in every if v.sweep in busy or v.is_served]
    kept += versions_with_alias(home, [v for v in every if v not in kept])
    needed = {files_of(home, version) for version in kept}  # a copy that was made in MLflow has those of its original
    for version in every:
        if version not in kept:
            folder = files_of(home, version)
            size = max(1, size_of([folder] if folder and folder not in needed else []))
            yield Garbage(RELEASES, size, partial(delete_versions, home, [version]))


def _cut_short(home: Home, *, is_quiet: bool) -> Iterator[Garbage]:
    """What kills left: folders half deleted and, while no sweep can be releasing, models without a version."""
    for path in half_deleted(home.dir):
        yield _of_files(CUT_SHORT, [path])
    if is_quiet and usable(home.mlflow_db):
        registered = registered_folders(home)
        for model in sorted(home.artifacts.glob(_MODELS)):
            if model.resolve() not in registered:
                yield _of_files(CUT_SHORT, [model])


def _of_files(kind: str, paths: Sequence[Path]) -> Garbage:
    def free() -> None:
        for path in paths:
            discard(path)

    return Garbage(kind, size_of(paths), free)


def _freed(kind: str, garbage: Sequence[Garbage]) -> Freed:
    return Freed(kind, len(garbage), sum(each.size_bytes for each in garbage))
