"""What MLflow executes to load a release: `runtime.py` from the release folder, behind MLflow's interface.

Runs where nothing of this project is installed; copied into every registered model.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import mlflow


class ReleasedModel(mlflow.pyfunc.PythonModel):
    """Texts in, one JSON-able answer per text out."""

    # MLflow reads type hints as a schema and warns of those it does not know: hence none on `predict`.
    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["release"])
        spec = importlib.util.spec_from_file_location("released_runtime", folder / "runtime.py")
        assert spec is not None and spec.loader is not None  # noqa: S101, PT018  # the folder holds its runtime
        runtime = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(runtime)
        self._release = runtime.Release.load(folder)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return self._release.predict(_texts(model_input))


def _texts(model_input: Any) -> list[Any]:
    """A list of texts from whatever MLflow hands over: a list, an array or a frame with one column."""
    if hasattr(model_input, "iloc"):
        model_input = model_input.iloc[:, 0].tolist()
    elif hasattr(model_input, "tolist"):
        model_input = model_input.tolist()
    values = [model_input] if isinstance(model_input, str) else list(model_input)
    return [json.loads(v) if isinstance(v, str) and v.startswith("[{") else v for v in values]


mlflow.models.set_model(ReleasedModel())
