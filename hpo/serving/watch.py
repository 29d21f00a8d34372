"""What watches over requests: the filters that they pass, and the log of predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hpo.config.serve_config import FilterSpec, ServeConfig
from hpo.errors import HpoError, UsageError
from hpo.lock import hold_shared
from hpo.serving.block_list import BlockList, Phrases, read_phrases
from hpo.serving.classifier_filter import ClassifierFilter
from hpo.serving.filters import Filter
from hpo.serving.function_filter import FunctionFilter, load_function
from hpo.serving.gate import Gate
from hpo.serving.prediction_log import PredictionLog
from hpo.serving.worker import answer_example
from trainers.runtime.bundle import Bundle
from trainers.runtime.card import ReleaseError
from trainers.runtime.classify import Classifier
from trainers.runtime.release import Release


@dataclass(frozen=True)
class Watch:
    """Filters and log of a server; both may be missing."""

    gate: Gate = field(default_factory=Gate)
    log: PredictionLog | None = None

    def lines(self) -> Iterator[str]:
        """The counts of both as lines of Prometheus's text."""
        if self.gate:
            yield from self.gate.lines()
        if self.log is not None:
            yield from self.log.lines()

    def close(self) -> None:
        """Write the log to its end, then end what works for the filters, which may hang."""
        if self.log is not None:
            self.log.close()
        self.gate.close()


def make_watch(config: ServeConfig) -> Watch:
    """Load the filters and open the log. Raises `HpoError` for a file that cannot be used."""
    filters = [_filter(spec) for spec in config.filters]
    return Watch(Gate(filters), None if config.log is None else PredictionLog(config.log))


def _filter(spec: FilterSpec) -> Filter:
    path = Path(spec.path)
    if spec.kind == "block_list":
        try:
            return BlockList(spec.name, Phrases(read_phrases(path)), spec.action)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read: {type(error).__name__}") from error
    if spec.kind == "function":
        return FunctionFilter(spec.name, load_function(path, spec.function), spec.hold)
    try:
        hold_shared(path / "release.json")  # as of a served model: `hpo delete` and `hpo gc` leave it alone
        release = Release.load(path, is_served=True)
        if isinstance(release, Bundle):
            release = release.champion or release
        answer_example(release, path)
    except (OSError, ReleaseError) as error:
        raise HpoError(f"{spec.name}: {error}") from error
    if not isinstance(release, Classifier):
        raise UsageError(f"{spec.name}: {path} is a model of {release.card.task}; expected a classifier of texts")
    return ClassifierFilter(spec.name, release, spec.thresholds, spec.hold)
