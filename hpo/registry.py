"""The MLflow room for models: a judged variant becomes a registered version with the alias `champion`.

The registered model is a pyfunc model from code: `released_model.py` (what MLflow executes) and the release folder
with its own `runtime.py`. Nothing is pickled, and nothing of this project needs to be installed to load it.
"""

from __future__ import annotations

import json
import platform
import tempfile
import uuid
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hpo.champion import Champion
from hpo.config import SweepConfig
from hpo.errors import HpoError, UsageError
from hpo.gates import Judged
from hpo.home import Home
from hpo.mlflow_store import client, quiet_mlflow
from hpo.sqlite import usable
from trainers.codec import fingerprint
from trainers.export.runtime import Card
from trainers.files import file_fingerprint
from trainers.spec import Inspection

ALIAS = "champion"
_RECORDED = ("torch", "transformers", "peft", "optuna", "mlflow", "onnx", "onnxruntime", "tokenizers", "numpy")
_RELEASED_MODEL = Path(__file__).with_name("released_model.py")


@dataclass(frozen=True)
class Release:
    """A registered version: what serving loads."""

    name: str
    version: str
    uri: str
    variant: str
    trial: int
    run_id: str
    example: str
    """An input that it takes, as text."""


def release_model(
    home: Home, config: SweepConfig, inspection: Inspection, champion: Champion, chosen: Judged, folder: Path,
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
        card.example,
    )  # fmt: skip


def _save_pyfunc(model: Path, folder: Path, card: Card) -> None:
    requirements = ["numpy", "tokenizers", "onnxruntime"] + ([] if card.chat_template is None else ["jinja2"])
    quiet_mlflow()
    mlflow.pyfunc.save_model(
        path=str(model),
        python_model=str(_RELEASED_MODEL),
        artifacts={"release": str(folder)},
        input_example=[card.example],
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in requirements],
    )


def _ensure_registered(store: MlflowClient, name: str) -> None:
    try:
        store.get_registered_model(name)
    except MlflowException:
        store.create_registered_model(name)


def released_folder(home: Home, name: str) -> Path:
    """Where the release behind `models:/NAME@champion` lies. Raises `UsageError` when there is none."""
    if not usable(home.mlflow_db):
        raise UsageError(f"no released model {name!r}: there is no store at {home.mlflow_db}")
    store = client(home)
    try:
        version = store.get_model_version_by_alias(name, ALIAS)
    except MlflowException:
        names = [m.name for m in store.search_registered_models()]
        known = f"there are: {', '.join(names)}" if names else "there are none yet"
        raise UsageError(f"no released model {name!r}; {known}") from None
    try:
        local = mlflow.artifacts.download_artifacts(version.source)
        return next(Path(local, "artifacts").iterdir())
    except (OSError, MlflowException, StopIteration) as error:
        raise HpoError(f"the files of {name!r} version {version.version} are gone: {error}") from error


def _manifest(
    config: SweepConfig, inspection: Inspection, champion: Champion, chosen: Judged, folder: Path, adapter: Path
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
