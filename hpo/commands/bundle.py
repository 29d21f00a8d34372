"""`hpo bundle`: one base model exported with adapters as inputs, and champions of sweeps as adapters beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.commands.preflight import WORKER, explained_by_log
from hpo.commands.session import plain_errors
from hpo.errors import GateRefused
from hpo.executors.local import LocalExecutor
from hpo.paths import Home
from hpo.progress_view import ProgressView
from hpo.release.bundle import Part, parts_of
from hpo.trials.calls import run_alone
from trainers.protocol.exported import BundleExported
from trainers.protocol.requests import ExportBundle


def make_bundle(
    home: Home, name: str, given: Sequence[str], view: ProgressView, worker: str = WORKER
) -> Mapping[str, Any]:
    """Export the bundle, compare each adapter with its merged model, and register it; what it has, as plain values.

    Raises `ConfigError` with everything that cannot share one graph and where the name's champion is no bundle, and
    `GateRefused` where an adapter's answers are not those of its merged model; then nothing is registered.
    """
    with plain_errors():
        parts = parts_of(home, name, given)
        with tempfile.TemporaryDirectory(prefix="hpo-bundle-") as scratch:
            folder, log = Path(scratch, "bundle"), Path(scratch, "host.log")
            view.say(f"exporting one base with {len(parts)} adapters as inputs; comparing each with its merged model")
            written = _exported(parts, folder, log, worker)
            if written.failures:
                reasons = "; ".join(f"{adapter} {why}" for adapter, why in written.failures.items())
                raise GateRefused(f"{name!r} was not released: {reasons}")
            from hpo.release.bundle_registry import register_bundle  # late, for MLflow

            version = register_bundle(home, name, folder, parts, written.adapters, view.say)
    adapters = {a.name: {"hash": a.hash, "size_mb": a.size_mb, "difference": a.difference} for a in written.adapters}
    return {"name": name, "version": version, "adapters": adapters, "seconds": written.seconds}


def _exported(parts: Sequence[Part], folder: Path, log: Path, worker: str) -> BundleExported:
    executor = LocalExecutor(log, worker)
    try:
        with explained_by_log("exporting the bundle", log):
            found = run_alone(executor, ExportBundle(tuple(part.trial for part in parts), str(folder)))
    finally:
        executor.close()
    assert isinstance(found, BundleExported)  # noqa: S101  # the protocol's answer to ExportBundle
    return found


def show_bundle(view: ProgressView, made: Mapping[str, Any]) -> None:
    """Show the adapters of a bundle, and how to serve them."""
    rows = [
        [adapter, f"{of['size_mb']:.2f}", f"{of['difference']:.1g}", of["hash"][:12]]
        for adapter, of in made["adapters"].items()
    ]
    view.table(f"{made['name']} version {made['version']}", ["adapter", "MB", "difference from merged", "hash"], rows)
    view.say(f"hpo serve {made['name']} serves each of them as {made['name']}/ADAPTER")
