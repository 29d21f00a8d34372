"""Decides what to try and remembers what happened. `import hpo; hpo.sweep("x.yaml")` does what the command does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["show", "sweep"]


def sweep(file: str | Path, *, home: str | Path | None = None, jobs: int | None = None) -> dict[str, Any]:
    """Run or continue the sweep of a YAML file; return what `hpo show --json` prints. Raises `hpo.errors.HpoError`."""
    from hpo.commands.sweep import raise_refusal, run_sweep
    from hpo.paths import Home

    summary = run_sweep(Path(file), Home.locate(Path(home) if home else None), jobs=jobs)
    raise_refusal(summary)
    return summary.to_json()


def show(name: str, *, home: str | Path | None = None) -> dict[str, Any]:
    """Return what `hpo show --json` prints. Raises `hpo.errors.UsageError` for a sweep that does not exist."""
    from hpo.commands.show import read_sweep
    from hpo.paths import Home

    return read_sweep(Home.locate(Path(home) if home else None), name).to_json()
