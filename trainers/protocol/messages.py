"""What crosses the border between `hpo` and `trainers`: requests in, events out, all of it JSON.

Standard library only, so that both sides can import it at no cost. A request is answered by a stream of
events whose last one is terminal.

    Inspect ─► PreparedData    Import ─► Loaded    Export       ─► Exported       Train ─► TrialEvent* ─► Trained
    Check   ─► Checked         Load   ─► Loaded    ExportBundle ─► BundleExported
    Probe   ─► Probed          Score  ─► Scored    Measure      ─► Measurement    any of them ─► Failed
                                                   MeasureAll   ─► AllJudged
    Freeze  ─► FrozenRows                          Tune         ─► Tuned
    MeasureMemory ─► MemoryModel

A `Train` request holds one trial or several. What happens to one of them comes as a `TrialEvent` with its number:

    Resumed? Step* (Evaluation ⇄ verdict)* ─► TrialResult or Failed

After each `Evaluation` the trainer waits for a verdict on that trial: go, stop (it was pruned), finish (its minutes are
over), or pause (write a checkpoint and end); all but go are also taken after any `Step`, where nobody waits for them. A
`Failed` outside a `TrialEvent` is of the whole request: of every trial in it that had not ended.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from trainers.protocol.codec import from_json, to_json
from trainers.protocol.events import Event, TrialEvent, TrialReport
from trainers.protocol.requests import Request

_BY_NAME = {
    cls.__name__: cls for cls in (*typing.get_args(Event), *typing.get_args(TrialReport), *typing.get_args(Request))
}


def encode(message: Event | TrialReport | Request) -> dict[str, Any]:
    """A message with its type's name, as sent over a pipe."""
    if isinstance(message, TrialEvent):
        return {"type": "TrialEvent", "trial": message.trial, "report": encode(message.report)}
    return {"type": type(message).__name__, **to_json(message)}


def decode(data: Mapping[str, Any]) -> Any:
    """The inverse of `encode`. Raises `ValueError` on a type that is none of ours."""
    fields = dict(data)
    name = fields.pop("type", None)
    if name == "TrialEvent":
        return TrialEvent(fields["trial"], decode(fields["report"]))
    if name not in _BY_NAME:
        raise ValueError(f"unknown message type {name!r}")
    return from_json(_BY_NAME[name], fields)
