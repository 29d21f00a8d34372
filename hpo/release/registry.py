"""MLflow's Model Registry: a variant that passed the gate becomes a registered version; who is champion comes after.

The registered model is a pyfunc model from code: `mlflow_model.py`, which MLflow runs, and the release folder with its
own `runtime/`. Nothing is pickled, and this project need not be installed to load it.
"""

from __future__ import annotations

import json
import math
import platform
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hpo.config.objective import gate_of
from hpo.config.sweep_config import SweepConfig
from hpo.errors import UsageError
from hpo.paths import Home
from hpo.release.aliases import CHALLENGER, CHAMPION, aliases_of, seats
from hpo.release.ruling import Ruling
from hpo.release.versions import Version, champion_of, check_name, version_of
from hpo.results.champion import Champion
from hpo.results.released import Release, VariantVerdict
from hpo.tracking.mlflow_store import client, quiet_mlflow
from trainers.protocol.codec import fingerprint
from trainers.protocol.events import PreparedData
from trainers.protocol.files import file_fingerprint
from trainers.runtime.card import Card

_RECORDED = ("torch", "transformers", "peft", "optuna", "mlflow", "onnx", "onnxruntime", "tokenizers", "numpy")
_AGAINST = "\n\nAgainst the champion: "
_MLFLOW_MODEL = Path(__file__).with_name("mlflow_model.py")


@dataclass(frozen=True)
class Candidate:
    """A champion's variant that passed the gate, with all that it was made of."""

    config: SweepConfig
    inspection: PreparedData
    champion: Champion
    adapter: Path
    """The folder of the champion's adapter."""
    chosen: VariantVerdict
    folder: Path
    """The release folder of the chosen variant."""

    def manifest(self) -> dict[str, Any]:
        """The origin of the release: its sweep and trial, the hash of everything it was made of, and versions."""
        return {
            "sweep": self.config.name,
            "trial": self.champion.number,
            "repeat": self.champion.repeat,
            "run_id": self.champion.run_id,
            "variant": self.chosen.variant,
            "sha256": {
                "data": self.inspection.fingerprint,
                "base": self.inspection.model_fingerprint,
                "adapter": file_fingerprint(p for p in self.adapter.iterdir() if p.is_file()),
                "config": fingerprint(self.config.resolved()),
                "onnx": file_fingerprint(self.folder.glob("*.onnx*")),
                "release": file_fingerprint(p for p in self.folder.rglob("*") if p.is_file()),
            },
            "measured": self.measured(),
            "judged": {"drop": self.chosen.drop, "reason": self.chosen.reason, "rows": self.chosen.rows},
            "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _RECORDED}},
        }

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


def register(home: Home, candidate: Candidate) -> Release:
    """Register the candidate's folder under `promote.name`, as a version without an alias."""
    assert candidate.config.promote is not None  # noqa: S101  # the caller promotes
    store, champion, chosen = client(home), candidate.champion, candidate.chosen
    (candidate.folder / "manifest.json").write_text(json.dumps(candidate.manifest(), indent=2))
    card = Card.read(candidate.folder)
    name = candidate.config.promote.name
    source = _log_model(store, candidate, card)
    _ensure_registered(store, name)
    version = store.create_model_version(
        name, source=source, run_id=champion.run_id,
        tags={"variant": chosen.variant, "sweep": candidate.config.name, "trial": str(champion.number)},
        description=chosen.reason,
    )  # fmt: skip
    return Release(
        name, str(version.version), f"models:/{name}/{version.version}", chosen.variant, champion.number,
        champion.run_id, card.example, candidate.config.promote.max_drop, candidate.config.promote.terms,
    )  # fmt: skip


def _log_model(store: MlflowClient, candidate: Candidate, card: Card) -> str:
    """Save the pyfunc model among the artifacts of the champion's run, and return its URI."""
    run_id = candidate.champion.run_id
    place = f"model-{uuid.uuid4().hex[:8]}"  # a new folder: the files of a version are never overwritten
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary, "model")
        _save_pyfunc(model, candidate.folder, card)
        store.log_artifacts(run_id, str(model), place)
    return f"{store.get_run(run_id).info.artifact_uri}/{place}"


def _save_pyfunc(model: Path, folder: Path, card: Card) -> None:
    requirements = ["numpy", "tokenizers", "onnxruntime"] + ([] if card.chat_template is None else ["jinja2"])
    quiet_mlflow()
    mlflow.pyfunc.save_model(
        path=str(model),
        python_model=str(_MLFLOW_MODEL),
        artifacts={"release": str(folder)},
        input_example=[card.example],
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in requirements],
    )


def _ensure_registered(store: MlflowClient, name: str) -> None:
    try:
        store.get_registered_model(name)
    except MlflowException:
        store.create_registered_model(name)


def seat(home: Home, release: Release, rule_on: Callable[[Version | None], Ruling]) -> Release:
    """Give a version the alias that it has earned against the champion of its name; returned as it stands then.

    `rule_on` is asked again where another version has become champion meanwhile. A version that a person has made
    champion, or that was champion before, keeps its alias.
    """
    while True:
        incumbent = champion_of(home, release.name)
        known = aliases_of(home, release.name)
        if release.version in (known.champion, known.previous):
            return _seated(release, Ruling("champion", release.why, release.rivalry))
        ruling = rule_on(incumbent)
        with seats(home, release.name) as held:
            if held.now().champion != (incumbent and incumbent.version):
                continue
            if ruling.decision == "champion":
                held.crown(release.version)
            else:
                held.challenge(release.version, waits=ruling.decision == "waits")
        if ruling.why:
            _describe(home, release, ruling.why)
        return _seated(release, ruling)


def _seated(release: Release, ruling: Ruling) -> Release:
    alias = CHAMPION if ruling.decision == "champion" else CHALLENGER
    return replace(
        release, uri=f"models:/{release.name}@{alias}", decision=ruling.decision, why=ruling.why,
        rivalry=ruling.rivalry,
    )  # fmt: skip


def _describe(home: Home, release: Release, why: str) -> None:
    """Add the comparison to what MLflow's UI shows of a version."""
    store = client(home)
    gate, *_ = (store.get_model_version(release.name, release.version).description or "").split(_AGAINST)
    store.update_model_version(release.name, release.version, f"{gate}{_AGAINST}{why}")


def is_registered(home: Home, release: Release, say: Callable[[str], None]) -> bool:
    """Whether a version is still registered with its files; `say` gets a message where it was deleted in MLflow."""
    found = version_of(home, release.name, release.version)
    if found is not None and found.has_files():
        return True
    say(f"{release.name!r} version {release.version} was deleted in MLflow: releasing it again")
    return False


def give_back(home: Home, release: Release, say: Callable[[str], None]) -> None:
    """Give a released version its alias again, where no version has it any more."""
    if champion_of(home, release.name) is None:
        with seats(home, release.name) as held:
            held.crown(release.version)
        say(f"the alias {CHAMPION!r} of {release.name!r} was deleted in MLflow: giving it to version "
            f"{release.version} again")  # fmt: skip


def released_folder(home: Home, name: str) -> Path:
    """The folder of the release `models:/NAME@champion`. Raises `UsageError` when there is none."""
    check_name(home, name)
    if found := champion_of(home, name):
        return found.folder()
    way = f"hpo approve {name} makes its challenger one; or run its sweep again, or set the alias in MLflow"
    raise UsageError(f"no version of {name!r} has the alias {CHAMPION!r}; {way}")
