"""What MLflow executes to load a release: `runtime.py` from the release folder, behind MLflow's interface.

Runs where nothing of this project is installed; copied into every registered model.
"""

from __future__ import annotations

import importlib.util
import sys
import uuid
from pathlib import Path
from typing import Any

import mlflow


class ReleasedModel(mlflow.pyfunc.PythonModel):
    """Texts in, one JSON-able answer per text out."""

    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["release"])
        # A name of its own: two releases in one process may carry different runtimes.
        name = f"released_runtime_{uuid.uuid4().hex}"
        spec = importlib.util.spec_from_file_location(name, folder / "runtime.py")
        assert spec is not None and spec.loader is not None  # noqa: S101, PT018  # the folder holds its runtime
        runtime = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(runtime)
        self._release = runtime.Release.load(folder)

    # MLflow takes the signature from these hints; it knows no hint for the answers, so there is none.
    def predict(self, context, model_input: list[str], params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """Answer each text. A chat may be given as its messages in JSON, `[{"role": "user", "content": ...}]`; an input
        of several columns is JSON too: `{"text": ..., "text_pair": ...}`."""
        return self._release.predict(list(model_input))


mlflow.models.set_model(ReleasedModel())
