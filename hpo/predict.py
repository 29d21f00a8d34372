"""Answers from a released model. Loads no torch and no MLflow model wrapper: the release's own runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpo.home import Home
from hpo.registry import released_folder
from trainers.export.runtime import Release


def predict(home: Home, name: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """One answer per text: label and scores, or generated text. Raises `UsageError` for a name that is none."""
    return Release.load(released_folder(home, name)).predict(list(texts))
