"""The code that MLflow runs to load a release: `runtime/` of the release folder with MLflow's interface.

It is copied into every registered model, and runs where this project is not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import uuid
from pathlib import Path
from typing import Any

import mlflow


class ReleasedModel(mlflow.pyfunc.PythonModel):
    """Answers texts; each answer is a dict that JSON can represent."""

    def load_context(self, context: Any) -> None:
        """Load the release folder of a registered model; MLflow calls this once."""
        folder = Path(context.artifacts["release"])
        # A unique name: two releases in one process may have different runtimes.
        name = f"released_runtime_{uuid.uuid4().hex}"
        spec = importlib.util.spec_from_file_location(name, folder / "runtime" / "__init__.py")
        assert spec is not None and spec.loader is not None  # noqa: S101, PT018  # the folder contains this file
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        self._release = importlib.import_module(f"{name}.release").Release.load(folder)

    # MLflow reads the signature from these type hints; it has none that fits the answers.
    def predict(self, context, model_input: list[str], params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """Answer each text, in order.

        A chat may be given as JSON messages: `[{"role": "user", "content": ...}]`. Several columns are given as JSON
        too: `{"text": ..., "text_pair": ...}`.
        """
        return self._release.predict(list(model_input))


mlflow.models.set_model(ReleasedModel())
