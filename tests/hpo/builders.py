"""Small values that several tests of `hpo` need, and a sweep of the fake trainer whose every `search` is a process."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna

from hpo.config.budget import Meter, Spent
from hpo.config.file import load_config
from hpo.config.space import Point
from hpo.config.sweep_config import RetryPolicy, SweepConfig
from hpo.config.trial_specs import TrialSpecs
from hpo.databases.studies import StudiesDatabase
from hpo.executors.inline import InlineExecutor
from hpo.paths import Home
from hpo.progress_view import Silent
from hpo.results.records import StudySnapshot, TrialRecord
from hpo.results.summary import SweepSummary, summarize
from hpo.results.time_left import NOTHING, Ahead
from hpo.search.controller import SearchController
from hpo.search.proposals import Proposals
from hpo.study.revision import open_revision
from hpo.study.study import Study
from hpo.tracking.base import Untracked
from hpo.trials.context import SweepContext
from hpo.trials.fitting import Fitting
from hpo.trials.scheduler import TrialScheduler
from hpo.trials.slots import Slots
from trainers.host import fake
from trainers.host.in_turn import in_turn
from trainers.protocol.codec import from_json
from trainers.protocol.events import TERMINAL, Evaluation, PreparedData, Trained, TrialEvent, TrialResult
from trainers.protocol.requests import Score, Train
from trainers.protocol.trial_spec import TrialSpec

INSPECTION = PreparedData(
    rows={"train": 1000, "validation": 100, "test": 100}, labels=["a", "b"], tokens_dir="", model_dir="",
    fingerprint="1" * 64,
    model_fingerprint="0" * 64, duplicates=0, truncated=0, train_tokens=10000, gpus=0, notes=[],
)  # fmt: skip
RATE = {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}}


def write_sweep(folder: Path, **changes: Any) -> Path:
    """The smallest sweep that passes every check of its file, with keys added or replaced by keyword."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").touch()
    (folder / "train.jsonl").touch()
    config = {"task": "text-classification", "model": "./model", "data": {"train": "train.jsonl"}, **changes}
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def make_config(folder: Path, **changes: Any) -> SweepConfig:
    return load_config(write_sweep(folder, **changes), Home(folder / "home"))


def evaluation(index: int, fraction: float, value: float, metric: str = "f1_macro") -> Evaluation:
    return Evaluation(index, fraction, index, index * 10, index * 100, {metric: value}, 0.0)


def trial_result(state: str = "complete", value: float | None = 0.5, **changes: Any) -> TrialResult:
    stopped_by = {"complete": "budget", "pruned": "pruner", "failed": "failure"}[state]
    fields: dict[str, Any] = {
        "state": state,
        "value": value,
        "metrics": {} if value is None else {"f1_macro": value},
        "best_index": None if value is None else 0,
        "evaluations": [],
        "stopped_by": stopped_by,
        "seconds": 1.0,
    }
    return TrialResult(**{**fields, **changes})


def trial_record(
    number: int, state: str = "complete", value: float | None = 0.5, params: Point | None = None, **changes: Any
) -> TrialRecord:
    """A trial as the study remembers it; `cause` and the like go to its result."""
    told = {name: changes.pop(name) for name in ("cause", "message", "metrics", "seconds") if name in changes}
    result = None if state == "running" else trial_result(state, value, **told)
    fields = {"fingerprint": f"point{number}", "curve": [(0.5, 0.1)], "run_id": f"run{number}", "result": result}
    return TrialRecord(number, state, params or {}, **{**fields, **changes})


def work(request: Any) -> Any:
    """The fake trainer; for a `Train` request, the reports of its only trial."""
    return fake.train(request.spec) if isinstance(request, Train) else fake.work(request)


