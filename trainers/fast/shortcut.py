"""What a shortcut is: another way to compute the same, put on a model and taken off again."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Protocol

from trainers.memory import is_out_of_memory

MOST_LETTERS = 200
"""Of a reason, in a log or a note."""


class Unknown(Exception):
    """Something is not as a shortcut knows it. The message says what, in plain words."""


class Shortcut(Protocol):
    """Another way to compute the same. Each looks only for what it knows: all else is computed the plain way."""

    def fits(self, model: Any) -> str | None:
        """Why a model has no use for it, by its kind; None where it has. Raises `Unknown` for what should be known."""
        ...

    def check(self) -> None:
        """Compare its own functions with plain ones on small tensors. Raises `Unknown` where they differ."""
        ...

    def apply(self, model: Any, undo: ExitStack) -> None:
        """Put it on a model, in place; each change first leaves its way back in `undo`."""
        ...


def body_of(model: Any) -> Any:
    """The model's embeddings and layers, below PEFT's model and the task's head."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model


def reason(error: Exception) -> str:
    """Why a shortcut is not used, from what it raised, on one line.

    Raises the error itself where memory ran out: the plain way needs as much, so that is for whoever runs the trial.
    """
    if is_out_of_memory(error):
        raise error
    said = " ".join(str(error).split())[:MOST_LETTERS]
    return said if isinstance(error, Unknown) else f"{type(error).__name__}: {said}"
