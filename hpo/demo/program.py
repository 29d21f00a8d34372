"""Runs another program for a fetch. Tests replace `run`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from subprocess import PIPE, STDOUT, CompletedProcess


def run(command: list[str], cwd: Path) -> CompletedProcess[str]:
    """Run a command to its end, with stdout and stderr captured together."""
    env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # as for the trial host: a conversion computes with torch
    return subprocess.run(
        command, cwd=cwd, env=env, stdout=PIPE, stderr=STDOUT, text=True, errors="replace", check=False
    )
