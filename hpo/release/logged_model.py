"""A registered version as a logged model of the run that trained it: MLflow's UI then leads from one to the other."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion

from hpo.paths import Home
from hpo.tracking.mlflow_places import place_model

_BAD = str.maketrans(dict.fromkeys("/:.%\"'", "_"))
"""What MLflow refuses in the name of a logged model."""


def log_as_model(home: Home, store: MlflowClient, version: ModelVersion, params: Mapping[str, str]) -> None:
    """Show a version among the models of its run and experiment; the files stay where the version has them."""
    run = store.get_run(version.run_id)
    of_version = json.dumps([{"name": version.name, "version": str(version.version)}])
    model = store.create_logged_model(
        run.info.experiment_id, name=f"{version.name} v{version.version}".translate(_BAD),
        source_run_id=version.run_id, tags={**version.tags, "mlflow.modelVersions": of_version}, params=dict(params),
        model_type="onnx",
    )  # fmt: skip
    place_model(home, model.model_id, version.source)
    store.finalize_logged_model(model.model_id, "READY")
    store.log_outputs(version.run_id, [LoggedModelOutput(model.model_id, 0)])
