"""A bundle in MLflow's Model Registry: a version like any other, with a run of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.lock import exclusive
from hpo.paths import Home
from hpo.release.aliases import seats
from hpo.release.bundle import Part, origins
from hpo.release.manifest import MANIFEST, versions_here
from hpo.release.registry import ensure_registered, log_model
from hpo.release.versions import ADAPTERS
from hpo.tracking.mlflow_experiments import bundle_experiment
from hpo.tracking.mlflow_places import BUNDLE_TAG
from hpo.tracking.mlflow_store import client
from trainers.protocol.exported import BundledAdapter
from trainers.protocol.files import file_fingerprint
from trainers.runtime.card import Card


def register_bundle(
    home: Home, name: str, folder: Path, parts: Sequence[Part], written: Sequence[BundledAdapter],
    say: Callable[[str], None],
) -> str:  # fmt: skip
    """Register a bundle that passed its gate as a version of `name`, and make it the champion; returns the version.

    `hpo gc` waits meanwhile: until the version exists, its files would count as those of a release that was cut short.
    """
    with exclusive(home.bundle_lock):
        return _register(home, name, folder, parts, written, say)


def _register(
    home: Home, name: str, folder: Path, parts: Sequence[Part], written: Sequence[BundledAdapter],
    say: Callable[[str], None],
) -> str:  # fmt: skip
    store = client(home)
    manifest = manifest_of(folder, parts, written)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))
    run = store.create_run(bundle_experiment(store, home, say), run_name=f"bundle {name}", tags={BUNDLE_TAG: name})
    source = log_model(store, run.info.run_id, folder, Card.read(folder))
    store.set_terminated(run.info.run_id, "FINISHED")
    ensure_registered(store, name)
    described = ", ".join(part.trial.name for part in parts)
    version = str(
        store.create_model_version(
            name, source=source, run_id=run.info.run_id, tags={"variant": "fp32", ADAPTERS: str(len(parts))},
            description=f"adapters on one base: {described}",
        ).version
    )  # fmt: skip
    with seats(home, name) as held:
        held.crown(version)
    return version


def manifest_of(folder: Path, parts: Sequence[Part], written: Sequence[BundledAdapter]) -> Mapping[str, Any]:
    """Where each adapter comes from, the hashes of everything, and what was compared."""
    return {
        "variant": "fp32",
        "adapters": origins(parts, written),
        "sha256": {
            "base": parts[0].trial.inspection.model_fingerprint,
            "onnx": file_fingerprint(folder.glob("*.onnx*")),
            "release": file_fingerprint(p for p in folder.rglob("*") if p.is_file()),
        },
        "versions": versions_here(),
    }  # fmt: skip
