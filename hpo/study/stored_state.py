"""A sweep's state in the attributes of its Optuna study: each field under its own name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hpo.results.outcome import FinalistsOutcome
from hpo.results.state import FORMAT, SweepState
from trainers.protocol.codec import from_json, to_json


def read_state(attrs: Mapping[str, Any]) -> SweepState:
    """The state in a study's attributes: unknown ones are ignored, missing ones have their default.

    Raises `ValueError` where they do not fit, or were written by a program whose records this one cannot read.
    """
    if attrs.get("format", FORMAT) > FORMAT:
        raise ValueError(
            f"its records have format {attrs['format']}; this version of hpo reads {FORMAT}: use a newer one"
        )
    return from_json(SweepState, attrs)


def attribute(value: Any) -> Any:
    """A field of the state as plain JSON values."""
    if isinstance(value, FinalistsOutcome):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return [attribute(item) for item in value] if isinstance(value, (list, tuple)) else value
