"""Programs that look at files and start nothing: each from a package of the dev extra, or the test is skipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def output_of(program: str, package: str, *arguments: object, cwd: Path | None = None) -> str:
    """What a program prints; it must find nothing wrong."""
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if found is None:
        pytest.skip(f"no {program}: pip install {package}")
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
