"""A sweep's state in the attributes of its Optuna study: each field under its own name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hpo.results.outcome import FinalistsOutcome
from hpo.results.state import FORMAT, SweepState
from trainers.protocol.codec import from_json, to_json


class LaterFormat(ValueError):
    """Records that a newer hpo wrote, in a form that this one cannot read rightly."""


def read_state(attrs: Mapping[str, Any]) -> SweepState:
    """The state in a study's attributes: unknown ones are ignored, missing ones have their default.

    Raises `LaterFormat`, and `ValueError` where they do not fit.
    """
    if attrs.get("format", FORMAT) > FORMAT:
        raise LaterFormat(f"its records have format {attrs['format']}, this one reads {FORMAT}")
    return from_json(SweepState, attrs)


def attribute(value: Any) -> Any:
    """A field of the state as plain JSON values."""
    if isinstance(value, FinalistsOutcome):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return [attribute(item) for item in value] if isinstance(value, (list, tuple)) else value
