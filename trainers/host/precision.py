"""Decides what `precision: auto` is: measured once in children of the host, then kept in the cache."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.host.aside import AsideFailed, done_aside
from trainers.protocol.codec import fingerprint, from_json, to_json
from trainers.protocol.events import Decision, PreparedData
from trainers.protocol.files import write_atomically
from trainers.protocol.trial_spec import TrialSpec

if TYPE_CHECKING:
    from trainers.model.base import Base
    from trainers.training.precision import Measured

FOLDER = "precision"
"""Of the cache, with one file for each decision."""


def decided(base: Base, spec: TrialSpec, inspection: PreparedData) -> Decision | None:
    """What `auto` is for trials like `spec` on this CPU; None where memory ran out, so that nothing was measured."""
    from trainers.training.precision import candidates, circumstances, decide

    tokens_dir = Path(inspection.tokens_dir)
    if len(names := candidates()) == 1:
        return Decision(names[0], "")
    key = circumstances(spec, inspection.model_fingerprint, tokens_dir)
    file = Path(spec.workload.cache_dir, FOLDER, f"{fingerprint(key)}.json")
    if (kept := _kept(file)) is not None:
        return kept
    try:
        rounds = _measured(base, spec, tokens_dir, names)
    except AsideFailed as error:
        return Decision(names[0], str(error))  # not kept: the next sweep tries again
    if rounds is None:
        return None
    decision = decide(rounds)
    _keep(file, key, decision)
    return decision


def _measured(
    base: Base, spec: TrialSpec, tokens_dir: Path, names: tuple[str, ...]
) -> list[dict[str, Measured]] | None:  # fmt: skip
    """Every candidate, measured in turns in children of this process; None where memory ran out.

    Raises `AsideFailed` where a child gave no answer.
    """
    from trainers.training.precision import ROUNDS, Measured, measure_steps

    def measure(name: str) -> dict[str, Any]:
        given: dict[str, Any] = to_json(measure_steps(base, spec, tokens_dir, name))
        return given

    rounds = []
    for _ in range(ROUNDS):
        measured = {}
        for name in names:
            try:
                answer = done_aside(partial(measure, name))
            except AsideFailed as error:
                raise AsideFailed(f"{name} cannot be measured: {error}") from error
            if answer is None:
                return None
            measured[name] = from_json(Measured, answer)
        rounds.append(measured)
    return rounds


def _kept(file: Path) -> Decision | None:
    """The decision of an earlier sweep; None where there is none that can be read."""
    from trainers.training.precision import CANDIDATES

    try:
        decision = from_json(Decision, json.loads(file.read_text(encoding="utf-8"))["decision"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:  # cut off, or of another version: measured anew
        print(f"{file} cannot be read ({error}); the precision is measured again", file=sys.stderr)
        return None
    return decision if decision.precision in CANDIDATES else None


def _keep(file: Path, key: dict[str, Any], decision: Decision) -> None:
    """Write a decision down, with all that it was made for."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({**key, "decision": to_json(decision)}, indent=1))
    except OSError as error:  # the next sweep measures again
        print(f"{file} cannot be written: {error}", file=sys.stderr)
