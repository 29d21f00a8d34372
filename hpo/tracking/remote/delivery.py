"""Delivers a sweep's runs to a tracking server: whatever it lacks, in order, once, whenever the last attempt ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlflow.exceptions import MlflowException

from hpo.databases.sqlite import opened
from hpo.paths import Home
from hpo.tracking.mlflow_store import client
from hpo.tracking.remote.copies import Lost, RunCopies
from hpo.tracking.remote.ledger import Entry, Ledger, opened_ledger
from hpo.tracking.remote.problems import Missing, OwnStore, Refused, Unavailable
from hpo.tracking.remote.source import LocalFile, LocalRun, RunSource
from hpo.tracking.remote.store import RemoteStore

_LOSES = "has lost runs that it had"
_OWN = "has this home's own store: nothing is to be copied; let MLFLOW_TRACKING_URI name another server, or none"


class Delivery:
    """The runs of one sweep on their way to one server."""

    def __init__(self, store: RemoteStore, source: RunSource, ledger: Ledger) -> None:
        self._store = store
        self._source = source
        self._ledger = ledger
        self._copies = RunCopies(store, source, ledger)
        self._entries = ledger.entries()
        self._runs = source.runs()
        self._is_checked = False
        self._refused: dict[str, str] = {}
        """What the server has refused in this process, as it was -> why; it is not sent again."""
        self.sent_runs: set[str] = set()
        self.sent_files = 0

    @property
    def total(self) -> int:
        """How many runs the sweep has."""
        return len(self._runs)

    @property
    def waiting(self) -> int:
        """How many of them are not there as a whole."""
        return sum(self._entry(run) != Entry(self._entry(run).remote, run.version, run.version) for run in self._runs)

    @property
    def written(self) -> int:
        """How many requests of this process have changed something on the server."""
        return self._store.written

    @property
    def refusals(self) -> list[str]:
        """Why the server has refused what it did, each reason once."""
        return list(dict.fromkeys(self._refused.values()))

    def has_changed(self) -> bool:
        """Whether anybody has written to the home's store since the last call."""
        return self._source.has_changed()

    def records(self) -> None:
        """Deliver all that the home's store has: values, parameters, tags, states. Raises `Unavailable`."""
        self._runs = self._source.runs()
        self._name_runs()
        try:
            self._check_server()
            self._deliver_records()
        except Lost:
            self._forget()
            try:
                self._deliver_records()
            except Lost:
                raise Unavailable(_LOSES) from None

    def _check_server(self) -> None:
        """Raises `OwnStore`, and `Lost` where the server no longer has the first or the last run that it had: it may
        have come back from a backup. Asked once."""
        if self._is_checked or not self._runs:
            return
        if self._store.has(self._runs[0].run_id, self._source.sweep):
            raise OwnStore(_OWN)
        known = [run for run in self._runs if run.run_id in self._entries]
        for run in dict.fromkeys([*known[:1], *known[-1:]]):
            with self._unless_gone(run), self._without_refusal():
                self._copies.check(run.run_id)
        self._is_checked = True

    @contextmanager
    def _unless_gone(self, run: LocalRun) -> Iterator[None]:
        """Pass over what the home's own store raises about a run that somebody deletes meanwhile."""
        try:
            yield
        except MlflowException:
            there = self._source.runs()
            if run in there:
                raise
            ids = {found.run_id for found in there}
            self._runs = [known for known in self._runs if known.run_id in ids]

    def _deliver_records(self) -> None:
        before = -1
        while before != (before := self._count()):  # texts that name a run which came later are sent in a second round
            for run in self._runs:
                if self._entry(run).records != run.version and run.version not in self._refused:
                    self._deliver(run)
        try:
            self._copies.update_experiments()
        except Refused as refused:  # nobody's run waits for it
            self._refused.setdefault("experiment", f"{self._store.url} {refused}")

    def _deliver(self, run: LocalRun) -> None:
        is_whole = False
        try:
            with self._unless_gone(run):
                is_whole = self._copies.update(run.run_id)
        except Refused as refused:
            self._refused[run.version] = f"{self._store.url} {refused}"
        if is_whole:
            self._settle(run, records=run.version)

    def files(self) -> Iterator[None]:
        """Deliver the files of runs whose records are there, one file at each step. Raises `Unavailable`."""
        for run in self._runs:
            entry = self._entry(run)
            if entry.records == run.version and entry.files != run.version:
                yield from self._files_of(run)

    def _files_of(self, run: LocalRun) -> Iterator[None]:
        unsent = None
        with self._unless_gone(run):
            unsent = self._unsent_files(run)
        is_whole = unsent is not None
        for owner, place, file in unsent or []:
            key = f"{owner} {file.path} {file.stamp}"
            if key not in self._refused and self._put(key, owner, place, file):
                yield
            is_whole = is_whole and key not in self._refused
        if is_whole:
            self._settle(run, files=run.version)
            self._copies.release(run.run_id)

    def _put(self, key: str, owner: str, place: str, file: LocalFile) -> bool:
        """Send a file; whether it is there now."""
        try:
            self._store.put_file(place, file)
        except FileNotFoundError:
            return False  # it was deleted here before it was sent
        except Refused as refused:
            self._refused[key] = f"{self._store.url} {refused}"
            return False
        self._ledger.put_file(owner, file.path, file.stamp)
        self.sent_files += 1
        return True

    def _unsent_files(self, run: LocalRun) -> list[tuple[str, str, LocalFile]]:
        """Owner, artifact URI and file of each that the server lacks."""
        here = self._source.client.get_run(run.run_id).info.artifact_uri
        try:
            owners = [*self._copies.models.places(run.run_id), (run.run_id, here, self._place(run.run_id))]
        except (Lost, Missing):
            self._forget()
            raise Unavailable(_LOSES) from None
        found: dict[Path, tuple[str, str, LocalFile]] = {}
        for owner, folder, place in owners:
            for file in self._source.files(folder):
                found.setdefault(file.file, (owner, place, file))  # a model's files may be among those of its run
        there = {owner: self._ledger.files(owner) for owner, _, _ in owners}
        return [waits for waits in found.values() if there[waits[0]].get(waits[2].path) != waits[2].stamp]

    def _place(self, run_id: str) -> str:
        """The artifact URI of a run's copy. Raises `Unavailable`, and `Lost`."""
        with self._without_refusal():
            return self._copies.place(run_id)

    @contextmanager
    def _without_refusal(self) -> Iterator[None]:
        """A server that refuses to say what it has is of no use now."""
        try:
            yield
        except Refused as refused:
            raise Unavailable(str(refused)) from refused

    # --- what is written down ----------------------------------------------------------------------

    def _entry(self, run: LocalRun) -> Entry:
        return self._entries.get(run.run_id, Entry(""))

    def _count(self) -> int:
        return sum(self._entry(run).records == run.version for run in self._runs)

    def _settle(self, run: LocalRun, **versions: str) -> None:
        there = Entry(self._copies.names.ids[run.run_id])
        self._entries[run.run_id] = dataclasses.replace(self._entries.get(run.run_id, there), **versions)
        self._ledger.put(run.run_id, self._entries[run.run_id])
        self.sent_runs.add(run.run_id)

    def _forget(self) -> None:
        self._ledger.forget()
        self._entries = {}
        self._copies = RunCopies(self._store, self._source, self._ledger)
        self._name_runs()

    def _name_runs(self) -> None:
        """Say what will have a copy, so that texts about it wait for it."""
        names = self._copies.names
        names.versions = self._source.versions()
        names.local = {run.run_id for run in self._runs} | {model for _, model in names.versions.values()}


@contextmanager
def opened_delivery(home: Home, sweep: str, url: str) -> Iterator[Delivery]:
    """A sweep's delivery to the server at `url`; its lock is the caller's. Raises `HpoError` for a damaged database."""
    store = client(home)
    with ExitStack() as open_files:
        runs = open_files.enter_context(opened(home.mlflow_db))
        ledger = open_files.enter_context(opened_ledger(home.sweep(sweep).remote_ledger, url))
        yield Delivery(RemoteStore(url), RunSource(home, sweep, runs, store), ledger)
