"""The environment that a trial is trained with, in its folder; and the commit of the repository around a sweep."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from hpo.executors.environment import Environment
from hpo.trials.trial_files import read_record, read_spec
from trainers.protocol.codec import to_file
from trainers.protocol.files import TrialPaths, write_atomically
from trainers.protocol.trial_spec import TrialSpec


def write_environment(environment: Environment, spec: TrialSpec, paths: TrialPaths) -> None:
    """`environment.json`, before an attempt at a trial begins and its spec is written."""
    paths.dir.mkdir(parents=True, exist_ok=True)
    is_mixed = paths.checkpoints.exists() and _is_another(environment, spec, paths)
    write_atomically(paths.environment, to_file(replace(environment, is_mixed=is_mixed)))


def _is_another(environment: Environment, spec: TrialSpec, paths: TrialPaths) -> bool:
    """Whether the attempt before had other threads or another environment."""
    before = read_environment(paths)
    if before and (before.is_mixed or before.differences(environment)):
        return True
    return paths.spec.exists() and read_spec(paths).threads != spec.threads


def read_environment(paths: TrialPaths) -> Environment | None:
    """What the last attempt at a trial was trained with; None for trials of an earlier hpo."""
    return read_record(Environment, paths.environment) if paths.environment.exists() else None


def git_commit(folder: Path) -> str | None:
    """The commit of the git repository around a folder, with `-dirty` where tracked files differ from it; else None."""
    if (git := shutil.which("git")) is None:
        return None
    # Without its monitor of files, which is a program that the repository names.
    command = [git, "-c", "core.fsmonitor=false", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40",
               "--exclude=*"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no repository that can be asked
    return done.stdout.strip() or None if done.returncode == 0 else None