def of_one_trial(worker: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A worker whose `worker` answers a `Train` request with the reports of its only trial."""

    def working(request: Any) -> Any:
        answer = worker(request)
        return in_turn({request.spec.number: answer}) if isinstance(request, Train) else answer

    return working


class Clock:
    """Shows the seconds that a test lets go by."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the product may catch it."""


class Recording(InlineExecutor):
    """An inline executor that notes what passes through it; its worker answers with the reports of one trial."""

    def __init__(self, worker: Callable[[Any], Any] = work) -> None:
        super().__init__(of_one_trial(worker))
        self.specs: list[TrialSpec] = []
        """Of the trials that were trained, in the order in which they began."""
        self.others: list[Any] = []
        """Requests of other kinds."""
        self.events: list[tuple[int, Any]] = []
        self.verdicts: Counter[tuple[int, str]] = Counter()
        self.most_at_once = 0
        self.devices_at_once: list[list[str]] = []
        self._open: dict[int, TrialSpec] = {}

    def submit(self, request):
        request_id = super().submit(request)
        if not isinstance(request, Train):
            self.others.append(request)
            return request_id
        self.specs.append(request.spec)
        self._open[request_id] = request.spec
        self.most_at_once = max(self.most_at_once, len(self._open))
        self.devices_at_once.append(sorted(spec.device for spec in self._open.values()))
        return request_id

    def wait(self, timeout_s=None):
        message = super().wait(timeout_s)
        if message is not None and message[0] in self._open:
            request_id, event = message
            if not isinstance(event, Trained):
                number = self._open[request_id].number
                self.events.append((number, event.report if isinstance(event, TrialEvent) else event))
            if isinstance(event, TERMINAL):
                del self._open[request_id]
        return message

    def reply(self, request_id, trial, verdict):
        self.verdicts[trial, verdict] += 1
        super().reply(request_id, trial, verdict)


class Elsewhere(Recording):
    """Its requests write to a disk of another machine, from which `fetch` copies what is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda request: work(self._moved(request)))
        self._disk, self._copies = folder / "disk", folder / "copies"

    def fetch(self, path: Path) -> Path:
        there, copy = self._there(path), self._copies / path.relative_to("/")
        if there.is_dir():
            shutil.copytree(there, copy, dirs_exist_ok=True)
        elif there.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(there, copy)
        return copy

    def _there(self, path: Path | str) -> Path:
        return self._disk / Path(path).relative_to("/")

    def _moved(self, request: Any) -> Any:
        """The request as the other machine carries it out."""
        if isinstance(request, Train):
            return dataclasses.replace(request, specs=tuple(self._moved_spec(spec) for spec in request.specs))
        if isinstance(request, Score) and request.spec and request.rows_file:
            rows_file = str(self._there(request.rows_file))
            return dataclasses.replace(request, spec=self._moved_spec(request.spec), rows_file=rows_file)
        return request

    def _moved_spec(self, spec: TrialSpec) -> TrialSpec:
        return dataclasses.replace(spec, dir=str(self._there(spec.dir)))


def stopping_after(trials: int) -> Recording:
    """An executor that kills the process when it is given one trial more."""
    executor = Recording()
    submit = executor.submit

    def killed(request):
        if len(executor.specs) == trials:
            raise Killed
        return submit(request)

    executor.submit = killed  # type: ignore[method-assign]
    return executor


class Repeated(Untracked):
    """Tracking switched off, for finalists too."""

    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []
        self.ended: list[tuple[int, str]] = []
        self.evaluated: set[int] = set()

    def evaluation(self, number, evaluation):
        self.evaluated.add(number)

    def start_repeat(self, spec: TrialSpec, trial: int, repeat: int) -> str:
        self.started.append((trial, repeat))
        return f"repeat-{trial}-{repeat}"

    def finish_trial(self, number, result, paths):
        self.ended.append((number, result.state))


class Said(Silent):
    """A view that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.repeats: dict[int, str] = {}

    def say(self, text: str) -> None:
        self.lines.append(text)

    def repeat_started(self, number: int, label: str, params: Any) -> None:
        self.repeats[number] = label
        self.lines.append(f"trial {label} started")

    def repeat_finished(self, number: int, result: TrialResult) -> None:
        self.lines.append(f"trial {self.repeats.pop(number)} ended: {result.state}")


def scheduler(
    executor: Any, slots: Slots, retry_policy: RetryPolicy, trial_minutes: float | None = None, view: Any = None,
    inspection: Any = INSPECTION,
) -> TrialScheduler:  # fmt: skip
    """A scheduler alone, without a study behind it."""
    config: Any = SimpleNamespace(retry_policy=retry_policy, budget=SimpleNamespace(trial_minutes=trial_minutes))
    nothing: Any = None
    specs = TrialSpecs(config, nothing, inspection)
    return TrialScheduler(SweepContext(specs, nothing, Untracked(), executor, view or Silent(), slots, nothing))


def kept_home(folder: Path, empty_studies: Path, run: Callable[[Path, Path], object]) -> Callable[[], Path]:
    """Runs sweeps once; returns what puts their home back as it was, in the same place: trials know where that is.

    `run` is given the folder and the database; what puts back gives the database.
    """
    home, saved = folder / "home", folder / "saved"
    home.mkdir()
    shutil.copy(empty_studies, home / "studies.db")
    run(folder, home / "studies.db")
    home.rename(saved)

    def put_back() -> Path:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(saved, home)
        return home / "studies.db"

    return put_back


class Sweep:
    """A config with its home and its stored study; whoever opens the study does so as a process of its own would.

    The study stays in memory unless `database` is an empty one on disk, or the one that `HPO_STUDIES` names.
    """

    def __init__(self, folder: Path, database: Path | StudiesDatabase | None = None, **changes: Any) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.changes: dict[str, Any] = {"search_space": RATE, "training": {"max_examples": 100}}
        self.inspection = INSPECTION
        self.storage = optuna.storages.InMemoryStorage()
        self.is_stored = database is not None
        file = database.file if isinstance(database, StudiesDatabase) else database
        if file:
            self.home.dir.mkdir(parents=True, exist_ok=True)
            file.rename(self.home.dir / "studies.db")  # does nothing where it is there already
        self.executor = Recording()
        self.said = Said()
        self.fitting = Fitting()
        self.clock: Callable[[], float] = lambda: 0.0
        self.edit(**changes)

    def edit(self, **changes: Any) -> Sweep:
        """Change keys of the file; None takes one away."""
        self.changes = {name: value for name, value in {**self.changes, **changes}.items() if value is not None}
        self.config = make_config(self.folder, **self.changes)
        return self

    @property
    def specs(self) -> TrialSpecs:
        return TrialSpecs(self.config, self.home, self.inspection)

    def fingerprint_of(self, point: Mapping[str, Any]) -> str:
        return self.specs.fingerprint(point)

    def open(self) -> Study:
        if self.is_stored:
            return open_revision(self.config, self.fingerprint_of, self.home.studies_db)[0]
        return Study(self.config, self.fingerprint_of, self.storage)

    def search(
        self, executor: Recording | None = None, jobs: int = 1, gpus: int = 0, tracker: Any = None, view: Any = None,
        during: Callable[[Study], object] = lambda study: None, warm: Callable[[Study], list[Point]] | None = None,
        ahead: Ahead = NOTHING, devices: int = 1,
    ) -> SearchController:  # fmt: skip
        """One session, from opening the study to the end of the search."""
        study = self.open()
        during(study)
        self.executor = executor or Recording()
        self.proposals = Proposals(self.config, study, warm(study) if warm else [])
        meter = Meter(self.config.budget, study.state.spent, self.clock)
        sweep = SweepContext(
            self.specs, study, tracker or Untracked(), self.executor, view or Silent(),
            Slots(jobs, 1, gpus, devices_per_trial=devices), meter,
            fitting=self.fitting,
        )  # fmt: skip
        search = SearchController(sweep, self.proposals, ahead)
        try:
            TrialScheduler(sweep).run(search)
            search.check_any_succeeded()
        finally:
            study.close()
        return search

    def running(
        self, executor: Recording | None = None, tracker: Any = None, jobs: int = 1, study: Study | None = None
    ) -> SweepContext:
        """What the steps after the search are given."""
        study = study or self.open()
        self.executor = executor or Recording()
        meter = Meter(self.config.budget, Spent(), self.clock)
        return SweepContext(
            self.specs, study, tracker or Repeated(), self.executor, self.said, Slots(jobs, 1), meter,
            fitting=self.fitting,
        )  # fmt: skip

    def summary(self) -> SweepSummary:
        study = self.open()
        state = dataclasses.replace(study.state, config=json.loads(json.dumps(self.config.resolved())))
        return summarize(StudySnapshot(self.config.name, state, study.records()), "complete")

    @property
    def records(self) -> list[TrialRecord]:
        return sorted(self.open().records(), key=lambda record: record.number)

    @property
    def points(self) -> list[Point]:
        return [record.params for record in self.records]

    def paths(self, number: int) -> Any:
        return self.home.sweep(self.config.name).trial(number)

    def result_on_disk(self, number: int) -> TrialResult:
        return from_json(TrialResult, json.loads(self.paths(number).result.read_text()))
