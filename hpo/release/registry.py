"""The MLflow room for models: a judged variant becomes a registered version with the alias `champion`.

The registered model is a pyfunc model from code: `mlflow_model.py` (what MLflow executes) and the release folder
with its own `runtime.py`. Nothing is pickled, and nothing of this project needs to be installed to load it.
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
from hpo.results.champion import Champion
from hpo.results.released import Judged, Release
from hpo.sqlite import usable
from hpo.tracking.mlflow_store import client, quiet_mlflow
from trainers.protocol.codec import fingerprint
from trainers.protocol.files import file_fingerprint
from trainers.protocol.messages import PreparedData
from trainers.runtime import Card

ALIAS = "champion"
_RECORDED = ("torch", "transformers", "peft", "optuna", "mlflow", "onnx", "onnxruntime", "tokenizers", "numpy")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow says of a model, a version or an alias that is not there, or cannot be."""
_MLFLOW_MODEL = Path(__file__).with_name("mlflow_model.py")


def release_model(
    home: Home, config: SweepConfig, inspection: PreparedData, champion: Champion, chosen: Judged, folder: Path,
    adapter: Path,
) -> Release:  # fmt: skip
    """Register `folder` under `promote.name` and move the alias `champion` to it."""
    assert config.promote is not None  # noqa: S101  # the caller promotes
    store = client(home)
    manifest = _manifest(config, inspection, champion, chosen, folder, adapter)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
    place = f"model-{uuid.uuid4().hex[:8]}"  # a version's files are never written over
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary, "model")
        card = Card.read(folder)
        _save_pyfunc(model, folder, card)
        store.log_artifacts(champion.run_id, str(model), place)
    name = config.promote.name
    _ensure_registered(store, name)
    source = f"{store.get_run(champion.run_id).info.artifact_uri}/{place}"
    version = store.create_model_version(
        name, source=source, run_id=champion.run_id,
        tags={"variant": chosen.variant, "sweep": config.name, "trial": str(champion.number)},
        description=chosen.reason,
    )  # fmt: skip
    store.set_registered_model_alias(name, ALIAS, version.version)
    return Release(
        name, str(version.version), f"models:/{name}@{ALIAS}", chosen.variant, champion.number, champion.run_id,
        card.example, config.promote.max_drop,
    )  # fmt: skip


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
    """The version that has the alias `champion` now."""

    name: str
    version: str
    sweep: str | None
    """None for one that no sweep released."""
    source: str

    def __str__(self) -> str:
        return f"version {self.version}" + (f" of sweep {self.sweep!r}" if self.sweep else ", which no sweep released")

    def folder(self) -> Path:
        """Where its release lies. Raises `HpoError` where its files are gone."""
        try:
            local = mlflow.artifacts.download_artifacts(self.source)
            return next(path for path in Path(local, "artifacts").iterdir() if path.is_dir())
        except (OSError, MlflowException, StopIteration) as error:
            way = "run its sweep again to release it anew"
            raise HpoError(f"the files of {self.name!r} version {self.version} are gone: {error}; {way}") from error


def incumbent_of(home: Home, name: str) -> Incumbent | None:
    """None where no version has the alias."""
    try:
        version = client(home).get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        return None
    return Incumbent(name, str(version.version), version.tags.get("sweep"), version.source)


def has_release(home: Home, name: str, version: str, say: Callable[[str], None]) -> bool:
    """Whether a version is still registered, with its files; where no version has the alias, it gets it again."""
    store = client(home)
    try:
        found = store.get_model_version(name, version)
        Incumbent(name, version, None, found.source).folder()
    except (MlflowException, HpoError) as error:
        if isinstance(error, MlflowException) and error.error_code not in _ABSENT:
            raise
        say(f"{name!r} version {version} was deleted in MLflow: it is released anew")
        return False
    if incumbent_of(home, name) is None:
        store.set_registered_model_alias(name, ALIAS, version)
        say(f"the alias {ALIAS!r} of {name!r} was deleted in MLflow: version {version} has it again")
    return True


def released_folder(home: Home, name: str) -> Path:
    """Where the release behind `models:/NAME@champion` lies. Raises `UsageError` when there is none."""
    if not usable(home.mlflow_db):
        raise UsageError(f"no released model {name!r}: there is no store at {home.mlflow_db}")
    if not name.isprintable():  # half characters, which no database takes
        raise UsageError(f"no released model {name!r}: that is no name")
    if found := incumbent_of(home, name):
        return found.folder()
    names = [m.name for m in client(home).search_registered_models()]
    if name in names:
        way = f"run its sweep again, or give a version the alias {ALIAS!r} in MLflow"
        raise UsageError(f"no version of {name!r} is its {ALIAS}; {way}")
    known = f"there are: {', '.join(names[:10])}" if names else "there are none yet"
    raise UsageError(f"no released model {name!r}; {known}")


def _manifest(
    config: SweepConfig, inspection: PreparedData, champion: Champion, chosen: Judged, folder: Path, adapter: Path
) -> dict[str, Any]:
    """Hashes of everything the release was made of."""
    return {
        "sweep": config.name,
        "trial": champion.number,
        "repeat": champion.repeat,
        "run_id": champion.run_id,
        "variant": chosen.variant,
        "sha256": {
            "data": inspection.fingerprint,
            "base": inspection.model_fingerprint,
            "adapter": file_fingerprint(p for p in adapter.iterdir() if p.is_file()),
            "config": fingerprint(config.resolved()),
            "onnx": file_fingerprint(folder.glob("model.onnx*")),
            "release": file_fingerprint(p for p in folder.iterdir() if p.is_file()),
        },
        "judged": {"drop": chosen.drop, "reason": chosen.reason},
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _RECORDED}},
    }
