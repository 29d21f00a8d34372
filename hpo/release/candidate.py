"""A champion's variant that passed the gate, with all that it was made of: what its manifest says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.config.objective import gate_of
from hpo.config.sweep_config import SweepConfig
from hpo.release.manifest import BaseFacts, DataFacts, Manifest, TrainingFacts, hashes_of, versions_here
from hpo.results.champion import Champion
from hpo.results.released import VariantVerdict
from hpo.results.summary import SweepSummary
from hpo.trials.environment import git_commit, read_environment
from hpo.trials.trial_files import read_result, read_spec
from trainers.protocol.codec import fingerprint
from trainers.protocol.events import PreparedData
from trainers.protocol.files import TrialPaths, file_fingerprint


@dataclass(frozen=True)
class Candidate:
    """A champion's variant that passed the gate, with all that it was made of."""

    config: SweepConfig
    inspection: PreparedData
    champion: Champion
    trained: TrialPaths
    """The files of the champion's training."""
    adapter: Path
    """The folder of the champion's adapter, where this process can read it."""
    chosen: VariantVerdict
    folder: Path
    """The release folder of the chosen variant."""
    summary: SweepSummary
    """Of the sweep, with the verdicts on all variants; its champion is this training."""
    adapters: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Of a release whose adapters lie beside the base: where each comes from, the champion's first; else empty."""

    def manifest(self) -> Manifest:
        """The origin of the release: its sweep and trial, the hash of everything it was made of, and versions."""
        config, inspection, champion = self.config, self.inspection, self.champion
        return Manifest(
            sweep=config.name,
            trial=champion.number,
            repeat=champion.repeat,
            run_id=champion.run_id,
            variant=self.chosen.variant,
            sha256={
                "data": inspection.fingerprint,
                "base": inspection.model_fingerprint,
                "adapter": file_fingerprint(p for p in self.adapter.iterdir() if p.is_file()),
                "config": fingerprint(config.resolved()),
                "onnx": file_fingerprint(self.folder.glob("*.onnx*")),
                "release": file_fingerprint(p for p in self.folder.rglob("*") if p.is_file()),
            },
            files=hashes_of(self.folder),
            data=DataFacts.of(config, inspection),
            base=BaseFacts.of(config.model, inspection),
            training=self._training(),
            measured=self.measured(),
            judged={"drop": self.chosen.drop, "reason": self.chosen.reason, "rows": self.chosen.rows},
            versions=versions_here(),
            adapters=dict(self.adapters),
        )

    def _training(self) -> TrainingFacts:
        spec, result = read_spec(self.trained), read_result(self.trained)
        commit = git_commit(self.config.file.resolve().parent)
        return TrainingFacts.of(spec, result, self.champion.params, read_environment(self.trained), commit)

    def measured(self) -> dict[str, Any]:
        """The gate's metric, and what the variant was measured at; without numbers that JSON does not have."""
        gate, found = gate_of(self.config.task, self.config.objective), self.chosen.measurement
        if found is None:
            return {"metric": gate.metric}
        numbers = {"size_mb": found.size_mb, "latency_p50_ms": found.latency_p50_ms,
                   "latency_p95_ms": found.latency_p95_ms, "tokens_per_second": found.tokens_per_second}  # fmt: skip
        return {
            "metric": gate.metric,
            "metrics": {name: value for name, value in found.metrics.items() if math.isfinite(value)},
            "rows": self.chosen.rows,
            **{name: value for name, value in numbers.items() if value is not None and math.isfinite(value)},
            **({"agreement": [found.agreement.equal, found.agreement.count]} if found.agreement else {}),
        }
