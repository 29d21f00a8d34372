"""A sweep's state in the attributes of its Optuna study: each field under its own name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.results.state import SweepState
from trainers.protocol.codec import RECORD_FORMAT, from_json


class LaterFormat(ValueError):
    """Records that a newer hpo wrote, in a form that this one cannot read rightly."""


def read_state(attrs: Mapping[str, Any]) -> SweepState:
    """The state in a study's attributes: unknown ones are ignored, missing ones have their default.

    Raises `LaterFormat`, and `ValueError` where they do not fit.
    """
    if attrs.get("format", RECORD_FORMAT) > RECORD_FORMAT:
        raise LaterFormat(f"its records have format {attrs['format']}, this one reads {RECORD_FORMAT}")
    return from_json(SweepState, attrs)
