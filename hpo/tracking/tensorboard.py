"""Writes TensorBoard's event files with the same curves as in MLflow, one folder per trial.

Only the sweep's process writes them, with TensorBoard's own protocol buffers (https://www.tensorflow.org/tensorboard).
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from hpo.config.sweep_config import SweepConfig
from hpo.executors.base import Fetch, here
from hpo.paths import Home
from hpo.results.records import TrialRecord
from hpo.tracking import curves
from hpo.tracking.metric_names import safe_name
from hpo.tracking.mlflow_tracker import Tracker
from trainers.protocol.events import Evaluation, PreparedData, Step, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.trial_spec import TrialSpec


class TensorBoardTracker(Tracker):
    """Writes MLflow's runs, and event files with the same curves."""

    def __init__(
        self, home: Home, config: SweepConfig, inspection: PreparedData,
        say: Callable[[str], None] = lambda text: None, fetch: Fetch = here, origin: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(home, config, inspection, say, fetch, origin)
        self._home = home
        self._sweep = config.name
        self._files: dict[int, EventFile] = {}

    def start_trial(self, spec: TrialSpec, record: TrialRecord, *, is_baseline: bool) -> str:
        self._files[spec.number] = EventFile(self._home.events(self._sweep, spec.number), spec)
        return super().start_trial(spec, record, is_baseline=is_baseline)

    def start_repeat(self, spec: TrialSpec, trial: int, repeat: int) -> str:
        self._files[spec.number] = EventFile(self._home.events(self._sweep, trial, repeat), spec)
        return super().start_repeat(spec, trial, repeat)

    def step(self, number: int, step: Step) -> None:
        self._files[number].add(step.examples, curves.of_step(step))
        super().step(number, step)

    def evaluation(self, number: int, evaluation: Evaluation) -> None:
        self._files[number].add(evaluation.examples, curves.of_evaluation(evaluation))
        super().evaluation(number, evaluation)

    def finish_trial(self, number: int, result: TrialResult, paths: TrialPaths) -> None:
        ended = result.evaluations[-1].examples if result.evaluations else 0  # a trial that goes on ends once more
        self._files.pop(number).add(ended, curves.best_of(result))
        super().finish_trial(number, result, paths)


class EventFile:
    """The curves of one trial, in one file that only grows.

    A trial that is resumed or retried repeats the steps since its checkpoint, with the same numbers. So all points that
    were written stay, and each curve accepts only points after its last one: no point is drawn twice.
    """

    def __init__(self, folder: Path, spec: TrialSpec) -> None:
        """Create the trial's file, or continue the one from an earlier session."""
        self._path = folder / f"events.out.tfevents.{spec.fingerprint()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        for stranger in set(folder.glob("*.tfevents.*")) - {self._path}:
            stranger.unlink()  # from another trial that had this number before
        self._last = self._take_up()
        """Curve -> training examples at its last point."""
        if not self._last:
            self._append(Event(file_version="brain.Event:2"))
            self._add(0, hparams_pb(curves.settings_of(spec), trial_id=spec.fingerprint()))

    def add(self, examples: int, values: Mapping[str, float]) -> None:
        """Add a point at `examples` training examples to each curve that does not have one there or later."""
        named = {_tag(name): value for name, value in values.items()}
        new = [Summary.Value(tag=n, simple_value=v) for n, v in named.items() if examples > self._last.get(n, -1)]
        if new:
            self._add(examples, Summary(value=new))

    def _add(self, examples: int, summary: Any) -> None:
        self._append(Event(step=examples, summary=summary))
        self._last |= {value.tag: examples for value in summary.value}

    def _append(self, event: Any) -> None:
        event.wall_time = time.time()
        with self._path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())

    def _take_up(self) -> dict[str, int]:
        """The last point of each curve; an incomplete record, or a header without its settings, is cut off the file."""
        last: dict[str, int] = {}
        whole = 0
        for end, event in _records(self._path.read_bytes() if self._path.exists() else b""):
            last |= {value.tag: event.step for value in event.summary.value}
            whole = end if last else 0
        if self._path.exists():
            os.truncate(self._path, whole)
        return last


def _tag(name: str) -> str:
    """The name of a curve: TensorBoard accepts any valid text, which lone surrogates are not."""
    return name if name.isascii() or name == name.encode("utf-8", "replace").decode() else safe_name(name)


def _records(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (end offset, event) of each complete record.

    A record is the length (uint64), its checksum (uint32), the event and its checksum (uint32).
    """
    start = 0
    while start + 12 <= len(data):
        body = start + 12
        end = body + struct.unpack_from("<Q", data, start)[0] + 4
        if end > len(data) or struct.unpack_from("<I", data, end - 4)[0] != masked_crc32c(data[body : end - 4]):
            return
        yield end, Event.FromString(data[body : end - 4])
        start = end
