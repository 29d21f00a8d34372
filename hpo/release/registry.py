"""MLflow's Model Registry: a variant that passed the gate becomes a registered version with the alias `champion`.

The registered model is a pyfunc model from code: `mlflow_model.py`, which MLflow runs, and the release folder with its
own `runtime/`. Nothing is pickled, and this project need not be installed to load it.
"""

from __future__ import annotations

import json
import platform
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hpo.config.sweep_config import SweepConfig
from hpo.errors import HpoError, UsageError
from hpo.paths import Home
from hpo.quoting import listed
from hpo.results.champion import Champion
from hpo.results.released import Release, VariantVerdict
from hpo.sqlite import usable
from hpo.tracking.mlflow_store import client, quiet_mlflow
from trainers.protocol.codec import fingerprint
from trainers.protocol.events import PreparedData
from trainers.protocol.files import file_fingerprint
from trainers.runtime.card import Card

ALIAS = "champion"
_RECORDED = ("torch", "transformers", "peft", "optuna", "mlflow", "onnx", "onnxruntime", "tokenizers", "numpy")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a model, a version or an alias that does not exist, or whose name is invalid."""
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
            "judged": {"drop": self.chosen.drop, "reason": self.chosen.reason, "rows": self.chosen.rows},
            "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _RECORDED}},
        }


def release_model(home: Home, candidate: Candidate) -> Release:
    """Register the candidate's folder under `promote.name`, and move the alias `champion` to the new version."""
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
    store.set_registered_model_alias(name, ALIAS, version.version)
    return Release(
        name, str(version.version), f"models:/{name}@{ALIAS}", chosen.variant, champion.number, champion.run_id,
        card.example,
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


@dataclass(frozen=True)
class Incumbent:
    """The registered version that has the alias `champion` now."""

    name: str
    version: str
    sweep: str | None
    """None for a version that no sweep released."""
    source: str

    def __str__(self) -> str:
        return f"version {self.version}" + (f" of sweep {self.sweep!r}" if self.sweep else ", which no sweep released")

    def folder(self) -> Path:
        """The folder of its release. Raises `HpoError` where its files are gone."""
        try:
            local = mlflow.artifacts.download_artifacts(self.source)
            return next(path for path in Path(local, "artifacts").iterdir() if path.is_dir())
        except (OSError, MlflowException, StopIteration) as error:
            way = "run its sweep again to release it again"
            raise HpoError(f"the files of {self.name!r} version {self.version} are gone: {error}; {way}") from error


def incumbent_of(home: Home, name: str) -> Incumbent | None:
    """The version of `name` with the alias `champion`; None where no version has it."""
    try:
        version = client(home).get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        return None
    return Incumbent(name, str(version.version), version.tags.get("sweep"), version.source)


def has_release(home: Home, name: str, version: str, say: Callable[[str], None]) -> bool:
    """Whether a version is still registered with its files; where no version has the alias, it gets the alias back.

    `say` gets a message about what was deleted in MLflow.
    """
    store = client(home)
    try:
        found = store.get_model_version(name, version)
        Incumbent(name, version, None, found.source).folder()
    except (MlflowException, HpoError) as error:
        if isinstance(error, MlflowException) and error.error_code not in _ABSENT:
            raise
        say(f"{name!r} version {version} was deleted in MLflow: releasing it again")
        return False
    if incumbent_of(home, name) is None:
        store.set_registered_model_alias(name, ALIAS, version)
        say(f"the alias {ALIAS!r} of {name!r} was deleted in MLflow: giving it to version {version} again")
    return True


def released_folder(home: Home, name: str) -> Path:
    """The folder of the release `models:/NAME@champion`. Raises `UsageError` when there is none."""
    if not usable(home.mlflow_db):
        raise UsageError(f"no released model {name!r}: there is no database at {home.mlflow_db}")
    if not name.isprintable():  # lone surrogates, which no database accepts
        raise UsageError(f"no released model {name!r}: a name has printable characters only")
    if found := incumbent_of(home, name):
        return found.folder()
    names = [m.name for m in client(home).search_registered_models()]
    if name in names:
        way = f"run its sweep again, or give a version the alias {ALIAS!r} in MLflow"
        raise UsageError(f"no version of {name!r} has the alias {ALIAS!r}; {way}")
    known = f"there are: {listed(names)}" if names else "there are none yet"
    raise UsageError(f"no released model {name!r}; {known}")
